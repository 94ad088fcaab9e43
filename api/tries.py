"""Wrong API keys per client address: after too many within a minute, the address must wait."""

import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

from nelbo.errors import TooManyTries

WINDOW_S = 60.0
ADDRESSES = 10_000
"""Maximum number of addresses that are remembered. Then the one that tried first is forgotten."""


class Tries:
    """The failed tries of the last minute in one process, at most `most` per address."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._failed: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def refusal(self, address: str) -> TooManyTries | None:
        """The error for an address that must wait; None if it need not."""
        count, since = self._failed.get(_network(address), (0, 0.0))
        remaining_s = since + WINDOW_S - self._clock()
        if count < self._most or remaining_s <= 0:
            return None
        return TooManyTries(
            f"{count} requests with a wrong API key came from your address within a minute; wait"
            f" {remaining_s:.0f} s",
            retry_after=remaining_s,
        )

    def add(self, address: str) -> None:
        """Count a failed try."""
        network = _network(address)
        now = self._clock()
        count, since = self._failed.get(network, (0, now))
        if now - since >= WINDOW_S:
            count = 0
            since = now
        self._failed[network] = (count + 1, since)
        if len(self._failed) > ADDRESSES:
            self._failed.popitem(last=False)


def _network(address: str) -> str:
    """The /64 network of an IPv6 address, all of which one client may use; or the IPv4 address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return str(IPv6Address(int(parsed) >> 64 << 64)) if parsed.version == 6 else address

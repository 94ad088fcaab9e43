"""Wrong API keys, counted by client address: after too many within a minute the address has to
wait."""

import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

from nelbo.errors import TooManyTries

WINDOW_S = 60.0
ADDRESSES = 10_000
"""Most addresses that are remembered; beyond, the one that tried first is forgotten."""


class Tries:
    """Failed tries of the last minute; at most `most` of one address are looked at. One process
    counts for itself."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._failed: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def refusal(self, address: str) -> TooManyTries | None:
        """Why this address has to wait; None where it has not to."""
        count, since = self._failed.get(_network(address), (0, 0.0))
        left_s = since + WINDOW_S - self._clock()
        if count < self._most or left_s <= 0:
            return None
        return TooManyTries(
            f"{count} requests with a wrong API key came from your address within a minute; wait"
            f" {left_s:.0f} s",
            retry_after=left_s,
        )

    def add(self, address: str) -> None:
        """Count a failed try."""
        network, now = _network(address), self._clock()
        count, since = self._failed.get(network, (0, now))
        if now - since >= WINDOW_S:
            count, since = 0, now
        self._failed[network] = (count + 1, since)
        if len(self._failed) > ADDRESSES:
            self._failed.popitem(last=False)


def _network(address: str) -> str:
    """Whoever has one IPv6 address has the 2^64 beside it too."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return str(IPv6Address(int(parsed) >> 64 << 64)) if parsed.version == 6 else address

"""Wrong keys by address: counted, answered with the time to wait, and forgotten at bounded
memory."""

from api import tries
from api.tries import Tries


class Clock:
    at = 1_000.0

    def __call__(self) -> float:
        return self.at


def test_an_address_waits_after_too_many_wrong_keys_until_the_minute_is_over() -> None:
    clock = Clock()
    counted = Tries(3, clock)
    for _ in range(3):
        assert counted.refusal("10.0.0.1") is None
        counted.add("10.0.0.1")
        clock.at += 10
    refusal = counted.refusal("10.0.0.1")
    assert refusal is not None
    assert (refusal.message[-9:], refusal.retry_after) == ("wait 30 s", 30)
    assert not counted.refusal("10.0.0.2")
    clock.at += 30
    assert not counted.refusal("10.0.0.1")
    counted.add("10.0.0.1")
    assert not counted.refusal("10.0.0.1"), "a new minute counts from the beginning"


def test_addresses_of_one_ipv6_network_are_one() -> None:
    counted = Tries(1)
    counted.add("2001:db8:1:2::1")
    assert counted.refusal("2001:db8:1:2:ffff::7")
    assert not counted.refusal("2001:db8:1:3::1")


def test_no_number_of_addresses_fills_the_memory() -> None:
    counted = Tries(1)
    for number in range(tries.ADDRESSES + 100):
        counted.add(f"address {number}")
    assert len(counted._failed) == tries.ADDRESSES
    assert counted.refusal(f"address {tries.ADDRESSES + 99}")

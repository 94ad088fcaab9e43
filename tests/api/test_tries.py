"""Wrong keys by address: counted, answered with the time to wait, and forgotten at bounded memory."""

import pytest

from api import tries
from api.tries import Tries
from nelbo.errors import TooManyTries


class Clock:
    at = 1_000.0

    def __call__(self) -> float:
        return self.at


def refused(counted: Tries, address: str) -> bool:
    try:
        counted.check(address)
    except TooManyTries:
        return True
    return False


def test_an_address_waits_after_too_many_wrong_keys_until_the_minute_is_over() -> None:
    clock = Clock()
    counted = Tries(3, clock)
    for _ in range(3):
        counted.check("10.0.0.1")
        counted.add("10.0.0.1")
        clock.at += 10
    with pytest.raises(TooManyTries, match="wait 30 s") as problem:
        counted.check("10.0.0.1")
    assert problem.value.retry_after == 30
    assert not refused(counted, "10.0.0.2")
    clock.at += 30
    assert not refused(counted, "10.0.0.1")
    counted.add("10.0.0.1")
    assert not refused(counted, "10.0.0.1"), "a new minute counts from the beginning"


def test_addresses_of_one_ipv6_network_are_one() -> None:
    counted = Tries(1)
    counted.add("2001:db8:1:2::1")
    assert refused(counted, "2001:db8:1:2:ffff::7")
    assert not refused(counted, "2001:db8:1:3::1")


def test_no_number_of_addresses_fills_the_memory() -> None:
    counted = Tries(1)
    for number in range(tries.ADDRESSES + 100):
        counted.add(f"address {number}")
    assert len(counted._failed) == tries.ADDRESSES
    assert refused(counted, f"address {tries.ADDRESSES + 99}")

"""Whether a value is what its draws show."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from nelbo.encoding import Encoded
from nelbo.expectations import DRAWS, expectation, is_expected, unusual_time
from nelbo.schema import Column, Schema

NUMBER = Schema(columns=(Column(name="x", kind="integer"),))
CATEGORY = Schema(
    columns=(Column(name="x", kind="categorical", categories=("a", "b"), rarer=(("c", 9),)),)
)
TIME = Schema(columns=(Column(name="x", kind="datetime"),))
MONDAY = datetime(2024, 1, 1, tzinfo=UTC)
NUMBERS = np.arange(float(DRAWS))[:, None]
CODES = np.repeat([0, 1, 4], [50, 41, 8])[:, None]
"""50 a, 41 b, 8 c."""


def row(schema: Schema, value: float) -> Encoded:
    """A row with a value of its only column: a number, or the code of a category."""
    is_number = bool(schema.numbers)
    numbers = np.array([[value]]) if is_number else np.empty((1, 0))
    codes = np.empty((1, 0), np.int64) if is_number else np.array([[int(value)]])
    return Encoded(numbers, codes, np.array([0]), [])


def number_is_expected(value: float, missing: int = 0) -> bool:
    draws = NUMBERS.copy()
    draws[:missing] = np.nan
    none = np.empty((DRAWS, 0), np.int64)
    summary = expectation(NUMBER, "x", draws, none)
    return is_expected(NUMBER, "x", row(NUMBER, value), summary, none)


@pytest.mark.parametrize(
    ("value", "expected"), [(3, False), (4, True), (49, True), (94, True), (95, False)]
)
def test_a_number_is_expected_inside_of_the_interval(value: float, expected: bool) -> None:
    assert number_is_expected(value) is expected


def test_a_gap_is_expected_where_one_in_ten_draws_is_one() -> None:
    assert not number_is_expected(np.nan, missing=9)
    assert number_is_expected(np.nan, missing=10)


def test_a_value_is_not_expected_where_nearly_all_draws_are_missing() -> None:
    assert number_is_expected(95, missing=89)
    assert not number_is_expected(95, missing=90)


@pytest.mark.parametrize(
    ("code", "expected"), [(0, True), (1, True), (2, False), (3, False)], ids=["a", "b", "c", "gap"]
)
def test_a_category_is_expected_if_it_is_one_in_ten_draws(code: int, expected: bool) -> None:
    numbers = np.empty((DRAWS, 0))
    summary = expectation(CATEGORY, "x", numbers, CODES)
    assert is_expected(CATEGORY, "x", row(CATEGORY, code), summary, CODES) is expected


def test_the_most_frequent_category_is_always_expected() -> None:
    rarer = tuple((f"r{i}", 5) for i in range(200))
    column = Column(name="x", kind="categorical", categories=("a",), rarer=rarer)
    schema = Schema(columns=(column,))
    codes = np.array([0, 0, *range(3, 3 + DRAWS - 2)])[:, None]
    numbers = np.empty((DRAWS, 0))
    summary = expectation(schema, "x", numbers, codes)
    for code in (0, 1):
        assert is_expected(schema, "x", row(schema, code), summary, codes)
    assert not is_expected(schema, "x", row(schema, 2), summary, codes), "it is never missing"


def micros(time: datetime) -> float:
    return time.timestamp() * 1_000_000


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (MONDAY + timedelta(days=70, hours=12), None),
        (MONDAY + timedelta(days=71, hours=7, minutes=30), None),
        (MONDAY + timedelta(days=71, hours=3, minutes=17), "03:17 is an unusual time of day"),
        (MONDAY + timedelta(days=76, hours=12), "Sunday is an unusual day"),
    ],
)
def test_the_weekday_and_the_time_of_day_of_a_date_are_looked_at(
    value: datetime, reason: str | None
) -> None:
    """The draws are in the day, from Monday to Friday, over many weeks."""
    days = [7 * (i // 5) + i % 5 for i in range(DRAWS)]
    draws = [MONDAY + timedelta(days=day, hours=8 + i % 11) for i, day in enumerate(days)]
    numbers = np.array([[micros(draw)] for draw in draws])
    assert unusual_time(TIME, "x", row(TIME, micros(value)), numbers) == reason
    assert unusual_time(NUMBER, "x", row(NUMBER, micros(value)), numbers) is None


def test_a_gap_has_no_unusual_time() -> None:
    numbers = np.array([[micros(MONDAY)]] * DRAWS)
    assert unusual_time(TIME, "x", row(TIME, np.nan), numbers) is None
    assert unusual_time(TIME, "x", row(TIME, micros(MONDAY)), numbers * np.nan) is None

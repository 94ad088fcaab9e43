"""Whether the first record of a CSV file holds the names of its columns, or is a row like those
below it."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from nelbo.schema import MISSING

TYPED = 0.95
"""Share of a column's values that must be alike for a value to be unlike them."""
_CELLS = 100_000
"""Number of cells that are looked at."""
_ENOUGH = 20
"""Number of values from which on their range says what the next one will be."""
_NUMBER = re.compile(
    r"[-+\u2212(]?[$€£¥]?\s?(?:\d[\d.,'\u2019\u00a0\u202f]*(?:"
    r" \d{3})*(?:[.,]\d+)?|[.,]\d+)(?:e[-+]?\d+)?\)?\s?[%$€£¥]?"
    r"|[-+]?(?:inf|nan)",
    re.IGNORECASE,
)
_YEAR = re.compile(r"(?:19|20)\d\d")


@dataclass(frozen=True)
class Votes:
    """The number of columns in which the first record looks like a name, and like a value."""

    names: int
    values: int


def is_number(text: str) -> bool:
    """Whether a cell is a number, however its signs are written."""
    return _NUMBER.fullmatch(text.strip()) is not None


def numeric(column: Sequence[str]) -> bool:
    """Whether nearly all values of a column are numbers."""
    values = _present(column)
    return bool(values) and sum(map(is_number, values)) >= TYPED * len(values)


def votes(first: Sequence[str], body: Sequence[Sequence[str]]) -> Votes:
    """What each column says of the first record, which has as many cells as each record of the
    body."""
    step = max(1, len(body) * len(first) // _CELLS)
    columns = list(zip(*body[::step], strict=True)) or [()] * len(first)
    if _counted_names(first, columns):
        return Votes(len(first), 0)
    each = [
        _vote(value.strip(), _present(column)) for value, column in zip(first, columns, strict=True)
    ]
    return Votes(each.count("name"), each.count("value"))


def _present(column: Sequence[str]) -> list[str]:
    return [value for value in map(str.strip, column) if value and value not in MISSING]


def _vote(first: str, values: list[str]) -> str | None:
    if not values or not first or first in MISSING:
        return None
    if numeric(values):
        return "value" if is_number(first) and not _out_of_range(first, values) else "name"
    shape = _shape(first)
    alike = sum(_shape(value) == shape for value in values)
    if any(sign.isdigit() for sign in shape) and alike >= TYPED * len(values):
        return "value"
    if first in values:
        return "value"
    if len(values) >= _ENOUGH and len(set(values)) <= len(values) / 2:
        return "name"
    unlike = any(
        has(first) and sum(map(has, values)) <= (1 - TYPED) * len(values)
        for has in (_is_word, str.islower)
    )
    return "name" if unlike else None


def _out_of_range(first: str, values: list[str]) -> bool:
    """Whether a whole number is far from all of many values, as a year is that heads a column."""
    if not first.isdecimal() or len(values) < _ENOUGH:
        return False
    found = [
        float(value.replace(",", "."))
        for value in values
        if re.fullmatch(r"[-+]?\d*[.,]?\d+", value)
    ]
    if len(found) < TYPED * len(values):
        return False
    low, high = min(found), max(found)
    return not low - (high - low) <= float(first) <= high + (high - low)


def _counted_names(first: Sequence[str], columns: Sequence[Sequence[str]]) -> bool:
    """Whether the record counts 0, 1, 2 … as pandas heads columns without names, or counts years
    above other numbers."""
    numbers = [value.strip() for value in first if value.strip().isdecimal()]
    if len(numbers) < len([value for value in first[1:] if value.strip()]) or len(numbers) < 2:
        return False
    for start, least in ((0, 3), (1, 8)):
        if len(numbers) >= least and numbers == [
            str(at) for at in range(start, start + len(numbers))
        ]:
            return True
    years = [int(value) for value in numbers if _YEAR.fullmatch(value)]
    if len(years) < len(numbers) or any(
        later != year + 1 for year, later in itertools.pairwise(years)
    ):
        return False
    values = [value for column in columns[len(first) - len(years) :] for value in _present(column)]
    return (
        bool(values)
        and sum(_YEAR.fullmatch(value) is not None for value in values) < len(values) / 2
    )


def _shape(value: str) -> str:
    """The kinds of characters in a value: 2024-03-01 and 1999-12-24 have one shape."""
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "9", value))


def _is_word(value: str) -> bool:
    return re.fullmatch(r"\w+", value) is not None and not value[0].isdigit()

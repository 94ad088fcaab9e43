"""Whether the first record of a CSV file is a header, or a row like those below it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nelbo.schema import MISSING

TYPED = 0.95
"""A column has a type or a shape if at least this share of its values has it."""
_CELLS = 100_000
"""About this number of cells is examined."""
_ENOUGH = 20
"""A column needs this number of values before their range can tell a value from a name."""
_NUMBER = re.compile(
    r"[-+\u2212(]?[$€£¥]?\s?(?:\d[\d.,'\u2019\u00a0\u202f]*(?:"
    r" \d{3})*(?:[.,]\d+)?|[.,]\d+)(?:e[-+]?\d+)?\)?\s?[%$€£¥]?"
    r"|[-+]?(?:inf|nan)",
    re.IGNORECASE,
)
_YEAR = re.compile(r"(?:19|20)\d\d")


@dataclass(frozen=True)
class Votes:
    """The number of columns in which the first record looks like a name or like a value."""

    names: int
    values: int


def is_number(text: str) -> bool:
    """Whether a cell is a number, in any spelling."""
    return _NUMBER.fullmatch(text.strip()) is not None


def numeric(column: Sequence[str]) -> bool:
    """Whether nearly all values of a column are numbers."""
    values = _present(column)
    return bool(values) and sum(map(is_number, values)) >= TYPED * len(values)


def votes(first: Sequence[str], body: Sequence[Sequence[str]]) -> Votes:
    """The votes of all columns on the first record.

    It has the same number of cells as each record of the body.
    """
    step = max(1, len(body) * len(first) // _CELLS)
    columns = list(zip(*body[::step], strict=True)) or [()] * len(first)
    if _counted_names(first, columns):
        return Votes(len(first), 0)
    pairs = zip(first, columns, strict=True)
    single = [_vote(value.strip(), _present(column)) for value, column in pairs]
    return Votes(single.count("name"), single.count("value"))


def _present(column: Sequence[str]) -> list[str]:
    return [value for value in map(str.strip, column) if value and value not in MISSING]


def _vote(first: str, values: list[str]) -> str | None:
    """Whether the first cell of a column is a "name", a "value" like those below it, or either."""
    if not values or not first or first in MISSING:
        return None
    if numeric(values):
        return "value" if is_number(first) and not _out_of_range(first, values) else "name"
    if first in values or _shares_shape(first, values):
        return "value"
    few_categories = len(values) >= _ENOUGH and len(set(values)) <= len(values) / 2
    return "name" if few_categories or _is_unlike(first, values) else None


def _shares_shape(first: str, values: list[str]) -> bool:
    """Whether nearly all values have the first one's shape, and it has digits, as a date has."""
    shape = _shape(first)
    alike = sum(_shape(value) == shape for value in values)
    return any(sign.isdigit() for sign in shape) and alike >= TYPED * len(values)


def _is_unlike(first: str, values: list[str]) -> bool:
    """Whether the first cell is a word, or in lower case, and hardly any value is."""
    few = (1 - TYPED) * len(values)
    return any(has(first) and sum(map(has, values)) <= few for has in (_is_word, str.islower))


def _out_of_range(first: str, values: list[str]) -> bool:
    """Whether a whole number is far from all of many values, as the name 2024 of a column is."""
    if not first.isdecimal() or len(values) < _ENOUGH:
        return False
    plain = [value for value in values if re.fullmatch(r"[-+]?\d*[.,]?\d+", value)]
    if len(plain) < TYPED * len(values):
        return False
    numbers = [float(value.replace(",", ".")) for value in plain]
    low, high = min(numbers), max(numbers)
    return not low - (high - low) <= float(first) <= high + (high - low)


def _counted_names(first: Sequence[str], columns: Sequence[Sequence[str]]) -> bool:
    """Whether the names count up: 0, 1, 2 … as pandas writes them, or years above other numbers."""
    numbers = [value.strip() for value in first if value.strip().isdecimal()]
    filled = [value for value in first[1:] if value.strip()]
    if len(numbers) < max(2, len(filled)):
        return False
    if len(numbers) >= 3 and _counts_from(0, numbers):
        return True
    if len(numbers) >= 8 and _counts_from(1, numbers):
        return True

    if not all(map(_is_year, numbers)) or not _counts_from(int(numbers[0]), numbers):
        return False
    below = columns[len(first) - len(numbers) :]
    values = [value for column in below for value in _present(column)]
    return sum(map(_is_year, values)) < len(values) / 2


def _counts_from(start: int, numbers: Sequence[str]) -> bool:
    return list(numbers) == [str(start + index) for index in range(len(numbers))]


def _is_year(value: str) -> bool:
    return _YEAR.fullmatch(value) is not None


def _shape(value: str) -> str:
    """The value with "a" for each run of letters and "9" for each run of digits."""
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "9", value))


def _is_word(value: str) -> bool:
    return re.fullmatch(r"\w+", value) is not None and not value[0].isdigit()

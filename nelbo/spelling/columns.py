"""How the columns of a file are written: found in a sample, and carried along with its batches as
metadata of their fields."""

import json
from collections.abc import Sequence
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute
from pydantic import BaseModel, ConfigDict

from nelbo.spelling import dates, numbers
from nelbo.spelling.numbers import NumberFormat

pc: Any = pyarrow.compute

KEY = b"nelbo"
MOST_CELLS = 200_000
"""Number of distinct values, over all columns, that are looked at."""
MOST_VALUES, LEAST_VALUES = 1_000, 50
"""The same of a column."""
MISSING = (
    "", "NaN", "nan", "NAN", "Nan", "-NaN", "-nan", "NA", "<NA>", "#NA", "N/A", "n/a", "#N/A",
    "#N/A N/A", "null", "NULL",
    "Null", "NaT", "\\N", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN", "#DIV/0!", "#VALUE!",
    "#REF!", "#NAME?", "#NUM!",
    "#NULL!",
)  # fmt: skip
"""Texts that mean in any column that a value is missing."""
MAYBE_MISSING = (
    "None", "none", "NONE", "nil", "?", "-", "--", "---", "–", "—", ".", "..", "na", "n.a.",
    "N.A.", "n.d.",
    "missing", "Missing", "MISSING", "unknown", "Unknown", "UNKNOWN", "undefined", "(blank)",
    "(null)",
)  # fmt: skip
"""Texts that mean so in a column whose other values are numbers, dates or yes and no; elsewhere
they may be a category."""


class Spelling(BaseModel):
    """How a column is written in a file, or is to be written in one.

    `number` and `format` are how its numbers and its dates are written, as far as a sample tells:
    without `certain`, `other` fits as well. `plain_first` says that a plain number (1.5) is never
    read in another way. `words` are those for false and true. `type` is the Arrow type of a typed
    column.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: NumberFormat | None = None
    format: str | None = None
    certain: bool = True
    other: NumberFormat | str | None = None
    example: str = ""
    """A value that says how it was read."""
    plain_first: bool = False
    words: tuple[str, str] | None = None
    type: str | None = None

    @classmethod
    def of(cls, field: "pa.Field[Any]") -> Self:
        """The spelling that a field carries; without one, numbers are plain where they can be."""
        carried = (field.metadata or {}).get(KEY)
        return cls(plain_first=True) if carried is None else cls.model_validate(json.loads(carried))

    def on(self, field: "pa.Field[Any]") -> "pa.Field[Any]":
        """The field, carrying this spelling."""
        return field.with_metadata({KEY: self.model_dump_json(exclude_defaults=True).encode()})

    def number_for(self, own: NumberFormat | None) -> NumberFormat | None:
        """How to read numbers where a model knows how its own table's are written: that decides
        what a sample leaves open."""
        if self.number is None or (not self.certain and self.other is None):
            return own or self.number
        usual = own or NumberFormat()
        other = self.other if isinstance(self.other, NumberFormat) else None
        if (
            other
            and not self.certain
            and (usual.decimal, usual.group) == (other.decimal, other.group)
        ):
            return other
        return self.number

    def format_for(self, own: str | None) -> str | None:
        """The same for dates."""
        return own if own and not self.certain else self.format or own


def find(
    sample: pa.RecordBatch, decimal: str | None = None, likely: str = ".", plain_first: bool = False
) -> dict[str, Spelling]:
    """The spellings of a sample's text columns. What some columns show for certain decides what
    others leave open.

    decimal: the decimal sign of all columns, if known; likely: where no column tells.
    """
    most = min(MOST_VALUES, max(LEAST_VALUES, MOST_CELLS // max(1, sample.num_columns)))
    texts = {
        name: _texts(array, most)
        for name, array in zip(sample.schema.names, sample.columns, strict=True)
    }
    found = {name: _spelling(values, decimal, likely) for name, values in texts.items()}
    signs = {one.number.decimal for one in found.values() if one.number and one.certain}
    formats = tuple(one.format for one in found.values() if one.format and one.certain)
    shown = signs.pop() if len(signs) == 1 else None
    return {
        name: (
            one if one.certain else _spelling(texts[name], decimal or shown, likely, formats) or one
        ).model_copy(update={"plain_first": plain_first})
        for name, one in found.items()
    }


def _texts(array: Any, most: int) -> list[str]:
    """Distinct values that are surely not missing."""
    trimmed = pc.utf8_trim_whitespace(array)
    kept = trimmed.filter(
        pc.invert(pc.is_in(trimmed, value_set=pa.array((*MISSING, *MAYBE_MISSING))))
    )
    return [str(value) for value in pc.unique(kept.drop_null()).to_pylist()[:most]]


def _spelling(
    texts: Sequence[str], decimal: str | None, likely: str, formats: Sequence[str] = ()
) -> Spelling:
    day = dates.find(texts, formats)
    if day is not None:
        return Spelling(format=day.format, certain=day.certain, other=day.other, example=texts[0])
    number = numbers.find(texts, decimal, likely)
    if number is None:
        return Spelling(certain=bool(texts))
    example = max(texts, key=lambda text: sum(not sign.isalnum() for sign in text))
    return Spelling(
        number=number.format, certain=number.certain, other=number.other, example=example
    )

"""The spelling of a file's columns, detected in a sample and kept in the metadata of its fields."""

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
"""At most this number of distinct values is examined in all columns together."""
MOST_VALUES = 1_000
"""At most this number of distinct values is examined per column."""
LEAST_VALUES = 50
"""This number of distinct values is examined per column, also in very wide tables."""
MISSING = (
    "", "NaN", "nan", "NAN", "Nan", "-NaN", "-nan", "NA", "<NA>", "#NA", "N/A", "n/a", "#N/A",
    "#N/A N/A", "null", "NULL", "Null", "NaT", "\\N", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN",
    "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#NULL!",
)  # fmt: skip
"""Texts that mean a missing value in every column."""
MAYBE_MISSING = (
    "None", "none", "NONE", "nil", "?", "-", "--", "---", "–", "—", ".", "..", "na", "n.a.", "N.A.",
    "n.d.", "missing", "Missing", "MISSING", "unknown", "Unknown", "UNKNOWN", "undefined",
    "(blank)", "(null)",
)  # fmt: skip
"""Texts that mean a missing value only in a column of numbers, dates or booleans.

In another column they may be a category.
"""


class Spelling(BaseModel):
    """How a column is written in a file, or will be written in one.

    number, format: of its numbers and of its dates, as detected in a sample.
    certain: whether the sample leaves no doubt. If it does, `other` may fit as well.
    plain_first: a plain number (1.5) is read as a plain number, also if `number` differs.
    words: the texts for false and true.
    type: the Arrow type of a typed column.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: NumberFormat | None = None
    format: str | None = None
    certain: bool = True
    other: NumberFormat | str | None = None
    example: str = ""
    """A value that shows how the column is written."""
    plain_first: bool = False
    words: tuple[str, str] | None = None
    type: str | None = None

    @classmethod
    def of(cls, field: "pa.Field[Any]") -> Self:
        """The spelling in the metadata of a field; without one, plain numbers are read first."""
        content = (field.metadata or {}).get(KEY)
        return cls(plain_first=True) if content is None else cls.model_validate(json.loads(content))

    def on(self, field: "pa.Field[Any]") -> "pa.Field[Any]":
        """The field with this spelling in its metadata."""
        return field.with_metadata({KEY: self.model_dump_json(exclude_defaults=True).encode()})

    def number_for(self, own: NumberFormat | None) -> NumberFormat | None:
        """The format in which to read numbers for a model.

        own: the format of the model's training table. It decides if the sample left doubt.
        """
        if self.number is None or (not self.certain and self.other is None):
            return own or self.number
        if self.certain or not isinstance(self.other, NumberFormat):
            return self.number
        usual = own or NumberFormat()
        return self.other if usual.signs == self.other.signs else self.number

    def format_for(self, own: str | None) -> str | None:
        """The format in which to read dates for a model. own: as in `number_for`."""
        return own if own and not self.certain else self.format or own


def find(
    sample: pa.RecordBatch, decimal: str | None = None, likely: str = ".", plain_first: bool = False
) -> dict[str, Spelling]:
    """The spellings of a sample's text columns.

    Columns whose spelling is certain decide that of the others.

    decimal: the decimal sign of all columns, if the user gave one.
    likely: the decimal sign if no column shows one.
    """
    most = min(MOST_VALUES, max(LEAST_VALUES, MOST_CELLS // max(1, sample.num_columns)))
    columns = zip(sample.schema.names, sample.columns, strict=True)
    texts = {name: _texts(array, most) for name, array in columns}
    spellings = {name: _spelling(values, decimal, likely) for name, values in texts.items()}

    # The signs and formats that are certain
    certain = [spelling for spelling in spellings.values() if spelling.certain]
    signs = {spelling.number.decimal for spelling in certain if spelling.number}
    formats = tuple(spelling.format for spelling in certain if spelling.format)
    decimal = decimal or (signs.pop() if len(signs) == 1 else None)

    # The other columns once more
    for name, spelling in spellings.items():
        if not spelling.certain:
            spelling = _spelling(texts[name], decimal, likely, formats)
        spellings[name] = spelling.model_copy(update={"plain_first": plain_first})
    return spellings


def _texts(array: Any, most: int) -> list[str]:
    """At most `most` distinct values that are certainly not missing."""
    trimmed = pc.utf8_trim_whitespace(array)
    missing = pc.is_in(trimmed, value_set=pa.array((*MISSING, *MAYBE_MISSING)))
    present = trimmed.filter(pc.invert(missing)).drop_null()
    return [str(value) for value in pc.unique(present).to_pylist()[:most]]


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

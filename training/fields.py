"""Fields: what a number column's codes tell of its values, one after the other.

Nearly every column has one field, the value itself. A datetime whose values seldom come back is cut
into the week, the day of the week and the time of day, as ranges of a single number are too long
for rhythms. Weeks begin on Mondays. The cut is a bijection, t = 7 · DAY · week + DAY · weekday +
time + MONDAY, so that the masses of the fields multiply to the datetime's. The time since another
column is one field.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nelbo.schema import Column

Floats = NDArray[np.float64]

DAY, HOUR = 86_400e6, 3_600e6
"""Microseconds."""
MONDAY = -3 * DAY
"""The last Monday before the epoch, which began on a Thursday."""
MAX_ATOMS = 200
ROWS_PER_ATOM = 20
"""A column with at most this many values, each met often, is made of atoms alone."""


@dataclass(frozen=True)
class Field:
    """floor((x − origin) / unit), modulo `period` where that is finite; x itself where `unit` is
    0."""

    unit: float
    origin: float = 0.0
    period: float = math.inf
    name: str = ""

    def of(self, values: Floats) -> Floats:
        """The field of each value, float64[n] with NaN for missing."""
        if not self.unit:
            return values
        whole = np.floor((values - self.origin) / self.unit)
        return (
            whole
            if math.isinf(self.period)
            else whole - self.period * np.floor(whole / self.period)
        )


WEEKDAY = Field(DAY, MONDAY, 7, "weekday")


def fields(column: Column, values: Floats) -> Sequence[Field]:
    """The fields of a number column, the first of which says whether it is missing, by its training
    values, float64[n]."""
    value = Field({"continuous": 0.0, "integer": 1.0, "datetime": float(column.step)}[column.kind])
    if column.since:
        return [replace(value, name=f"since {column.since}")]
    if column.kind != "datetime" or DAY % value.unit or few_values(value.of(values)):
        return [value]
    of_day = (
        [Field(value.unit, MONDAY, DAY / value.unit, "time of day")] if value.unit < DAY else []
    )
    return [Field(7 * DAY, MONDAY, name="week"), WEEKDAY, *of_day]


def few_values(values: Floats) -> bool:
    """Whether each value, float64[n] with NaN for missing, is met often."""
    seen = values[~np.isnan(values)]
    return len(np.unique(seen)) <= min(MAX_ATOMS, len(seen) / ROWS_PER_ATOM)

"""Fields: the parts of a number column that have a code each.

Nearly every column has one field, the value itself. A datetime whose values seldom repeat is split
into the week, the day of the week and the time of day, because ranges of a single number are too
long for rhythms. Weeks begin on Mondays. The split can be undone, t = 7 · DAY · week + DAY ·
weekday + time + MONDAY, so the datetime's mass is the product of the masses of its fields. The time
since another column is one field. `Fields` in numbers splits all columns of a table at once.
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
"""A column with at most this number of values, each in this number of rows, has atoms alone."""


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
        if math.isinf(self.period):
            return whole
        return whole - self.period * np.floor(whole / self.period)


WEEKDAY = Field(DAY, MONDAY, 7, "weekday")


def fields(column: Column, values: Floats) -> Sequence[Field]:
    """The fields of a number column, by its training values, float64[n]. The first field decides
    whether the column is missing."""
    units = {"continuous": 0.0, "integer": 1.0, "datetime": float(column.step)}
    value = Field(units[column.kind])
    if column.since:
        return [replace(value, name=f"since {column.since}")]
    if column.kind != "datetime" or DAY % value.unit or few_values(value.of(values)):
        return [value]
    week = Field(7 * DAY, MONDAY, name="week")
    if value.unit == DAY:
        return [week, WEEKDAY]
    return [week, WEEKDAY, Field(value.unit, MONDAY, DAY / value.unit, "time of day")]


def few_values(values: Floats) -> bool:
    """Whether the values, float64[n] with NaN for missing, are few and in many rows each."""
    seen = values[~np.isnan(values)]
    return len(np.unique(seen)) <= min(MAX_ATOMS, len(seen) / ROWS_PER_ATOM)

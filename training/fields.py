"""Fields: the parts of a number column that have a code each.

Nearly every column has one field, the value itself. A datetime whose values seldom repeat is split
into the week, the day of the week and the time of day, because ranges of a single number are too
long for rhythms. Weeks begin on Mondays. The split can be undone, t = 7 · DAY · week + DAY ·
weekday + time + MONDAY, so the datetime's mass is the product of the masses of its fields. The time
since another column is one field.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nelbo.schema import Column
from training.arrays import Array, where

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


class Fields(nn.Module):
    """The fields of all number columns, D in all, as arrays.

    Buffers, one entry for each field: `source` int64 (which number column it belongs to), `origin`,
    `unit` (1 for a continuous number) and `period` float64, `integral` bool (whether it counts
    units). `first` int64 has the first field of each column.
    """

    source: Tensor
    first: Tensor
    origin: Tensor
    unit: Tensor
    period: Tensor
    integral: Tensor

    def __init__(self, columns: Sequence[Sequence[Field]]) -> None:
        super().__init__()
        every = [field for fields in columns for field in fields]
        counts = torch.tensor([len(fields) for fields in columns], dtype=torch.int64)
        self.is_split = len(every) > len(columns)
        buffers = {
            "source": torch.repeat_interleave(torch.arange(len(columns)), counts),
            "first": counts.cumsum(0) - counts,
            "origin": _doubles(field.origin for field in every),
            "unit": _doubles(field.unit or 1.0 for field in every),
            "period": _doubles(field.period for field in every),
            "integral": torch.tensor([field.unit > 0 for field in every], dtype=torch.bool),
        }
        for name, values in buffers.items():
            self.register_buffer(name, values)

    def split(self, numbers: Array) -> Array:
        """The fields float64[n, D] of numbers float64[n, …]: Field.of of all columns."""
        x = numbers
        if self.is_split:
            x = x.index_select(1, self.source) - self.origin
        if self.integral.any():
            x = x / self.unit
            x = where(self.integral, x.floor(), x)
        if self.is_split:
            x = x - (x / self.period).floor() * self.period.nan_to_num(posinf=0.0)
        return x

    def joined(self, fields: Array, missing: Array) -> Array:
        """Numbers float64[n, …] from their fields float64[n, D], NaN where the first field is
        `missing` bool[n, D]."""
        x = fields * self.unit
        if self.is_split:
            of_column = torch.eq(self.source[:, None], torch.arange(len(self.first))).double()
            x = x @ of_column + self.origin[self.first]
            missing = missing.index_select(1, self.first)
        return where(missing, math.nan, x)


def _doubles(values: Iterable[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float64)


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

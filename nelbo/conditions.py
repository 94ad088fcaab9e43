"""Conditions: which cells generated rows may have, in which shares, with which nelbo, and how
probable that is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nelbo.applied_rules import Spans
from nelbo.encoding import absolute
from nelbo.errors import InvalidInput
from nelbo.rules import Rule
from nelbo.schema import Column, Schema

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
Range = tuple[float, float]
"""The first and the last number of a range."""

GOLDEN = 0x9E3779B97F4A7C15
"""2^64 divided by the golden ratio. Its multiples, modulo 2^64, are spread as evenly as can be."""


@dataclass(frozen=True)
class Allowed:
    """The cells that a column may have in generated rows: codes of a categorical column, or ranges
    of numbers, datetimes in microseconds since the epoch; and missing values, if `missing`. Codes
    above those that encode gives stand for rarer categories, as in decode."""

    column: Column
    missing: bool
    codes: tuple[int, ...] = ()
    ranges: tuple[Range, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.missing or self.codes or self.ranges)

    @property
    def is_single(self) -> bool:
        """Whether one cell alone is allowed."""
        points = sum(2 if low < high else 1 for low, high in self.ranges)
        return self.missing + len(self.codes) + points == 1

    def meets(self, cells: Floats | Integers) -> Booleans:
        """bool[n]: whether cells, float64[n] or int64[n], are allowed."""
        if cells.dtype == np.int64:
            missing = len(self.column.categories) + 1
            codes = [*self.codes, *([missing] if self.missing else [])]
            return np.asarray(np.isin(cells, codes), dtype=np.bool_)
        is_allowed = np.isnan(cells) & self.missing
        for low, high in self.ranges:
            is_allowed |= (cells >= low) & (cells <= high)
        return is_allowed

    def both(self, other: "Allowed") -> "Allowed":
        """What this and another condition on the same column allow together."""
        codes = tuple(code for code in self.codes if code in other.codes)
        ranges = overlaps(self.ranges, other.ranges)
        return Allowed(self.column, self.missing and other.missing, codes, ranges)

    @property
    def spans(self) -> Spans:
        """The cells that are not missing, as rules take them."""
        pairs = [*((code, code) for code in self.codes), *self.ranges]
        return np.array(pairs, dtype=np.float64)


def overlaps(first: Sequence[Range], second: Sequence[Range]) -> tuple[Range, ...]:
    """The ranges of the numbers that are both in one of the first ranges and in one of the second
    ones."""
    pairs = [(max(a[0], b[0]), min(a[1], b[1])) for a in first for b in second]
    return tuple((low, high) for low, high in pairs if low <= high)


@dataclass(frozen=True)
class Shares:
    """The shares of a column's categories in generated rows: its codes and their weights, or no
    weights where all shares are equal. The row number decides which row has which category, so that
    the first rows of a longer request are those of a shorter one."""

    column: Column
    codes: tuple[int, ...]
    weights: tuple[float, ...] = ()

    def of_rows(self, rows: Integers) -> Integers:
        """The place in `codes` of each row number, int64[n]."""
        if not self.weights:
            return rows % len(self.codes)
        evenly = (rows.astype(np.uint64) * np.uint64(GOLDEN) >> np.uint64(11)) * 2.0**-53
        upto = np.cumsum(self.weights) / sum(self.weights)
        return np.searchsorted(upto[:-1], evenly, side="right").astype(np.int64)

    def are_met(self, codes: Integers, places: Integers) -> Booleans:
        """bool[n]: whether cells int64[n] have the category of their place in `codes`."""
        return np.asarray(np.array(self.codes, np.int64)[places] == codes, np.bool_)


@dataclass(frozen=True)
class Conditions:
    """What is asked of generated rows: at most one `Allowed` for each column, the shares of one
    column's categories, and the range of their nelbo."""

    allowed: tuple[Allowed, ...] = ()
    shares: Shares | None = None
    nelbo: Range | None = None

    def __bool__(self) -> bool:
        return bool(self.allowed or self.shares or self.nelbo)

    @property
    def has_odds(self) -> bool:
        """Whether some rows that are made without conditions do not meet these."""
        return bool(self.allowed or self.nelbo)

    def met(self, schema: Schema, numbers: Floats, codes: Integers) -> Booleans:
        """bool[n]: whether encoded rows meet all of `allowed`."""
        return all_of(met_each(self.allowed, schema, numbers, codes))


def all_of(met: Booleans) -> Booleans:
    """bool[n]: whether all conditions are met, from bool[n, conditions]."""
    return np.asarray(met.all(axis=1), np.bool_)


def met_each(
    allowed: Sequence[Allowed], schema: Schema, numbers: Floats, codes: Integers
) -> Booleans:
    """bool[n, conditions]: whether encoded rows meet each condition."""
    columns = _by_name(schema, absolute(numbers, schema), codes)
    met = np.ones((len(numbers), len(allowed)), np.bool_)
    for i, each in enumerate(allowed):
        met[:, i] = each.meets(columns[each.column.name])
    return met


def _by_name(schema: Schema, numbers: Floats, codes: Integers) -> dict[str, NDArray[Any]]:
    by_name: dict[str, NDArray[Any]] = {}
    by_name |= {column.name: numbers[:, i] for i, column in enumerate(schema.numbers)}
    by_name |= {column.name: codes[:, i] for i, column in enumerate(schema.categoricals)}
    return by_name


NO_CONDITIONS = Conditions()


@dataclass(frozen=True)
class Odds:
    """How probable conditions are: of `rows` rows that the model makes without them, `met` meet all
    of them. The rows that are made with them are drawn from `candidates` different rows, which is
    their effective sample size. `nelbo` is the range of their nelbo, where one is asked for."""

    rows: int
    met: int
    candidates: int
    nelbo: Range | None = None

    def as_json(self) -> dict[str, Any]:
        ends = [end if math.isfinite(end) else None for end in self.nelbo or ()]
        return {
            "rows_tried": self.rows,
            "rows_met": self.met,
            "probability": self.met / self.rows,
            "effective_sample_size": self.candidates,
        } | ({"nelbo": ends} if ends else {})


def words_of(odds: Mapping[str, Any]) -> str:
    """A sentence of what Odds.as_json says."""
    rows, met = odds["rows_tried"], odds["rows_met"]
    share = f"{met / rows:.2g}" if met else f"fewer than 1 in {rows:,}"
    words = (
        f"probability of the conditions: {share} ({met:,} of {rows:,} rows without conditions meet"
        f" them); effective sample size {odds['effective_sample_size']:,}"
    )
    if "nelbo" not in odds:
        return words
    low, high = odds["nelbo"]
    if high is None:
        return f"{words}; nelbo {low:.2f} or more"
    return f"{words}; nelbo {f'{low:.2f} to ' if low is not None else 'up to '}{high:.2f}"


def breaks_rule(rule: Rule) -> InvalidInput:
    """The error for conditions that break a rule."""
    return InvalidInput(
        f"no row that meets the conditions keeps the rule {rule.text!r}: leave out a condition on"
        " its columns"
    )

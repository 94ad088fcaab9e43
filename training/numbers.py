"""The law of numbers: atoms, bins and tails. A field of a number column has a code for each
frequent value (an atom) and for each bin of about equally many rows.

−log p(x) = −log p(code | z, columns before) − log p(x | code). The network gives the first part
(see masses). The second part is fixed when training begins:

- An atom has a mass: its share of the rows with its code, as rare numbers may share the code.
- A bin has a density that is uniform in each of its parts (see ranges).
- The code `other` has a uniform density in the gaps between known values and exponential tails
  beyond them.

Integers and datetimes count multiples of their step, so their densities are masses too. Nothing is
scaled outside: if a continuous column is multiplied by c, the density parts of −log p grow by
log c.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nelbo.spelling.numbers import decimals_of

from .arrays import Array, reached, register_buffers, take, where
from .fields import Field, few_values
from .ranges import PARTS, Code, Interval, Line, Values, codes_of

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

TAIL_SCALES = 1e-300, 1e300
"""Of exponential tails, so that their rates are finite."""
MANY_ATOMS = 24
EXACT = 1e-6
"""Part of a value's last digit that is rounding, not value."""


@dataclass(frozen=True)
class Number:
    """The fitted law of one field of a number column.

    - `intervals`: in ascending order, the code and the log-density of the numbers in each.
    - `knots`, `upto` float64[known, PARTS + 1]: the quantile function of each code. It reaches the
      values `knots` at the probabilities `upto` and is linear between them. A code of fewer parts
      begins with parts of probability 0.
    - `counts` int64[known]: the training rows of each code.
    - `decimals`: the maximum number of digits after the point of a drawn value; -1 for any.
    - `grid`: a drawn value is a multiple of this number of steps away from the smallest value.
    - `values`, `single`: in a column of few values, each in many rows, the number of values and the
      number of those that only one row has; in other columns the number of codes and 0.
    """

    field: Field
    intervals: tuple[Interval, ...]
    knots: Floats
    upto: Floats
    counts: Integers
    is_bin: NDArray[np.bool_]
    missing: int
    values: int
    single: int
    outside: "Outside"
    decimals: int
    grid: int

    others = 0
    names_others = False
    always_drawn = True

    @property
    def known(self) -> int:
        return len(self.knots)

    @property
    def first(self) -> float:
        return self.intervals[0].low

    @property
    def last(self) -> float:
        """The largest number inside of the last interval of whole numbers, or its end."""
        return self.intervals[-1].high - (1 if self.field.unit else 0)

    @property
    def bins(self) -> list[int]:
        """The codes that are not atoms."""
        return [int(code) for code in np.flatnonzero(self.is_bin)]

    @property
    def ordered(self) -> list[int]:
        """The codes whose neighbours are alike: the bins or, where most codes are atoms, all of
        them if they are many and fill most of their grid, as ages do. Atoms far apart, such as
        fees, may each mean something of their own.
        """
        is_free = not self.field.unit and self.decimals < 0
        if 2 * len(self.bins) > self.known or self.known < MANY_ATOMS or is_free:
            return self.bins
        places = (self.knots[-1, 0] - self.knots[0, 0]) * 10.0 ** max(0, self.decimals) / self.grid
        return list(range(self.known)) if places < 2 * self.known else []

    @property
    def words(self) -> str:
        """For the manifest."""
        bins = len(self.bins)
        parts = [_counted(self.known - bins, "atom"), _counted(bins, "bin"), "exponential tails"]
        name = f"{self.field.name}: " if self.field.name else ""
        return name + ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class Outside:
    """The law of `other`: the numbers that no training row holds. The left tail, the right tail and
    all gaps together have equal shares.

    `rates` are those of the exponential tails to the left and to the right, `log_densities` their
    log-densities at distance 0, `gap_log_density` the one in the gaps between the codes.
    """

    rates: tuple[float, float]
    log_densities: tuple[float, float]
    gap_log_density: float

    @classmethod
    def fit(cls, distinct: Floats, gaps: float, line: Line) -> Self:
        """From the distinct values in order and the total width of the gaps."""
        pieces = 2 + (gaps > 0)
        left, right = _tail_scales(distinct)
        return cls(
            rates=(1.0 / left, 1.0 / right),
            log_densities=(
                _tail_log_density(left, pieces, line),
                _tail_log_density(right, pieces, line),
            ),
            gap_log_density=float(-np.log(pieces * gaps)) if gaps else 0.0,
        )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count > 1)}" if count else ""


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
        register_buffers(
            self,
            source=torch.repeat_interleave(torch.arange(len(columns)), counts),
            first=counts.cumsum(0) - counts,
            origin=_doubles(field.origin for field in every),
            unit=_doubles(field.unit or 1.0 for field in every),
            period=_doubles(field.period for field in every),
            integral=torch.tensor([field.unit > 0 for field in every], dtype=torch.bool),
        )

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


class Numbers(nn.Module):
    """The laws of all fields of all number columns, D in all, as tables.

    Buffers, a row for each field: `edges` float64[D, E] (where its intervals begin, and the end of
    the last, then ∞), `code` int64[D, E + 1] and `log_density` float64[D, E + 1] (of what is left
    of each edge), `first` and `last` float64[D] (the ends of the seen range), `rates` float64[D, 2]
    (of the tails), `missing_code` int64[D]; to draw, `knots` and `upto` float64[D, K, PARTS + 1]
    (the quantile functions), `end` float64[D, K] (the end of each code), `decimals` and `grid`
    float64[D].
    """

    edges: Tensor
    code: Tensor
    log_density: Tensor
    first: Tensor
    last: Tensor
    rates: Tensor
    missing_code: Tensor
    knots: Tensor
    upto: Tensor
    end: Tensor
    decimals: Tensor
    grid: Tensor

    def __init__(self, columns: Sequence[Sequence[Number]]) -> None:
        super().__init__()
        laws = [law for fields in columns for law in fields]
        self.fields = Fields([[law.field for law in fields] for fields in columns])
        buffers = {
            **_intervals(laws),
            **_quantiles(laws),
            "first": np.array([law.first for law in laws]),
            "last": np.array([law.last for law in laws]),
            "rates": np.array([law.outside.rates for law in laws]).reshape(-1, 2),
            "missing_code": np.array([law.known + 1 for law in laws], dtype=np.int64),
            "decimals": np.array([law.decimals for law in laws], dtype=np.float64),
            "grid": np.array([law.grid for law in laws], dtype=np.float64),
        }
        for name, values in buffers.items():
            self.register_buffer(name, torch.from_numpy(values))

    def encode(self, numbers: Array) -> tuple[Array, Array]:
        """Codes int64[n, D] and log p(x | code) float64[n, D] of numbers float64[n, …]."""
        x = self.fields.split(numbers)
        missing = x.isnan()
        x = where(missing, self.first, x)

        columns, width = self.code.shape
        interval = reached(x, self.edges) + torch.arange(columns) * width
        code = take(self.code.flatten(), interval)
        log_density = take(self.log_density.flatten(), interval) - self._beyond(x)
        return where(missing, self.missing_code, code), where(missing, 0.0, log_density)

    def beyond(self, numbers: Array) -> Array:
        """float64[n, D]: what the distance of numbers float64[n, …] from the seen range costs."""
        x = self.fields.split(numbers)
        return self._beyond(where(x.isnan(), self.first, x))

    def _beyond(self, x: Array) -> Array:
        """rate · distance from the seen range, 0 inside of it."""
        one = self.fields.integral.double()
        left = self.first - x
        right = x - self.last
        left = where(left > 0, left - one, 0.0) * self.rates[:, 0]
        right = where(right > 0, right - one, 0.0) * self.rates[:, 1]
        return left + right

    def draw(self, codes: Array, u: Array) -> Array:
        """Numbers float64[n, …] of codes int64[n, D]: uniform numbers u float64[n, D] through the
        quantile functions of the codes."""
        columns, size, _ = self.knots.shape
        row = codes + torch.arange(columns) * size
        x = self._rounded(self._quantile(row, u))

        # Rounding may leave the code, whose numbers are these.
        least = take(self.knots[:, :, 0].flatten(), row)
        end = take(self.end.flatten(), row)
        x = where(x >= end, least, x.maximum(least))
        return self.fields.joined(x, codes.eq(self.missing_code))

    def _quantile(self, row: Array, u: Array) -> Array:
        """The quantile functions at u, linear between two knots."""
        upto = self.upto.flatten()
        knots = self.knots.flatten()
        shares = torch.diff(self.upto, append=torch.ones_like(self.upto[:, :, :1])).flatten()

        start = row * (PARTS + 1)
        knot = start
        for inner in range(1, PARTS):
            knot = knot + (take(upto, start + inner) <= u).long()
        share = take(torch.where(shares > 0, shares, 1.0), knot)
        low = take(knots, knot)
        high = take(knots, knot + 1)
        return low + (u - take(upto, knot)) / share * (high - low)

    def _rounded(self, x: Array) -> Array:
        """Down to as many digits and as coarse a grid as the table has."""
        ten = 10.0 ** self.decimals.clamp(min=0)
        rounded = (x * ten + EXACT).floor() / ten
        if (self.grid > 1).any():
            above = (rounded - self.first).fmod(self.grid)
            rounded = where(self.grid > 1, rounded - above, rounded)
        return where(self.fields.integral | (self.decimals >= 0), rounded, x)


def _intervals(laws: Sequence[Number]) -> dict[str, NDArray[np.generic]]:
    """`edges`, `code` and `log_density` of Numbers."""
    width = max((len(law.intervals) for law in laws), default=0) + 1
    edges = np.full((len(laws), width), np.inf)
    code = np.zeros((len(laws), width + 1), np.int64)
    log_density = np.zeros((len(laws), width + 1))
    for i, law in enumerate(laws):
        other = law.known
        size = len(law.intervals)
        left, right = law.outside.log_densities
        inside = [_log_density(interval, law) for interval in law.intervals]
        edges[i, : size + 1] = [*(each.low for each in law.intervals), law.intervals[-1].high]
        code[i, : size + 2] = [other, *(each.code for each in law.intervals), other]
        log_density[i, : size + 2] = [left, *inside, right]
    return {"edges": edges, "code": code, "log_density": log_density}


def _log_density(interval: Interval, law: Number) -> float:
    is_gap = interval.code == law.known
    return law.outside.gap_log_density if is_gap else interval.log_density


def _quantiles(laws: Sequence[Number]) -> dict[str, NDArray[np.generic]]:
    """`knots`, `upto` and `end` of Numbers."""
    size = max((law.known for law in laws), default=0) + 2
    knots = np.zeros((len(laws), size, PARTS + 1))
    upto = np.zeros((len(laws), size, PARTS + 1))
    end = np.zeros((len(laws), size))
    for i, law in enumerate(laws):
        last = law.knots[:, -1]
        is_point = law.knots[:, -2] == last
        knots[i, : law.known] = law.knots
        upto[i, : law.known] = law.upto
        end[i, : law.known] = np.where(is_point, np.nextafter(last, np.inf), last)
    return {"knots": knots, "upto": upto, "end": end}


def bins_for(rows: int) -> int:
    """Bins of a number column: about 32 rows each, 64 at most, 8 at least where that leaves 10 rows
    to each."""
    return int(np.clip(rows // 32, np.clip(rows // 10, 1, 8), 64))


def fit_number(values: Floats, field: Field, rare: int = 1) -> Number:
    """The law of a field, from a number column's training values, float64[n] with NaN for missing.

    Each code holds at least `rare` rows, where the column has so many.
    """
    seen = field.of(values[~np.isnan(values)])
    distinct, counts = np.unique(seen, return_counts=True)
    few = few_values(seen)
    line = Line(field.unit > 0, decimals_of(distinct), _grid(distinct) if field.unit else 1)
    codes = _codes(Values(distinct, counts), few, rare, line)
    intervals = tuple(_with_gaps(codes)) or (Interval(0.0, 0.0, 0.0),)
    gaps = sum(each.high - each.low for each in intervals if each.code == len(codes))
    return Number(
        field=field,
        intervals=intervals,
        knots=np.array([code.knots for code in codes]).reshape(-1, PARTS + 1),
        upto=np.array([code.upto for code in codes]).reshape(-1, PARTS + 1),
        counts=np.array([code.rows for code in codes], dtype=np.int64),
        is_bin=np.array([code.is_bin for code in codes], dtype=bool),
        missing=len(values) - len(seen),
        values=len(distinct) if few else len(codes),
        single=int((counts == 1).sum()) if few else 0,
        outside=Outside.fit(distinct, gaps, line),
        decimals=-1 if line.integral else line.decimals,
        grid=line.grid,
    )


def _codes(values: Values, few: bool, rare: int, line: Line) -> list[Code]:
    """A value that fills half a bin is an atom; where values are few, each one is."""
    bins = bins_for(values.rows)
    enough = 1.0 if few else max(2.0, 0.5 * values.rows / bins)
    is_atom = values.counts >= max(rare, enough)
    return list(codes_of(values, is_atom, bins, rare, few, line))


def _tail_log_density(scale: float, pieces: int, line: Line) -> float:
    """At distance 0, given `other`, which has `pieces` parts: an exponential density, or a
    geometric mass."""
    density = np.log(-np.expm1(-1.0 / scale) if line.integral else 1.0 / scale)
    return float(-np.log(pieces) + density)


def _grid(distinct: Floats) -> int:
    """The largest whole number by multiples of which all values differ."""
    return max(1, int(np.gcd.reduce((distinct - distinct[:1]).astype(np.int64))))


def _with_gaps(codes: Sequence[Code]) -> Iterator[Interval]:
    """The intervals of all codes, and one of `other` wherever an interval does not begin where the
    one before it ends."""
    end = codes[0].intervals[0].low if codes else 0.0
    for number, code in enumerate(codes):
        for interval in code.intervals:
            if end < interval.low:
                yield Interval(end, interval.low, 0.0, code=len(codes))
            yield replace(interval, code=number)
            end = interval.high


def _tail_scales(distinct: Floats) -> tuple[float, float]:
    """Mean excess of the outermost eighth of the distinct values, the exponential fit to a tail
    (Pickands 1975 at shape 0)."""
    largest = float(np.abs(distinct).max(initial=0.0)) or 1.0
    part = distinct / largest  # whose sums do not overflow
    outer = max(1, len(distinct) // 8)
    if len(distinct) > 1:
        left = part[outer] - part[:outer].mean()
        right = part[-outer:].mean() - part[-outer - 1]
    else:
        left = right = 1.0
    lowest, highest = TAIL_SCALES
    return (
        float(np.clip(largest * left, lowest, highest)),
        float(np.clip(largest * right, lowest, highest)),
    )

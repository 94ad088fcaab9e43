"""Codes of a number column's field: its frequent values are atoms, the others fall into bins with
about equally many rows.

The density inside a code is fixed: a mass for an atom, piecewise uniform between quantiles in a
bin, exponential in the tails.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.fields import Field, few_values
from training.ranges import PARTS, Code, Line, Values, codes_of

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

TAIL_SCALES = 1e-300, 1e300
"""Of exponential tails, so that their rates are finite."""
MAX_DECIMALS = 6
MANY_ATOMS = 24


@dataclass(frozen=True)
class Cell:
    """A half-open interval [low, high) of numbers with the same code and the same log-density."""

    low: float
    high: float
    code: int
    log_density: float


@dataclass(frozen=True)
class Number:
    """The likelihood of a field of a number column: its cells in order, and for each code its
    quantile function.

    The quantile function of a code is linear between its `knots`, values float64[known, PARTS + 1],
    which it reaches at the probabilities `upto`, float64[known, PARTS + 1]. Codes of fewer parts
    begin with parts of probability 0. A continuous value that is drawn has at most `decimals`
    digits after the point, as all values of the table do (-1: any), and any other value is as many
    multiples of `grid` steps from the smallest as those of the table are. `tails` are the rates of
    the exponential tails to the left and to the right, `tail_log_density` their log-densities at
    distance 0 (given `other`), `gap_log_density` the one in the gaps. In a column whose values are
    met often, `values` is their number and `single` the number of those that one row holds;
    elsewhere they are the number of codes and 0.
    """

    field: Field
    cells: tuple[Cell, ...]
    knots: Floats
    upto: Floats
    counts: Integers
    is_bin: NDArray[np.bool_]
    missing: int
    values: int
    single: int
    tails: tuple[float, float]
    tail_log_density: tuple[float, float]
    gap_log_density: float
    decimals: int
    grid: int

    @property
    def known(self) -> int:
        return len(self.knots)

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
        if (
            2 * len(self.bins) > self.known
            or self.known < MANY_ATOMS
            or (not self.field.unit and self.decimals < 0)
        ):
            return self.bins
        places = (self.knots[-1, 0] - self.knots[0, 0]) * 10.0 ** max(0, self.decimals) / self.grid
        return list(range(self.known)) if places < 2 * self.known else []


def bins_for(rows: int) -> int:
    """Bins of a number column: about 32 rows each, 64 at most, 8 at least where that leaves 10 rows
    to each."""
    return int(np.clip(rows // 32, np.clip(rows // 10, 1, 8), 64))


def fit_number(values: Floats, field: Field, rare: int = 1) -> Number:
    """The likelihood of a field from a number column's training values, float64[n] with NaN for
    missing.

    Each code holds at least `rare` rows, where the column has so many.
    """
    seen = field.of(values[~np.isnan(values)])
    distinct, counts = np.unique(seen, return_counts=True)
    bins, few = bins_for(len(seen)), few_values(seen)
    is_atom = counts >= max(rare, 1.0 if few else max(2.0, 0.5 * len(seen) / bins))
    line = Line(field.unit > 0, _decimals(distinct), _grid(distinct) if field.unit else 1)
    codes = list(codes_of(Values(distinct, counts), is_atom, bins, rare, few, line))
    low, high = (codes[0].cells[0].low, codes[-1].cells[-1].high) if codes else (0.0, 0.0)
    cells = tuple(_with_gaps(codes)) or (Cell(low, high, 0, 0.0),)
    gaps = sum(cell.high - cell.low for cell in cells if cell.code == len(codes))
    pieces = 2 + (gaps > 0)
    scales = _tail_scales(distinct)
    at_zero = [
        -np.log(pieces) + np.log(-np.expm1(-1.0 / scale) if line.integral else 1.0 / scale)
        for scale in scales
    ]
    return Number(
        field=field,
        cells=cells,
        knots=np.array([code.knots for code in codes]).reshape(-1, PARTS + 1),
        upto=np.array([code.upto for code in codes]).reshape(-1, PARTS + 1),
        counts=np.array([code.rows for code in codes], dtype=np.int64),
        is_bin=np.array([code.is_bin for code in codes], dtype=bool),
        missing=len(values) - len(seen),
        values=len(distinct) if few else len(codes),
        single=int((counts == 1).sum()) if few else 0,
        tails=(1.0 / scales[0], 1.0 / scales[1]),
        tail_log_density=(at_zero[0], at_zero[1]),
        gap_log_density=-np.log(pieces * gaps) if gaps else 0.0,
        decimals=-1 if line.integral else line.decimals,
        grid=line.grid,
    )


def _decimals(distinct: Floats) -> int:
    """Fewest digits after the point (MAX_DECIMALS at most) that write every value exactly, else
    -1."""
    with np.errstate(
        over="ignore"
    ):  # numbers near the largest float have no digits after the point
        for digits in range(MAX_DECIMALS + 1):
            if np.array_equal(np.round(distinct, digits), distinct):
                return digits
    return -1


def _grid(distinct: Floats) -> int:
    """The largest whole number by multiples of which all values differ."""
    return max(1, int(np.gcd.reduce((distinct - distinct[:1]).astype(np.int64))))


def _with_gaps(codes: Sequence[Code]) -> Iterator[Cell]:
    """The cells of all codes, with those of `other` wherever one does not begin where the one
    before it ends."""
    end = codes[0].cells[0].low if codes else 0.0
    for number, code in enumerate(codes):
        for cell in code.cells:
            if end < cell.low:
                yield Cell(end, cell.low, len(codes), 0.0)
            yield Cell(cell.low, cell.high, number, cell.log_density)
            end = cell.high


def _tail_scales(distinct: Floats) -> tuple[float, float]:
    """Mean excess of the outermost eighth of the distinct values, the exponential fit to a tail
    (Pickands 1975 at shape 0)."""
    largest = float(np.abs(distinct).max(initial=0.0)) or 1.0
    part = distinct / largest  # whose sums do not overflow
    outer = max(1, len(distinct) // 8)
    means = (
        (part[outer] - part[:outer].mean(), part[-outer:].mean() - part[-outer - 1])
        if len(distinct) > 1
        else (1.0, 1.0)
    )
    left, right = (float(np.clip(largest * mean, *TAIL_SCALES)) for mean in means)
    return left, right

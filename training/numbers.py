"""Codes of a number column's field: its frequent values are atoms, the others fall into bins with about equally many rows.

The density inside a code is fixed: a mass for an atom, piecewise uniform between quantiles in a bin, exponential in the tails.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.fields import Field, few_values

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SUBBINS = 4
"""Equally probable parts of a bin with a uniform density each."""
THINNEST = 2.0**-20
"""Of a bin's width, the least that a part takes."""
TAIL_ROWS, HEAVY = 8, 0.9
"""Bins of heavy tails have so many rows at least; a tail is heavy if the outermost part takes more of its bin's width."""
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
    """The likelihood of a field of a number column: its cells in order, and for each code the knots of its quantile function.

    A continuous value that is drawn has at most `decimals` digits after the point, as all values of the table do (-1: any), and
    any other value is as many multiples of `grid` steps from the smallest as those of the table are.
    `tails` are the rates of the exponential tails to the left and to the right, `tail_log_density` their log-densities at
    distance 0 (given `other`), `gap_log_density` the one in the gaps.
    """

    field: Field
    cells: tuple[Cell, ...]
    knots: Floats
    counts: Integers
    missing: int
    tails: tuple[float, float]
    tail_log_density: tuple[float, float]
    gap_log_density: float
    decimals: int = -1
    grid: int = 1

    @property
    def known(self) -> int:
        return len(self.knots)

    @property
    def bins(self) -> list[int]:
        """The codes that are intervals, not atoms."""
        return [int(code) for code in np.flatnonzero(self.knots[:, 0] < self.knots[:, -1])]

    @property
    def ordered(self) -> list[int]:
        """The codes whose neighbours are alike: the bins or, where there are none, many atoms that fill most of their grid, as
        ages do. Atoms far apart, such as fees, may each mean something of their own.
        """
        if self.bins or self.known < MANY_ATOMS or (not self.field.unit and self.decimals < 0):
            return self.bins
        places = (self.knots[-1, 0] - self.knots[0, 0]) * 10.0 ** max(0, self.decimals) / self.grid
        return list(range(self.known)) if places < 2 * self.known else []


def bins_for(rows: int) -> int:
    """Bins of a number column: about 32 rows each, 64 at most, 8 at least where that leaves 10 rows to each."""
    return int(np.clip(rows // 32, np.clip(rows // 10, 1, 8), 64))


def fit_number(values: Floats, field: Field) -> Number:
    """The likelihood of a field from a number column's training values, float64[n] with NaN for missing."""
    seen = field.of(values[~np.isnan(values)])
    distinct, counts = np.unique(seen, return_counts=True)
    bins = bins_for(len(seen))
    is_atom = counts >= (1 if few_values(seen) else max(2.0, 0.5 * len(seen) / bins))
    codes = list(_codes(distinct, counts, is_atom, bins, integral=field.unit > 0))
    fitted = _number(field, codes, distinct, missing=len(values) - len(seen))
    return replace(fitted, grid=_grid(distinct)) if field.unit else replace(fitted, decimals=_decimals(distinct))


def _decimals(distinct: Floats) -> int:
    """Fewest digits after the point (MAX_DECIMALS at most) that write every value exactly, else -1."""
    with np.errstate(over="ignore"):  # numbers near the largest float have no digits after the point
        for digits in range(MAX_DECIMALS + 1):
            if np.array_equal(np.round(distinct, digits), distinct):
                return digits
    return -1


def _grid(distinct: Floats) -> int:
    """The largest whole number by multiples of which all values differ."""
    return max(1, int(np.gcd.reduce((distinct - distinct[:1]).astype(np.int64))))


@dataclass(frozen=True)
class _Code:
    """A code before it has a number: its knots (quantile function), its cells' edges and how many rows it holds."""

    knots: Floats
    edges: Floats
    rows: int


def _codes(distinct: Floats, counts: Integers, is_atom: NDArray[np.bool_], bins: int, integral: bool) -> Iterator[_Code]:
    """Codes in the order of their values: each atom alone, each run of values between two atoms cut into bins."""
    bounds = np.flatnonzero(is_atom)
    start, total = 0, max(1, int(counts[~is_atom].sum()))
    for atom in [*bounds.tolist(), len(distinct)]:
        if atom > start:
            rows = int(counts[start:atom].sum())
            yield from _bins(distinct[start:atom], counts[start:atom], max(1, round(bins * rows / total)), integral)
        if atom < len(distinct):
            value = distinct[atom]
            yield _Code(np.full(SUBBINS + 1, value), np.array([value, _after(value, integral)]), int(counts[atom]))
        start = atom + 1


def _bins(distinct: Floats, counts: Integers, bins: int, integral: bool) -> Iterator[_Code]:
    """Bins with about equally many rows over sorted values, fewer in heavy tails, each with SUBBINS parts."""
    upto, last = np.cumsum(counts), len(distinct) - 1
    total, each = int(upto[-1]), int(upto[-1]) / bins
    left = _tail_cuts(lambda rows: float(distinct[min(last, int(np.searchsorted(upto, rows, "right")))]), each)
    right = _tail_cuts(lambda rows: float(distinct[int(np.searchsorted(upto, total - rows))]), each)
    cuts = [*each * np.arange(1, bins + 1), *left, *(total - rows for rows in right)]
    ends = np.unique(np.searchsorted(upto, cuts).clip(max=last))
    start = 0
    for i, end in enumerate(ends.tolist()):
        low = distinct[start]
        high = distinct[end + 1] if i + 1 < len(ends) else _after(distinct[end], integral)
        rows = int(counts[start : end + 1].sum())
        inner = np.repeat(distinct[start : end + 1], np.minimum(counts[start : end + 1], 1_000))
        parted = np.interp(np.arange(1, SUBBINS) * (len(inner) - 1) / SUBBINS, np.arange(len(inner)), inner)
        knots = np.array([low, *parted, high])
        if integral:
            knots = np.round(knots)
        if not _usable(knots):
            knots = np.linspace(low, high, SUBBINS + 1)
            yield _Code(knots, np.array([low, high]), rows)
        else:
            yield _Code(knots, knots, rows)
        start = end + 1


def _usable(knots: Floats) -> bool:
    """Whether the parts are wide enough for a density: none empty, none of a width that rounding gives."""
    widths = np.diff(knots)
    return bool((widths > (knots[-1] - knots[0]) * THINNEST).all())


def _tail_cuts(at: Callable[[float], float], rows: float) -> Iterator[float]:
    """Rows outside each further cut in an end bin of so many rows; `at` gives the value that so many rows lie outside of.

    Where the outermost part takes nearly all of the width, a uniform density there would lie far from most of its rows: the bin
    is halved, and its outer half again.
    """
    while rows >= 2 * TAIL_ROWS and abs(at(0) - at(rows / SUBBINS)) > HEAVY * abs(at(0) - at(rows)):
        rows /= 2
        yield rows


def _after(value: float, integral: bool) -> float:
    return float(value + 1 if integral else np.nextafter(value, np.inf))


def _number(field: Field, codes: list[_Code], distinct: Floats, missing: int) -> Number:
    integral = field.unit > 0
    other = len(codes)
    low, high = (codes[0].edges[0], codes[-1].edges[-1]) if codes else (0.0, 0.0)
    cells: list[Cell] = []
    for i, code in enumerate(codes):
        if cells and cells[-1].high < code.edges[0]:
            cells.append(Cell(cells[-1].high, code.edges[0], other, 0.0))
        parts = len(code.edges) - 1
        is_atom = code.knots[0] == code.knots[-1]
        for left, right in zip(code.edges[:-1], code.edges[1:], strict=True):
            cells.append(Cell(left, right, i, 0.0 if is_atom else -np.log(parts * (right - left))))
    gaps = sum(cell.high - cell.low for cell in cells if cell.code == other)
    pieces = 2 + (gaps > 0)
    scales = _tail_scales(distinct)
    at_zero = [-np.log(pieces) + np.log(-np.expm1(-1.0 / scale) if integral else 1.0 / scale) for scale in scales]
    return Number(
        field=field,
        cells=tuple(cells) or (Cell(low, high, other, 0.0),),
        knots=np.array([code.knots for code in codes]).reshape(-1, SUBBINS + 1),
        counts=np.array([code.rows for code in codes], dtype=np.int64),
        missing=missing,
        tails=(1.0 / scales[0], 1.0 / scales[1]),
        tail_log_density=(at_zero[0], at_zero[1]),
        gap_log_density=-np.log(pieces * gaps) if gaps else 0.0,
    )


def _tail_scales(distinct: Floats) -> tuple[float, float]:
    """Mean excess of the outermost eighth of the distinct values, the exponential fit to a tail (Pickands 1975 at shape 0)."""
    largest = float(np.abs(distinct).max(initial=0.0)) or 1.0
    part = distinct / largest  # whose sums do not overflow
    outer = max(1, len(distinct) // 8)
    means = (part[outer] - part[:outer].mean(), part[-outer:].mean() - part[-outer - 1]) if len(distinct) > 1 else (1.0, 1.0)
    left, right = (float(np.clip(largest * mean, *TAIL_SCALES)) for mean in means)
    return left, right

"""Atoms and ranges: how the values of a field become codes that at least `rare` rows hold.

A value that fewer than `rare` rows hold is never drawn by itself but from a range. Rare neighbours
become ranges of at least `rare` rows each. Where they are too few for one range, they join the atom
beside them: their code is then drawn as that atom or, as often as the table has such rows, from a
range. Where most values of a column are frequent, a rare one keeps a mass of its own in the
density, so that ranges change the draws and hardly the scores.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

PARTS = 6
"""Maximum number of parts of a code, each with a probability and a uniform density."""
SUBBINS = 4
"""Number of equally probable parts of a bin that is not at an end of its column."""
THINNEST = 2.0**-20
"""Minimum width of a part, as a share of its bin's width."""
BIN_ROWS = 10
"""Minimum number of rows in a bin, where a column has so many."""
PART_ROWS, OUTERMOST_ROWS = 2, 3
"""Minimum number of rows in a part of a bin, and their number in the outermost part of a column's
ends."""
TAIL_ROWS, HEAVY = 8, 0.9
"""Minimum number of rows in a bin of a heavy tail; a tail is heavy if the outermost quarter of its
bin's rows takes more than this share of the bin's width."""


@dataclass(frozen=True)
class Line:
    """Which numbers a column may hold; see Number."""

    integral: bool
    decimals: int
    grid: int

    def after(self, value: float) -> float:
        """The end of the half-open interval that holds this value alone."""
        return float(value + 1 if self.integral else np.nextafter(value, np.inf))

    @property
    def step(self) -> float:
        """The smallest difference between two numbers, 0 if it may be any."""
        if self.integral:
            return float(self.grid)
        return 10.0**-self.decimals if self.decimals >= 0 else 0.0

    def middle(self, low: float, high: float) -> float:
        """A number half-way between two that the column holds, as round as they are: above low, at
        most high."""
        if self.integral:
            return low + self.grid * math.ceil((high - low) / 2 / self.grid)
        middle = low / 2 + high / 2
        if self.decimals >= 0:
            middle = math.ceil(middle * 10.0**self.decimals) / 10.0**self.decimals
        return middle if low < middle < high else high


@dataclass(frozen=True)
class Values:
    """Distinct values in order and the number of rows that hold each."""

    distinct: Floats
    counts: Integers

    @property
    def rows(self) -> int:
        return int(self.counts.sum())

    def take(self, start: int, end: int) -> "Values":
        return Values(self.distinct[start:end], self.counts[start:end])

    def quantile(self, share: Floats) -> Floats:
        """As np.quantile of the rows."""
        upto = np.cumsum(self.counts)
        places = np.stack([upto - self.counts, upto - 1], axis=1).ravel()
        return np.interp(share * (self.rows - 1), places, np.repeat(self.distinct, 2))


NO_VALUES = Values(np.empty(0), np.empty(0, dtype=np.int64))


@dataclass(frozen=True)
class Code:
    """A code before it has a number: its quantile function (see Number), its intervals, how many
    rows it holds."""

    knots: Floats
    upto: Floats
    intervals: Sequence["Interval"]
    rows: int
    is_bin: bool = False


@dataclass(frozen=True)
class Interval:
    """Numbers of one code, half-open, [low, high), with a uniform density or, if it holds one
    number, with that number's mass."""

    low: float
    high: float
    log_density: float
    code: int = 0


def codes_of(
    values: Values, is_atom: NDArray[np.bool_], bins: int, rare: int, few: bool, line: Line
) -> Iterator[Code]:
    """Codes in the order of their values: each run of values between two atoms is divided into
    bins. A run that fewer than `rare` rows hold joins the atom before it, the first run the atom
    after it.
    """
    atoms = np.flatnonzero(is_atom).tolist()
    bounds = pairwise([-1, *atoms, len(is_atom)])
    runs = [values.take(before + 1, after) for before, after in bounds]
    total = max(1, sum(run.rows for run in runs))
    for i, run in enumerate(runs):
        if run.rows >= rare or (run.rows and not atoms):
            share = round(bins * run.rows / total)
            count = max(1, min(share, run.rows // max(BIN_ROWS, 2 * rare)))
            ends = (i == 0, i == len(atoms))
            yield from _bins(run, count, rare, few, line, ends)
        if i < len(atoms):
            left = _if_rare(run if i == 0 else NO_VALUES, rare)
            right = _if_rare(runs[i + 1], rare)
            yield _atom(left, values.take(atoms[i], atoms[i] + 1), right, line)


def _if_rare(run: Values, rare: int) -> Values:
    return run if run.rows < rare else NO_VALUES


def _atom(left: Values, atom: Values, right: Values, line: Line) -> Code:
    """A single value with the few rarer ones that join it. Those are drawn from the farther half of
    the space between."""
    value = float(atom.distinct[0])
    parts = [(value, value, atom.rows)]
    if left.rows:
        middle = line.middle(float(left.distinct[-1]), value)
        parts.insert(0, (float(left.distinct[0]), middle, left.rows))
    if right.rows:
        middle = line.middle(value, float(right.distinct[0]))
        parts.append((middle, line.after(float(right.distinct[-1])), right.rows))

    knots, reached = _knots(parts)
    spans = [(low, line.after(value) if low == high else high) for low, high, _ in parts]
    values = _joined([left, atom, right])
    return _code(knots, reached / values.rows, _points(values, spans, line), values.rows)


def _knots(parts: Sequence[tuple[float, float, int]]) -> tuple[list[float], Floats]:
    """The knots of parts (low, high, rows), and the number of rows below each."""
    knots = [parts[0][0]]
    reached = [0]
    for low, high, rows in parts:
        if knots[-1] < low:
            knots.append(low)
            reached.append(reached[-1])
        knots.append(high)
        reached.append(reached[-1] + rows)
    return knots, np.array(reached, dtype=np.float64)


def _joined(parts: Sequence[Values]) -> Values:
    distinct = np.concatenate([part.distinct for part in parts])
    return Values(distinct, np.concatenate([part.counts for part in parts]))


def _bins(
    values: Values, bins: int, rare: int, few: bool, line: Line, ends: tuple[bool, bool]
) -> Iterator[Code]:
    """Bins with about equally many rows, fewer in heavy tails. `ends` says whether the column
    begins and ends here."""
    last = len(values.counts) - 1
    start = 0
    for end in _bin_ends(np.cumsum(values.counts), _cuts(values, bins, rare), rare):
        inside = values.take(start, end + 1)
        if start == end:
            yield replace(_atom(NO_VALUES, inside, NO_VALUES, line), is_bin=True)
        else:
            is_closed = few or end == last
            value = float(values.distinct[end])
            high = line.after(value) if is_closed else float(values.distinct[end + 1])
            at_ends = (ends[0] and start == 0, ends[1] and end == last)
            yield _bin(inside, high, rare, few, line, at_ends)
        start = end + 1


def _bin(
    values: Values, high: float, rare: int, few: bool, line: Line, ends: tuple[bool, bool]
) -> Code:
    """One bin from its lowest value to `high`."""
    shares = _shares(values.rows, ends)
    knots, reached = _quantile_function(values, high, shares, rare, line)
    intervals = _points(values, [(knots[0], high)], line) if few else _parts(knots, reached)
    return replace(_code(knots, reached, intervals, values.rows), is_bin=True)


def _cuts(values: Values, bins: int, rare: int) -> list[float]:
    """The numbers of rows below each cut: of equal bins, and of the further ones in heavy tails."""
    upto = np.cumsum(values.counts)
    last = len(upto) - 1
    total = int(upto[-1])
    each = total / bins
    least = max(TAIL_ROWS, rare)

    def from_left(rows: float) -> float:
        return float(values.distinct[min(last, int(np.searchsorted(upto, rows, "right")))])

    def from_right(rows: float) -> float:
        return float(values.distinct[int(np.searchsorted(upto, total - rows))])

    left = _tail_cuts(from_left, each, least)
    right = [total - rows for rows in _tail_cuts(from_right, each, least)]
    return [*each * np.arange(1, bins + 1), *left, *right]


def _bin_ends(upto: Integers, cuts: Sequence[float], rare: int) -> Iterator[int]:
    """Places of the last value of each bin: near the cuts, so that each bin holds at least `rare`
    rows if all do together."""
    held, last = 0, len(upto) - 1
    for end in np.unique(np.searchsorted(upto, cuts).clip(max=last)).tolist():
        if end < last and upto[end] - held >= rare and upto[last] - upto[end] >= rare:
            yield end
            held = int(upto[end])
    yield last


def _shares(rows: int, ends: tuple[bool, bool]) -> Floats:
    """Shares of a bin's rows up to each knot: even but at the ends of a column, where the outermost
    part holds few rows and each part inwards as many times more, so that far quantiles are met.
    """
    if rows < SUBBINS * OUTERMOST_ROWS or not any(ends):
        return np.linspace(0, 1, SUBBINS + 1)
    outermost = OUTERMOST_ROWS / rows
    if all(ends):
        half = [0, outermost, math.sqrt(outermost / 2)]
        return np.array([*half, 0.5, *(1 - share for share in reversed(half))])
    from_outside = np.array([0, *outermost ** np.linspace(1, 0, PARTS)])
    return from_outside if ends[0] else 1 - from_outside[::-1]


def _quantile_function(
    values: Values, high: float, shares: Floats, rare: int, line: Line
) -> tuple[list[float], Floats]:
    """Knots from the lowest value to `high`, and the share of the rows below each. A knot is near
    its share's quantile or above, so that no part is a rare value alone, and none so thin that its
    density is a matter of rounding.
    """
    below = np.append(0, np.cumsum(values.counts))
    last = len(values.counts)
    knots = [float(values.distinct[0])]
    reached = [0]
    thinnest = (high - knots[0]) * THINNEST

    def is_part(low: float, high: float, rows: int) -> bool:
        is_wide = high - low >= 2 * line.step
        holds_enough = rows >= rare or (rows >= PART_ROWS and is_wide)
        return high - low > thinnest and holds_enough

    for quantile in values.quantile(shares[1:-1]):
        knot = round(quantile) if line.integral else float(quantile)
        position = int(np.searchsorted(values.distinct, knot))
        while position < last and not is_part(knots[-1], knot, below[position] - reached[-1]):
            position += knot >= values.distinct[position]
            knot = float(values.distinct[position]) if position < last else high
        if is_part(knot, high, values.rows - below[position]):
            knots.append(float(knot))
            reached.append(below[position])
    return [*knots, high], np.array([*reached, values.rows]) / values.rows


def _parts(knots: Sequence[float], upto: Floats) -> list[Interval]:
    """A uniform density between each two knots."""
    shares = np.diff(upto)
    return [
        Interval(a, b, float(np.log(share) - np.log(b - a)))
        for (a, b), share in zip(pairwise(knots), shares, strict=True)
    ]


def _points(values: Values, spans: Sequence[tuple[float, float]], line: Line) -> list[Interval]:
    """A mass at each value by its rows, and a density for the rest of the spans, as if one row more
    held it."""
    points = [(value, line.after(value)) for value in values.distinct.tolist()]
    gaps: list[tuple[float, float]] = []
    for low, high in spans:
        gaps += _between([point for point in points if low <= point[0] < high], low, high)
    width = sum(high - low for low, high in gaps)
    rows = values.rows + bool(gaps)
    intervals = [
        Interval(*point, math.log(held / rows))
        for point, held in zip(points, values.counts.tolist(), strict=True)
    ]
    intervals += [Interval(*gap, -math.log(rows * width)) for gap in gaps]
    return sorted(intervals, key=lambda interval: interval.low)


def _between(
    taken: Sequence[tuple[float, float]], low: float, high: float
) -> Iterator[tuple[float, float]]:
    """The parts of an interval that are not taken by ascending intervals inside it."""
    for start, end in taken:
        if low < start:
            yield low, start
        low = end
    if low < high:
        yield low, high


def _code(knots: Sequence[float], upto: Floats, intervals: Sequence[Interval], rows: int) -> Code:
    """Padded in front to PARTS parts."""
    more = PARTS + 1 - len(knots)
    return Code(np.pad(knots, (more, 0), mode="edge"), np.pad(upto, (more, 0)), intervals, rows)


def _tail_cuts(at: Callable[[float], float], rows: float, least: int) -> Iterator[float]:
    """Rows outside each further cut in an end bin of so many rows; `at` gives the value that so
    many rows lie outside of.

    Where the outermost quarter takes nearly all of the width, a uniform density there would lie far
    from most of its rows: the bin is halved, and its outer half again, down to `least` rows.
    """
    while rows >= 2 * least and abs(at(0) - at(rows / 4)) > HEAVY * abs(at(0) - at(rows)):
        rows /= 2
        yield rows

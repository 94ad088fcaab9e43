"""Atoms and ranges: how the values of a field become codes that at least `rare` rows hold.

A value that fewer than `rare` rows hold is never drawn by itself but from a range. Neighbours that
are all rare become ranges of at least `rare` rows each. Where there are too few of them for one,
they join the atom beside them: their code is then drawn as that atom, and now and then as a range,
as often as the table's rows are. Where most values of a column are met often, a rare one keeps a
mass of its own in the density, so that ranges change what is drawn and hardly what a row scores.
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
        return (
            float(self.grid)
            if self.integral
            else 10.0**-self.decimals
            if self.decimals >= 0
            else 0.0
        )

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
    """Codes in the order of their values: each run of values between two atoms cut into bins, or
    joined to the atom before it (the first run to the atom after it) if it holds fewer than `rare`
    rows.
    """
    atoms = np.flatnonzero(is_atom).tolist()
    runs = [
        values.take(before + 1, after) for before, after in pairwise([-1, *atoms, len(is_atom)])
    ]
    total = max(1, sum(run.rows for run in runs))
    for i, run in enumerate(runs):
        if run.rows >= rare or (run.rows and not atoms):
            wanted = min(round(bins * run.rows / total), run.rows // max(BIN_ROWS, 2 * rare))
            yield from _bins(run, max(1, wanted), rare, few, line, ends=(i == 0, i == len(atoms)))
        if i < len(atoms):
            left, right = runs[0] if i == 0 else values.take(0, 0), runs[i + 1]
            sides = [side if side.rows < rare else values.take(0, 0) for side in (left, right)]
            yield _atom(sides[0], values.take(atoms[i], atoms[i] + 1), sides[1], line)


def _atom(left: Values, atom: Values, right: Values, line: Line) -> Code:
    """A single value with the few rarer ones that join it. Those are drawn from the farther half of
    what lies between."""
    value = float(atom.distinct[0])
    parts = [(value, value, atom.rows)]
    spans = [(value, line.after(value))]
    if left.rows:
        low, last = float(left.distinct[0]), float(left.distinct[-1])
        high = line.middle(last, value)
        parts.insert(0, (low, high, left.rows))
        spans.insert(0, (low, high))
    if right.rows:
        low, high = (
            line.middle(value, float(right.distinct[0])),
            line.after(float(right.distinct[-1])),
        )
        parts.append((low, high, right.rows))
        spans.append((low, high))
    knots, upto = [parts[0][0]], [0.0]
    for low, high, rows in parts:
        if knots[-1] < low:
            knots, upto = [*knots, low], [*upto, upto[-1]]
        knots, upto = [*knots, high], [*upto, upto[-1] + rows]
    held = Values(
        *(
            np.concatenate(each)
            for each in zip(*((v.distinct, v.counts) for v in (left, atom, right)), strict=True)
        )
    )
    return _code(knots, np.array(upto) / held.rows, _points(held, spans, line), held.rows)


def _bins(
    values: Values, bins: int, rare: int, few: bool, line: Line, ends: tuple[bool, bool]
) -> Iterator[Code]:
    """Bins with about equally many rows, fewer in heavy tails. `ends` says whether the column
    begins and ends here."""
    upto, last = np.cumsum(values.counts), len(values.counts) - 1
    total, each = int(upto[-1]), int(upto[-1]) / bins
    least = max(TAIL_ROWS, rare)
    distinct = values.distinct
    left = _tail_cuts(
        lambda rows: float(distinct[min(last, int(np.searchsorted(upto, rows, "right")))]),
        each,
        least,
    )
    right = _tail_cuts(
        lambda rows: float(distinct[int(np.searchsorted(upto, total - rows))]), each, least
    )
    start = 0
    for end in _bin_ends(
        upto, [*each * np.arange(1, bins + 1), *left, *(total - rows for rows in right)], rare
    ):
        inside = values.take(start, end + 1)
        if start == end:
            yield replace(_atom(values.take(0, 0), inside, values.take(0, 0), line), is_bin=True)
        else:
            high = (
                line.after(float(distinct[end])) if few or end == last else float(distinct[end + 1])
            )
            at_ends = (ends[0] and start == 0, ends[1] and end == last)
            knots, reached = _quantile_function(
                inside, high, _shares(inside.rows, at_ends), rare, line
            )
            intervals = _points(inside, [(knots[0], high)], line) if few else _parts(knots, reached)
            yield replace(_code(knots, reached, intervals, inside.rows), is_bin=True)
        start = end + 1


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
    below, last = np.append(0, np.cumsum(values.counts)), len(values.counts)
    knots, held = [float(values.distinct[0])], [0]
    thinnest = (high - knots[0]) * THINNEST

    def is_part(low: float, high: float, rows: int) -> bool:
        return high - low > thinnest and (
            rows >= rare or (rows >= PART_ROWS and high - low >= 2 * line.step)
        )

    for quantile in values.quantile(shares[1:-1]):
        knot = round(quantile) if line.integral else float(quantile)
        place = int(np.searchsorted(values.distinct, knot))
        while place < last and not is_part(knots[-1], knot, below[place] - held[-1]):
            place += knot >= values.distinct[place]
            knot = float(values.distinct[place]) if place < last else high
        if is_part(knot, high, values.rows - below[place]):
            knots, held = [*knots, float(knot)], [*held, below[place]]
    return [*knots, high], np.array([*held, values.rows]) / values.rows


def _parts(knots: Sequence[float], upto: Floats) -> list[Interval]:
    """A uniform density between each two knots."""
    shares = np.diff(upto)
    return [
        Interval(a, b, float(np.log(share) - np.log(b - a)))
        for (a, b), share in zip(pairwise(knots), shares, strict=True)
    ]


def _points(values: Values, spans: Sequence[tuple[float, float]], line: Line) -> list[Interval]:
    """A mass at each value by its rows, and what lies between them in the spans as if one row more
    held it."""
    each = zip(values.distinct.tolist(), values.counts.tolist(), strict=True)
    points = [(value, line.after(value), rows) for value, rows in each]
    gaps = [
        gap
        for low, high in spans
        for gap in _between([(a, b) for a, b, _ in points if low <= a < high], low, high)
    ]
    width = sum(high - low for low, high in gaps)
    rows = values.rows + bool(gaps)
    intervals = [Interval(low, high, math.log(held / rows)) for low, high, held in points]
    return sorted(
        [*intervals, *(Interval(*gap, -math.log(rows * width)) for gap in gaps)],
        key=lambda interval: interval.low,
    )


def _between(
    taken: Sequence[tuple[float, float]], low: float, high: float
) -> Iterator[tuple[float, float]]:
    """What of an interval lies between the intervals that are taken."""
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

"""Rules of each kind, applied to rows: which rows break a rule, and values that keep it.

Those that calculate a number from others are in nelbo.applied_calculations. For the shapes, see
nelbo.rule_keeping.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nelbo.rules import Limit, Order, Rule

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

Spans = Floats
"""The cells that a column may have, float64[k, 2]: the first and the last number of each range. A
category is a range of one code."""

MOST_COMBINATIONS = 2_000_000
"""Maximum number of combinations of cells with which a rule is tried."""
FINEST = 1e-9
"""Relative difference up to which two float64 numbers count as equal."""


class AppliedRule:
    """A rule about columns of a matrix of rows: `sources` and `target` are their indices.

    `determines` says whether the sources fix the target, `cost` what breaking it adds to a row's
    nelbo: −log of the share of training rows that break it.
    """

    determines = True
    is_monotone = False
    """Whether the target is between those of the ends, if each source is in a range."""

    def __init__(self, rule: Rule, target: int, sources: Sequence[int]) -> None:
        self.rule = rule
        self.target = target
        self.sources = list(sources)
        self.columns = np.array([*self.sources, target])
        self.cost = float(np.log((rule.rows + 2) / (rule.broken + 1)))

    def broken(self, x: Floats) -> Booleans:
        """bool[n]: rows that break it; never a row in which one of its cells is missing."""
        off = np.abs(x[:, self.target] - self.follow(x))
        return np.asarray(off > self.rule.within + FINEST * np.abs(x[:, self.target]))

    def may_hold(self, sources: Sequence[Spans], target: Spans) -> bool:
        """Whether rows with these cells can keep it; also if that is not known."""
        is_range = any((spans[:, 0] < spans[:, 1]).any() for spans in sources)
        combinations = math.prod(2 * len(spans) for spans in sources) * len(target)
        if (is_range and not self.is_monotone) or combinations > MOST_COMBINATIONS:
            return True
        values = self.follow(self._ends(sources)).reshape(-1, 2 ** len(sources))
        lowest, highest = values.min(1, keepdims=True), values.max(1, keepdims=True)
        room = self.rule.within + FINEST * np.abs(target)
        is_near = (lowest <= (target + room)[:, 1]) & (highest >= (target - room)[:, 0])
        return bool(np.isnan(values).any() or is_near.any())

    def _ends(self, sources: Sequence[Spans]) -> Floats:
        """Rows with all combinations of the ends of ranges, those of the same ranges together."""
        ranges = np.array(list(itertools.product(*sources)))  # [combinations, sources, 2]
        ends = np.array(list(itertools.product((0, 1), repeat=len(sources))))
        x = np.full((len(ranges) * len(ends), int(self.columns.max()) + 1), np.nan)
        x[:, self.sources] = ranges[:, np.arange(len(sources)), ends].reshape(len(x), -1)
        return x

    def unusable(self, x: Floats) -> Booleans:
        """bool[n]: rows that no made row may be like: they break it, or hold sources that it says
        nothing about."""
        return self.broken(x)

    def follow(self, x: Floats) -> Floats:
        """float64[n]: the target by the sources; NaN where they do not fix it."""
        return np.full(len(x), np.nan)

    def unreached(self, x: Floats) -> Booleans:
        """bool[n]: rows whose target is a category that no source which may be made fixes."""
        return np.zeros(len(x), dtype=np.bool_)

    def with_rest(self, values: Floats, u: Floats) -> Floats:
        """The followed values with what the sources do not fix, by uniform numbers u float64[n]."""
        return values

    def settle(self, x: Floats, free: Booleans, u: Floats) -> Floats:
        """The rows, with another value in a cell where `free` bool[n, d] is true, so that the rule
        holds; where it cannot, as they are. `u` are uniform numbers float64[n]."""
        settled = x.copy()
        for at, source in enumerate(self.sources):
            may = free[:, source] & self.unusable(settled)
            settled[may, source] = self.back(settled, at)[may]
        return settled

    def back(self, x: Floats, at: int) -> Floats:
        """float64[n]: the source number `at` by the target and the other sources; as it is where
        they do not fix it."""
        return x[:, self.sources[at]]


class AppliedEqual(AppliedRule):
    """Two equal columns. `translations` are those of the codes of categories, forth and back; None
    for numbers."""

    is_monotone = True

    def __init__(
        self,
        rule: Rule,
        target: int,
        source: int,
        translations: tuple[Floats, Floats] | None,
    ) -> None:
        super().__init__(rule, target, [source])
        self._translations = translations or (None, None)

    def follow(self, x: Floats) -> Floats:
        return _translated(x[:, self.sources[0]], self._translations[0])

    def back(self, x: Floats, at: int) -> Floats:
        return _translated(x[:, self.target], self._translations[1])


def _translated(codes: Floats, translation: Floats | None) -> Floats:
    if translation is None:
        return codes
    at = np.where(np.isnan(codes), len(translation) - 1, codes).astype(np.int64)
    return np.asarray(translation[at])


class AppliedOrder(AppliedRule):
    """The source is at most the target. `step` is the smallest difference of two values."""

    determines = False

    def __init__(self, rule: Rule, statement: Order, target: int, source: int, step: float) -> None:
        super().__init__(rule, target, [source])
        self._gap = step if statement.strict else 0.0
        self._strict = statement.strict

    def broken(self, x: Floats) -> Booleans:
        low, high = x[:, self.sources[0]], x[:, self.target]
        return np.asarray(low >= high if self._strict else low > high)

    def may_hold(self, sources: Sequence[Spans], target: Spans) -> bool:
        lowest, highest = sources[0].min(), target.max()
        return bool(lowest < highest if self._strict else lowest <= highest)

    def settle(self, x: Floats, free: Booleans, u: Floats) -> Floats:
        (source,) = self.sources
        settled = x.copy()
        high = self.broken(settled) & free[:, self.target]
        settled[high, self.target] = settled[high, source] + self._gap
        low = self.broken(settled) & free[:, source]
        settled[low, source] = settled[low, self.target] - self._gap
        return settled


class AppliedLimit:
    """The cells that a column may have: `cells` float64[K] are the values of the limit, `step` is
    the smallest difference of two values."""

    def __init__(self, limit: Limit, cells: Floats, step: float) -> None:
        self._operator = limit.operator
        self._cells = cells
        self._step = step

    def met(self, x: Floats) -> Booleans:
        """bool[n]: cells within the limit; False where missing."""
        first = self._cells[0]
        match self._operator:
            case "<":
                met = x < first
            case "<=":
                met = x <= first
            case ">":
                met = x > first
            case ">=":
                met = x >= first
            case "!=":
                met = (x != first) & ~np.isnan(x)
            case _:
                met = np.isin(x, self._cells)
        return np.asarray(met)

    def met_somewhere(self, spans: Spans) -> bool:
        """Whether a cell of these ranges is within the limit."""
        low, high = spans.T
        if self._operator in ("=", "in"):
            return bool(((self._cells[:, None] >= low) & (self._cells[:, None] <= high)).any())
        is_range = self._operator == "!=" and (low < high).any()
        return bool(is_range or self.met(spans.ravel()).any())

    def met_everywhere(self, spans: Spans) -> bool:
        """Whether all cells of these ranges are within the limit; False if that is not known."""
        low, high = spans.T
        is_range = self._operator in ("=", "in", "!=") and (low < high).any()
        return bool(not is_range and self.met(spans.ravel()).all())

    def nearest(self, x: Floats, u: Floats) -> Floats:
        """float64[n]: a cell within the limit for each of x, by uniform numbers u."""
        if self._operator in ("=", "in"):
            return np.asarray(self._cells[(u * len(self._cells)).astype(np.int64)])
        first = self._cells[0]
        other = -self._step if first > 0 else self._step
        away = {"<": -self._step, ">": self._step, "!=": other}
        return np.full(len(x), first + away.get(self._operator, 0.0))


class AppliedImplication(AppliedRule):
    """A limit of the target, which may hold only where a source is within a limit: `limits`."""

    determines = False

    def __init__(
        self,
        rule: Rule,
        target: int,
        sources: Sequence[int],
        limits: Sequence[AppliedLimit],
    ) -> None:
        super().__init__(rule, target, sources)
        self._limits = limits

    def may_hold(self, sources: Sequence[Spans], target: Spans) -> bool:
        is_bound = all(self._limits[0].met_everywhere(spans) for spans in sources)
        return not is_bound or self._limits[-1].met_somewhere(target)

    def broken(self, x: Floats) -> Booleans:
        target = x[:, self.target]
        broken = ~self._limits[-1].met(target) & ~np.isnan(target)
        if self.sources:
            broken &= self._limits[0].met(x[:, self.sources[0]])
        return np.asarray(broken)

    def settle(self, x: Floats, free: Booleans, u: Floats) -> Floats:
        settled = x.copy()
        rows = self.broken(x) & free[:, self.target]
        settled[rows, self.target] = self._limits[-1].nearest(x[rows, self.target], u[rows])
        return settled


class AppliedDependency(AppliedRule):
    """Values of the sources, `keys` float64[K, S], which fix those of the target, `values`
    float64[K]. `are_numbers` says of each source whether it is a number: for one that training did
    not have, the nearest key counts."""

    def __init__(
        self,
        rule: Rule,
        target: int,
        sources: Sequence[int],
        keys: Floats,
        values: Floats,
        are_numbers: Sequence[bool],
        is_category: bool,
    ) -> None:
        super().__init__(rule, target, sources)
        self._is_category = is_category
        self._levels = [np.unique(of_source) for of_source in keys.T]
        self._are_numbers = are_numbers
        index = self._index(keys, nearest=False)
        order = np.argsort(index, kind="stable")
        self._sorted = index[order]
        self._keys = keys[order]
        self._values = values[order]
        self._counts = np.array(rule.counts, dtype=np.float64)[order]

    def broken(self, x: Floats) -> Booleans:
        fixed = self._fixed(x, nearest=False)
        return np.asarray(self._is_present(x) & ~np.isnan(fixed) & (fixed != x[:, self.target]))

    def unusable(self, x: Floats) -> Booleans:
        fixed = self.follow(x)
        off = fixed != x[:, self.target]
        if len(self.sources) == 1:
            off &= ~np.isnan(fixed)
        return np.asarray(self._is_present(x) & off)

    def follow(self, x: Floats) -> Floats:
        return self._fixed(x, nearest=True)

    def unreached(self, x: Floats) -> Booleans:
        if not self._is_category or not len(self._values):
            return super().unreached(x)
        return self._is_present(x) & ~np.isin(x[:, self.target], self._values)

    def settle(self, x: Floats, free: Booleans, u: Floats) -> Floats:
        """A line of the known values that suits the cells which are not free, drawn by its training
        rows."""
        settled = x.copy()
        rows = np.flatnonzero(self.unusable(x))
        if not len(rows):
            return settled
        lines = np.column_stack([self._keys, self._values])
        cells = np.where(free[np.ix_(rows, self.columns)], np.nan, x[np.ix_(rows, self.columns)])
        distinct, group = np.unique(cells, axis=0, return_inverse=True)
        for i, cell in enumerate(distinct):
            suits = ((lines == cell) | np.isnan(cell)).all(1)
            of_group = rows[group.ravel() == i]
            if suits.any():
                upto = np.cumsum(self._counts * suits)
                line = np.searchsorted(upto, u[of_group] * upto[-1], side="right")
                settled[np.ix_(of_group, self.columns)] = lines[line]
        return settled

    def _fixed(self, x: Floats, nearest: bool) -> Floats:
        if not len(self._values):
            return np.full(len(x), np.nan)
        index = self._index(x[:, self.sources], nearest)
        at = np.minimum(np.searchsorted(self._sorted, index), len(self._sorted) - 1)
        return np.where(self._sorted[at] == index, self._values[at], np.nan)

    def _index(self, cells: Floats, nearest: bool) -> Integers:
        """int64[n]: one number for the sources [n, S]; -1 where training had none of them."""
        index = np.zeros(len(cells), dtype=np.int64)
        unknown = np.zeros(len(cells), dtype=np.bool_)
        for levels, is_number, of_source in zip(
            self._levels, self._are_numbers, cells.T, strict=True
        ):
            at = _nearest(levels, of_source)
            if not (nearest and is_number):
                unknown |= levels[at] != of_source
            index = index * len(levels) + at
        return np.where(unknown | np.isnan(cells).any(1), -1, index)

    def _is_present(self, x: Floats) -> Booleans:
        return np.asarray(~np.isnan(x[:, self.columns]).any(1))


def _nearest(levels: Floats, values: Floats) -> Integers:
    """The index of the nearest level to each value."""
    above = np.clip(np.searchsorted(levels, values), 0, len(levels) - 1)
    below = np.maximum(above - 1, 0)
    with np.errstate(invalid="ignore"):
        is_below = np.abs(values - levels[below]) <= np.abs(levels[above] - values)
    return np.where(is_below & (levels[above] != values), below, above)

"""Rules applied to rows: which rows break them, and made rows that keep them.

Shapes: n rows, d modelled columns in the schema's order, R rules. Rows are a matrix x of
float64[n, d]: numbers as they are, datetimes in microseconds since the epoch, categories as their
codes; NaN where a cell is missing.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nelbo.encoding import absolute, relative
from nelbo.errors import InvalidInput
from nelbo.rules import (
    FARTHEST,
    UNITS,
    Cell,
    Dependency,
    Elapsed,
    Equal,
    Implication,
    Limit,
    Nearly,
    Order,
    Part,
    Product,
    Rule,
    Sum,
    number_of,
    read_rule,
    terms_of,
)
from nelbo.schema import CATEGORICALS, Column, Schema

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
Redraw = Callable[[Floats, Booleans, Integers, int], Floats]
"""Called with rows float64[m, d], the cells to hide bool[m, d], the rows' indices int64[m] and the
number of the attempt: the rows with these cells drawn given the others."""
Uniforms = Callable[[Integers], Floats]
"""Called with the indices of rows int64[m]: a uniform number for each, float64[m]."""

Spans = Floats
"""The cells that a column may have, float64[k, 2]: the first and the last number of each range. A
category is a range of one code."""

ATTEMPTS = 8
"""Draws of the cells that break a rule, before they are given values that keep it."""
UNUSUAL_NUMBERS = np.errstate(over="ignore", invalid="ignore")
"""Sums and products of the largest numbers are infinite, which keeps no rule."""
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


class _Equal(AppliedRule):
    """`translations` are those of the codes of categories, forth and back; None for numbers."""

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


class _Order(AppliedRule):
    """`step` is the smallest difference of two values."""

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


class _Sum(AppliedRule):
    """`signs` are the factors of the sources."""

    is_monotone = True

    def __init__(
        self, rule: Rule, target: int, sources: Sequence[int], signs: Sequence[float]
    ) -> None:
        super().__init__(rule, target, sources)
        self._signs = np.array(signs, dtype=np.float64)

    def follow(self, x: Floats) -> Floats:
        return _rounded(x[:, self.sources] @ self._signs, self.rule.decimals)

    def back(self, x: Floats, at: int) -> Floats:
        rest = x[:, self.target] - self._others(x, at)
        return _rounded(np.asarray(rest / self._signs[at]), self.rule.decimals)

    def _others(self, x: Floats, at: int) -> Floats:
        return np.asarray(x[:, np.delete(self.sources, at)] @ np.delete(self._signs, at))


class _Elapsed(_Sum):
    """The time between two datetimes in units of so many microseconds."""

    def __init__(self, rule: Rule, target: int, sources: Sequence[int], unit: float) -> None:
        super().__init__(rule, target, sources, (1.0, -1.0))
        self._unit = unit

    def follow(self, x: Floats) -> Floats:
        return _rounded(x[:, self.sources] @ self._signs / self._unit, self.rule.decimals)

    def back(self, x: Floats, at: int) -> Floats:
        time = np.rint(x[:, self.target] * self._unit)
        return np.asarray((time - self._others(x, at)) / self._signs[at])


class _Nearly(AppliedRule):
    """A number that follows from others but for a rest, which is drawn. No row breaks it."""

    def __init__(self, rule: Rule, target: int, sources: Sequence[int]) -> None:
        super().__init__(rule, target, sources)
        self._curve = rule.curve

    def may_hold(self, sources: Sequence[Spans], target: Spans) -> bool:
        return True

    def broken(self, x: Floats) -> Booleans:
        return np.zeros(len(x), dtype=np.bool_)

    def follow(self, x: Floats) -> Floats:
        if self._curve is None:
            return super().follow(x)
        centre, scale = np.array(self._curve.centre), np.array(self._curve.scale)
        values = polynomial_terms(x[:, self.sources], centre, scale) @ np.array(self._curve.weights)
        return np.asarray(values)

    def with_rest(self, values: Floats, u: Floats) -> Floats:
        if self._curve is None:
            return values
        left = np.array(self._curve.left)
        values = values + np.interp(u, np.linspace(0, 1, len(left)), left)
        return _rounded(
            np.clip(values, self._curve.lowest, self._curve.highest), self.rule.decimals
        )


def polynomial_terms(sources: Floats, centre: Floats, scale: Floats) -> Floats:
    """float64[n, T]: the terms of a polynomial, from its numbers float64[n, S]."""
    standardised = np.clip((sources - centre) / scale, -FARTHEST, FARTHEST)
    columns = [standardised[:, list(term)].prod(axis=1) for term in terms_of(sources.shape[1])]
    return np.column_stack(columns)


class _Product(AppliedRule):
    is_monotone = True

    def __init__(self, rule: Rule, target: int, sources: Sequence[int], divided: bool) -> None:
        super().__init__(rule, target, sources)
        self._divided = divided

    def may_hold(self, sources: Sequence[Spans], target: Spans) -> bool:
        divisor = sources[1]
        if self._divided and ((divisor[:, 0] <= 0) & (divisor[:, 1] >= 0)).any():
            return True
        return super().may_hold(sources, target)

    def follow(self, x: Floats) -> Floats:
        first, second = x[:, self.sources].T
        return _rounded(
            _ratio(first, second) if self._divided else first * second, self.rule.decimals
        )

    def back(self, x: Floats, at: int) -> Floats:
        target, other = x[:, self.target], x[:, self.sources[1 - at]]
        if not self._divided:
            return _ratio(target, other)
        return target * other if at == 0 else _ratio(other, target)


def _ratio(first: Floats, second: Floats) -> Floats:
    """NaN where the second is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = first / second
    return np.where(np.isfinite(ratio), ratio, np.nan)


def _rounded(values: Floats, decimals: int | None) -> Floats:
    return values if decimals is None else np.round(values, decimals)


class _Part(AppliedRule):
    """A part of a datetime in local time."""

    def __init__(self, rule: Rule, target: int, source: int, part: str) -> None:
        super().__init__(rule, target, [source])
        self._part = part

    def may_hold(self, sources: Sequence[Spans], target: Spans) -> bool:
        """By times so close together that no part is left out."""
        step = MINUTE if self._part == "minute" else HOUR
        (spans,) = sources
        if not (np.diff(spans).sum() <= MOST_TIMES * step):
            return True
        times = [np.append(np.arange(low, high, step), high) for low, high in spans]
        points = np.repeat(np.concatenate(times)[:, None], 2, axis=1)
        return super().may_hold([points], target)

    def follow(self, x: Floats) -> Floats:
        return part_of(local(x[:, self.sources[0]], self.rule.offsets), self._part)

    def back(self, x: Floats, at: int) -> Floats:
        """The datetime with this part in the place of its own; on a day that the month has."""
        time = x[:, self.sources[0]]
        moved = local(time, self.rule.offsets)
        return time + with_part(moved, self._part, x[:, self.target]) - moved


def local(times: Floats, offsets: Sequence[tuple[float, float]]) -> Floats:
    """Times in microseconds since the epoch, moved by the offset that holds at each; see Rule."""
    if not offsets:
        return times
    since, by = np.array(offsets).T
    at = np.searchsorted(since, np.nan_to_num(times), side="right") - 1
    return np.asarray(times + by[np.maximum(at, 0)])


class _AppliedLimit:
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


class _Implication(AppliedRule):
    determines = False

    def __init__(
        self,
        rule: Rule,
        target: int,
        sources: Sequence[int],
        limits: Sequence[_AppliedLimit],
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


MOST_TIMES = 20_000
"""Maximum number of times whose parts are tried."""
DAY, HOUR, MINUTE = 86_400_000_000, 3_600_000_000, 60_000_000
"""Microseconds."""


def part_of(times: Floats, part: str) -> Floats:
    """float64[n]: the year, month, day, hour, minute or weekday (Monday is 0) of times in
    microseconds since the epoch; NaN for NaN."""
    present = ~np.isnan(times)
    micros = np.where(present, times, 0).astype(np.int64)
    match part:
        case "hour":
            values = micros % DAY // HOUR
        case "minute":
            values = micros % HOUR // MINUTE
        case "weekday":
            values = (micros // DAY + 3) % 7
        case _:
            values = _in_calendar(micros)[part]
    return np.where(present, values, np.nan)


def _in_calendar(micros: Integers) -> dict[str, Integers]:
    days = (micros // DAY).astype("datetime64[D]")
    months = days.astype("datetime64[M]")
    years = days.astype("datetime64[Y]")
    return {
        "year": years.astype(np.int64) + 1970,
        "month": (months - years.astype("datetime64[M]")).astype(np.int64) + 1,
        "day": (days - months.astype("datetime64[D]")).astype(np.int64) + 1,
    }


def with_part(times: Floats, part: str, values: Floats) -> Floats:
    """Times in microseconds since the epoch with another year, month, day, hour, minute or weekday;
    in a month that lacks the day, its last one. NaN where one of the two is missing."""
    present = ~np.isnan(times) & ~np.isnan(values)
    micros = np.where(present, times, 0).astype(np.int64)
    own = np.where(present, part_of(micros.astype(np.float64), part), 0).astype(np.int64)
    new = np.where(present, values, own).astype(np.int64)
    unit = {"hour": HOUR, "minute": MINUTE, "day": DAY, "weekday": DAY}.get(part)
    if unit:
        return np.where(present, micros + (new - own) * unit, np.nan)

    calendar = _in_calendar(micros)
    month = (calendar["year"] - 1970) * 12 + calendar["month"] - 1
    month += (new - own) * (12 if part == "year" else 1)
    first, after = (
        one.astype("datetime64[M]").astype("datetime64[D]") for one in (month, month + 1)
    )
    day = np.minimum(calendar["day"], (after - first).astype(np.int64))
    moved = (first.astype(np.int64) + day - 1) * DAY + micros % DAY
    return np.where(present, moved, np.nan)


class _Dependency(AppliedRule):
    """`keys` float64[K, S] are the values of the sources, `values` float64[K] those of the target.
    `are_numbers` says of each source whether it is a number: for one that training did not have,
    the nearest one stands."""

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


# Rules of a schema


def applied(schema: Schema) -> list[AppliedRule]:
    """The rules of a schema, ready to apply. Raises InvalidInput where one cannot be read."""
    return [apply(rule, schema) for rule in schema.rules or ()]


def apply(rule: Rule, schema: Schema) -> AppliedRule:
    """A rule ready to apply to the columns of a schema. Raises InvalidInput where its text cannot
    be read."""
    columns = {column.name: column for column in schema.modelled}
    at = {name: i for i, name in enumerate(columns)}
    statement = read_rule(rule.text, list(columns))
    target = at[statement.target]
    sources = [at[name] for name in statement.sources]
    match statement:
        case Equal():
            both = columns[statement.source], columns[statement.target]
            return _Equal(rule, target, sources[0], _translations(*both))
        case Order():
            step = _step(columns[statement.target], rule)
            return _Order(rule, statement, target, sources[0], step)
        case Sum():
            return _Sum(rule, target, sources, [sign for sign, _ in statement.terms])
        case Elapsed():
            return _Elapsed(rule, target, sources, UNITS[statement.unit])
        case Product():
            return _Product(rule, target, sources, statement.divided)
        case Part():
            return _Part(rule, target, sources[0], statement.part)
        case Implication():
            limits = [_limited(limit, columns[limit.column], rule) for limit in statement.limits]
            return _Implication(rule, target, sources, limits)
        case Nearly():
            return _Nearly(rule, target, sources)
        case Dependency():
            return _dependency(rule, statement, columns, at)


def _limited(limit: Limit, column: Column, rule: Rule) -> _AppliedLimit:
    """A limit ready to apply. Raises InvalidInput for a category that the column does not have."""
    if column.kind not in CATEGORICALS:
        numbers = [number_of(value, column.kind) for value in limit.values]
        return _AppliedLimit(limit, np.array(numbers, dtype=np.float64), _step(column, rule))
    codes = codes_by_name(column)
    for value in limit.values:
        if column.categories and value not in codes:
            raise InvalidInput(
                f"the rule {rule.text!r} names {value!r}, which column {column.name!r} does not"
                " have; correct the rule"
            )
    cells = [codes.get(value, np.nan) for value in limit.values]
    return _AppliedLimit(limit, np.array(cells, dtype=np.float64), 1.0)


def _dependency(
    rule: Rule, statement: Dependency, columns: dict[str, Column], at: dict[str, int]
) -> _Dependency:
    sources = [columns[name] for name in statement.sources]
    keys = [_as_cells(cells, column) for cells, column in zip(rule.keys, sources, strict=True)]
    values = _as_cells(rule.values, columns[statement.target])
    return _Dependency(
        rule,
        at[statement.target],
        [at[column.name] for column in sources],
        np.column_stack(keys),
        values,
        [column.kind not in CATEGORICALS for column in sources],
        columns[statement.target].kind in CATEGORICALS,
    )


def _as_cells(cells: Sequence[Cell], column: Column) -> Floats:
    """Values of a rule as the matrix has them; NaN for an unknown category."""
    if column.kind not in CATEGORICALS:
        return np.array(cells, dtype=np.float64)
    codes = codes_by_name(column)
    return np.array([codes.get(str(cell), np.nan) for cell in cells], dtype=np.float64)


def codes_by_name(column: Column) -> dict[str, int]:
    """The code of each category, the rarer ones included."""
    rarer = [name for name, _ in column.rarer]
    after = len(column.categories) + 2
    codes = {name: after + i for i, name in enumerate(rarer)}
    return codes | {name: code for code, name in enumerate(column.categories)}


def _translations(source: Column, target: Column) -> tuple[Floats, Floats] | None:
    """The code of each category of one column in the other, forth and back."""
    if source.kind not in CATEGORICALS:
        return None
    return _translation(source, target), _translation(target, source)


def _translation(source: Column, target: Column) -> Floats:
    """float64: of each code of the source, that of the target; NaN, also at the end, where there is
    none."""
    of_target = codes_by_name(target)
    translation = np.full(len(source.categories) + len(source.rarer) + 3, np.nan)
    for name, code in codes_by_name(source).items():
        translation[code] = of_target.get(name, np.nan)
    return translation


def _step(column: Column, rule: Rule) -> float:
    """The smallest difference of two values of a column."""
    if column.kind == "datetime":
        return float(column.step)
    return 10.0 ** -(rule.decimals or 0)


@UNUSUAL_NUMBERS
def unkept(schema: Schema, spans: Mapping[str, Spans]) -> Rule | None:
    """A rule that no row with these cells in some columns keeps. It may overlook one: a rule is
    tried alone, and if all its columns are there. A row with a missing cell keeps its rules, so
    that columns which may be missing are left out of `spans`."""
    columns = schema.modelled
    for rule in schema.rules or ():
        statement = read_rule(rule.text, [column.name for column in columns])
        if not {statement.target, *statement.sources} <= spans.keys():
            continue
        applied_rule = apply(rule, schema)
        sources = [spans[name] for name in statement.sources]
        if not applied_rule.may_hold(sources, spans[statement.target]):
            return rule
    return None


# Rows that keep the rules


def matrix_of(numbers: Floats, codes: Integers, schema: Schema) -> Floats:
    """The matrix of rows as nelbo.encoding.encode gives them."""
    columns = dict(zip((c.name for c in schema.numbers), absolute(numbers, schema).T, strict=True))
    for column, of_column in zip(schema.categoricals, codes.T, strict=True):
        missing = of_column == len(column.categories) + 1
        columns[column.name] = np.where(missing, np.nan, of_column)
    return np.stack([columns[column.name] for column in schema.modelled], axis=1)


def without_unknown(x: Floats, schema: Schema) -> Floats:
    """The matrix without categories that the schema has no name for: rules say nothing of them."""
    x = x.copy()
    for j, column in enumerate(schema.modelled):
        if column.kind in CATEGORICALS:
            x[x[:, j] == len(column.categories), j] = np.nan
    return x


def encoded_rows(x: Floats, schema: Schema) -> tuple[Floats, Integers]:
    """The numbers and codes of a matrix, as nelbo.encoding.decode takes them."""
    at = {column.name: i for i, column in enumerate(schema.modelled)}
    numbers = x[:, [at[column.name] for column in schema.numbers]]
    codes = x[:, [at[column.name] for column in schema.categoricals]]
    missing = np.array([len(column.categories) + 1 for column in schema.categoricals], np.float64)
    return relative(numbers, schema), np.where(np.isnan(codes), missing, codes).astype(np.int64)


class RuleKeeper:
    """The rules of a schema, in the order in which a row can follow them."""

    def __init__(self, schema: Schema) -> None:
        self.rules = applied(schema)
        self._followed = _in_order([rule for rule in self.rules if rule.determines])
        self._has_rests = any(isinstance(rule, _Nearly) for rule in self.rules)

    @UNUSUAL_NUMBERS
    def broken(self, x: Floats) -> Booleans:
        """bool[n, R]: the rules that each row breaks."""
        none = np.empty((len(x), 0), dtype=np.bool_)
        return np.column_stack([none, *(rule.broken(x) for rule in self.rules)])

    @UNUSUAL_NUMBERS
    def kept(self, x: Floats, fixed: Booleans, redraw: Redraw, uniforms: Uniforms) -> Floats:
        """The rows with other values in cells that are not `fixed` bool[n, d], so that they keep
        all rules.

        Columns that others determine follow them. Where a rule is still broken, the cells that it
        is about are drawn again given the others, at most ATTEMPTS times. The few rows that
        then still break a rule get the nearest value that keeps it. Only rules whose cells are
        fixed stay broken.
        """
        u = uniforms(np.arange(len(x))) if self._has_rests else np.zeros(len(x))
        x = self._follow(x, fixed, u)
        for attempt in range(ATTEMPTS):
            hidden = self._to_hide(x, fixed)
            rows = np.flatnonzero(hidden.any(1))
            if not len(rows):
                return x
            drawn = redraw(x[rows], hidden[rows], rows, attempt)
            x[rows] = self._follow(drawn, fixed[rows], u[rows])
        rows = np.flatnonzero(self._to_hide(x, fixed).any(1))
        if len(rows):
            x[rows] = self._settle(x[rows], fixed[rows], uniforms(rows))
        return x

    def _follow(self, x: Floats, fixed: Booleans, u: Floats) -> Floats:
        x = x.copy()
        for rule in self._followed:
            # Or the target would lose a category whose sources are all too rare to be made.
            source = rule.sources[0]
            x[rule.unreached(x) & ~fixed[:, source], source] = np.nan
            values = rule.with_rest(rule.follow(x), u)
            own = x[:, rule.target]
            stays = fixed[:, rule.target] | np.isnan(own) | np.isnan(values)
            x[:, rule.target] = np.where(stays, own, values)
        return x

    def _to_hide(self, x: Floats, fixed: Booleans) -> Booleans:
        """bool[n, d]: the cells of broken rules that are not fixed."""
        hidden = np.zeros(x.shape, dtype=np.bool_)
        for rule in self.rules:
            hidden[np.ix_(rule.unusable(x), rule.columns)] = True
        return hidden & ~fixed

    def _settle(self, x: Floats, fixed: Booleans, u: Floats) -> Floats:
        """Rule after rule, and once more where one broke another."""
        for _ in self.rules:
            for rule in self.rules:
                x = self._follow(rule.settle(x, ~fixed, u), fixed, u)
            if not self._to_hide(x, fixed).any():
                break
        return x


def _in_order(rules: Sequence[AppliedRule]) -> list[AppliedRule]:
    """One rule for each target, after those that determine its sources; a rule that can have no
    such place, because its columns determine each other, is left out."""
    first: dict[int, AppliedRule] = {}
    for rule in rules:
        first.setdefault(rule.target, rule)
    ordered: list[AppliedRule] = []
    while first:
        ready = [rule for rule in first.values() if not first.keys() & set(rule.sources)]
        if not ready:
            first.pop(next(iter(first)))
            continue
        ordered += ready
        for rule in ready:
            del first[rule.target]
    return ordered

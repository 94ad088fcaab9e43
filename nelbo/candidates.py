"""Candidates: rows that meet conditions, from which rows with conditions are drawn.

A candidate is a whole row that the model makes. The first rows with conditions are those that meet
them among rows made without conditions. A further row is drawn like its candidate, with z from
q(z | candidate). So z follows p(z | conditions), which q(z | a few cells) approximates badly. If
most rows that are drawn in this way meet the conditions by themselves, such rows are taken, as all
their cells fit each other best. Otherwise, and for the other rows, the cells of the conditions'
columns are the candidate's, and the decoder draws the rest given these.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nelbo.conditions import Allowed, Conditions, all_of, breaks_rule, met_each
from nelbo.encoding import floored
from nelbo.errors import InvalidInput
from nelbo.rule_keeping import RuleKeeper, matrix_of
from nelbo.schema import Schema

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

ROWS = 16_384
"""Rows among which candidates are looked for: fewer in wide tables."""
CELLS = 2**20
LEAST_ROWS = 256
ENOUGH = 1_024
"""Candidates of this number are taken as they are. From fewer, further ones are drawn, as equal z
in many rows make them too much alike."""
LEAST = 32
"""With fewer rows that meet all conditions, one column's condition is met after the other."""
CHAINED = 4_096
"""Rows that meet one condition after the other: more, where categories have shares."""
TESTED = 2_048
"""Rows that are drawn to see whether most meet the conditions by themselves."""
MOST = 0.5
"""The share of rows that is called most."""
MOST_DECIMALS = 6
SEARCHES = 8
"""Maximum number of times that as many rows are searched for rows whose nelbo is in a range."""
TRIES = 12
"""Maximum number of draws of a row whose nelbo is to be in a range; then it is its candidate."""
ALIKE = 3
"""Number of draws of such a row that keep the same share of its candidate's cells."""


@dataclass(frozen=True)
class Pool:
    """Rows of the model in the form that encode gives, with the codes of rarer categories as in
    decode: numbers float64[n, …], codes int64[n, …]. `group` int64[n] is the category of the shares
    that each row has, by its place among them."""

    numbers: Floats
    codes: Integers
    group: Integers

    def take(self, rows: Integers) -> "Pool":
        return Pool(self.numbers[rows], self.codes[rows], self.group[rows])


NO_ROWS = Pool(np.empty((0, 0)), np.empty((0, 0), np.int64), np.empty(0, np.int64))


@dataclass(frozen=True)
class Candidates:
    """Candidates in the order of their groups; those of group g begin at starts[g].

    `keep` bool[d]: the columns whose cells a made row has from its candidate, in the manifest's
    order. `fresh` bool[d]: those of them whose numbers are drawn anew from the candidate's code.
    `different`: the number of different candidates. `free`: whether most rows like them meet the
    conditions by themselves. `first`: the first rows with these conditions.
    """

    pool: Pool
    starts: Integers
    keep: Booleans
    fresh: Booleans
    different: int
    free: bool
    first: Pool

    def of_rows(self, group: Integers, u: Floats) -> Pool:
        """A candidate for each row, by its group int64[n] and a uniform number u float64[n]."""
        size = np.diff(self.starts)[group]
        return self.pool.take(self.starts[group] + (u * size).astype(np.int64))


def kept_share(draw: int) -> float:
    """The share of its candidate's cells that a draw of a row keeps, so that its nelbo is in a
    range: none at first, then a half, three quarters …"""
    return float(1 - 0.5 ** (draw // ALIKE))


def candidates_of(pool: Pool, keep: Booleans, fresh: Booleans) -> Candidates:
    """Candidates of one group, which are also the first rows with their conditions."""
    starts = np.array([0, len(pool.group)])
    return Candidates(pool, starts, keep, fresh, len(pool.group), free=False, first=pool)


Draw = Callable[[Pool, Booleans, Booleans, int], Pool]
"""Rows like those of a pool: z by the cells of the columns `seen` bool[d], the cells of the columns
`keep` bool[d] as they are. The number names the noise."""


def pool_rows(schema: Schema) -> int:
    """The number of rows among which candidates are looked for."""
    return max(LEAST_ROWS, min(ROWS, CELLS // max(1, len(schema.modelled))))


class CandidateSearch:
    """Looks for rows that meet all conditions and keep all rules. It meets the conditions one after
    the other, unless enough rows meet all at once (a particle filter, Gordon et al. 1993).

    Each search runs once.
    """

    def __init__(
        self,
        conditions: Conditions,
        schema: Schema,
        order: tuple[str, ...],
        rules: RuleKeeper,
        draw: Draw,
    ) -> None:
        self.conditions = conditions
        self.schema = schema
        self.rules = rules
        self.order = order
        self.draw = draw
        self.groups = len(conditions.shares.codes) if conditions.shares else 1
        self.keep = np.zeros(len(order), np.bool_)
        self.fresh = np.zeros(len(order), np.bool_)
        self.noise = 0
        self.first = NO_ROWS
        self.number_at = {column.name: i for i, column in enumerate(schema.numbers)}
        self.code_at = {column.name: i for i, column in enumerate(schema.categoricals)}

    def run(self, plain: Pool) -> Candidates:
        """Candidates for all groups. `plain` are rows that the model makes without conditions.

        Raises InvalidInput where no row can meet the conditions and keep the rules.
        """
        every = self.conditions.allowed
        if self.conditions.shares is None:
            met = all_of(self._met(plain, every))
            self.first = plain.take(np.flatnonzero(met))
            if met.sum() >= ENOUGH:
                self._keep(every)
                return self._candidates(self.first, int(met.sum()))
            if met.sum() >= LEAST:
                return self._candidates(*self._meeting(plain, every))

        single = [each for each in every if each.is_single and not each.column.since]
        remaining: Sequence[Allowed] = [each for each in every if each not in single]
        pool = self._with_single(plain, single)
        different = len(pool.group)
        while remaining:
            now = self._next(pool, remaining)
            pool, survivors = self._meeting(pool, now)
            different = min(different, survivors)
            remaining = [each for each in remaining if each not in now]
        return self._candidates(self._drawn(pool, seen_all=True), different)

    def _with_single(self, plain: Pool, single: Sequence[Allowed]) -> Pool:
        """Rows in which the cells of single values and of the shares are set."""
        rows = max(len(plain.group), self.groups)
        if single and self.conditions.shares is None:
            rows = min(rows, CHAINED)
        pool = plain.take(np.arange(rows) % len(plain.group))
        pool = replace(pool, group=np.arange(rows) % self.groups)
        shares = self.conditions.shares
        if shares is None and not single:
            return pool
        for each in single:
            self._set(pool, each, np.ones(rows, np.bool_))
        if shares is not None:
            codes = np.array(shares.codes, np.int64)
            pool.codes[:, self.code_at[shares.column.name]] = codes[pool.group]
            self.keep[self.order.index(shares.column.name)] = True
        self._keep(single)
        return self._drawn(pool, seen_all=False)

    def _next(self, pool: Pool, remaining: Sequence[Allowed]) -> Sequence[Allowed]:
        """The conditions to meet now: all, if enough rows of each group meet all of them; otherwise
        the one that the fewest rows meet."""
        met = self._met(pool, remaining)
        of_groups = np.bincount(pool.group[all_of(met)], minlength=self.groups)
        if of_groups.min() >= LEAST:
            return remaining
        return [remaining[int(met.sum(axis=0).argmin())]]

    def _met(self, pool: Pool, conditions: Sequence[Allowed]) -> Booleans:
        return met_each(conditions, self.schema, pool.numbers, pool.codes)

    def _meeting(self, pool: Pool, now: Sequence[Allowed]) -> tuple[Pool, int]:
        """The rows that meet the conditions, repeated until they are enough; then rows like these,
        which meet them too. Returns the number of rows before they are repeated, too."""
        met = all_of(self._met(pool, now))
        chosen = self._repeated(met, pool.group)
        if self.conditions.shares is None:
            chosen = chosen[:CHAINED]
        self._keep(now)
        pool = pool.take(chosen)
        forced = ~met[chosen]
        if not forced.any():
            return self._drawn(pool, seen_all=True), int(met.sum())

        # No row of some group meets the conditions: their cells are set, and the others follow.
        for each in now:
            self._set(pool, each, forced)
            self.fresh[self.order.index(each.column.name)] = False
        return self._drawn(pool, seen_all=False), int(met.sum()) + int(forced.sum())

    def _drawn(self, pool: Pool, seen_all: bool) -> Pool:
        """Rows like these that meet the conditions so far: those of free rows that do, repeated,
        if they are most of each group; otherwise rows with the cells to keep."""
        seen = np.ones_like(self.keep) if seen_all else self.keep
        free = self._draw(pool, seen, np.zeros_like(self.keep))
        met = self._meets(free)
        if self._least_share(met, pool.group) >= MOST:
            return free.take(self._repeated(met, pool.group))
        return self._draw(pool, seen, self.keep)

    def _draw(self, pool: Pool, seen: Booleans, keep: Booleans) -> Pool:
        self.noise += 1
        return self.draw(pool, seen, keep, self.noise)

    def _meets(self, pool: Pool) -> Booleans:
        """bool[n]: whether rows meet the conditions on the columns that are kept."""
        kept = [
            each
            for each in self.conditions.allowed
            if self.keep[self.order.index(each.column.name)]
        ]
        met = all_of(self._met(pool, kept))
        if shares := self.conditions.shares:
            met &= shares.are_met(pool.codes[:, self.code_at[shares.column.name]], pool.group)
        return met

    def _least_share(self, met: Booleans, group: Integers) -> float:
        """The smallest share of a group's rows that meet conditions."""
        rows = np.bincount(group, minlength=self.groups)
        return float((np.bincount(group[met], minlength=self.groups) / rows).min())

    def _repeated(self, met: Booleans, group: Integers) -> Integers:
        """int64[n]: for each row one of its group that meets the conditions, all of them in turn;
        the row itself where none does."""
        chosen = np.arange(len(group))
        for each in range(self.groups):
            own = np.flatnonzero(group == each)
            meeting = own[met[own]]
            if len(meeting):
                chosen[own] = meeting[np.arange(len(own)) % len(meeting)]
        return chosen

    def _keep(self, conditions: Sequence[Allowed]) -> None:
        """A column that counts from another one is kept with it."""
        for each in conditions:
            self.keep[self.order.index(each.column.name)] = True
            if each.column.since:
                self.keep[self.order.index(each.column.since)] = True
            if each.column.name in self.number_at and not each.is_single:
                self.fresh[self.order.index(each.column.name)] = True

    def _set(self, pool: Pool, allowed: Allowed, rows: Booleans) -> None:
        """Set the cells of rows bool[n] to allowed ones, all of them in turn."""
        name = allowed.column.name
        count = int(rows.sum())
        if name in self.code_at:
            missing = (len(allowed.column.categories) + 1,) if allowed.missing else ()
            codes = np.array((*allowed.codes, *missing), np.int64)
            pool.codes[rows, self.code_at[name]] = np.resize(codes, count)
            return
        at = self.number_at[name]
        numbers = _spread(allowed, count, pool.numbers[:, at])
        if allowed.column.since:
            reference = pool.numbers[rows, self.number_at[allowed.column.since]]
            reference = np.where(np.isnan(reference), numbers, reference)
            pool.numbers[rows, self.number_at[allowed.column.since]] = reference
            numbers = numbers - floored(reference, allowed.column.step)
        pool.numbers[rows, at] = numbers

    def _candidates(self, pool: Pool, different: int) -> Candidates:
        pool = self._usable(pool)
        tested = pool.take(np.arange(min(len(pool.group), max(TESTED, 8 * self.groups))))
        drawn = self._draw(tested, np.ones_like(self.keep), np.zeros_like(self.keep))
        free = self._least_share(self._meets(drawn), tested.group) >= MOST
        pool = pool.take(np.argsort(pool.group, kind="stable"))
        starts = np.searchsorted(pool.group, np.arange(self.groups + 1))
        return Candidates(pool, starts, self.keep, self.fresh, different, free, self.first)

    def _usable(self, pool: Pool) -> Pool:
        """The rows that meet the conditions and keep the rules, repeated."""
        broken = self.rules.broken(matrix_of(pool.numbers, pool.codes, self.schema))
        usable = self._meets(pool) & ~broken.any(axis=1)
        if usable.all():
            return pool
        if self._least_share(usable, pool.group) == 0:
            worst = broken.sum(axis=0)
            if worst.any():
                raise breaks_rule(self.rules.rules[int(worst.argmax())].rule)
            raise InvalidInput(
                "rules of the table keep all rows from the conditions: leave out a condition"
            )
        return pool.take(self._repeated(usable, pool.group))


def _spread(allowed: Allowed, count: int, like: Floats) -> Floats:
    """Allowed numbers float64[count], evenly in each range, with as many decimals as `like` has."""
    if not allowed.ranges:
        return np.full(count, np.nan)
    parts = []
    for low, high in allowed.ranges:
        ends = [end for end in (low, high) if np.isfinite(end)]
        if not ends:
            raise InvalidInput(
                f"no row that the model makes has a value in the column {allowed.column.name!r}:"
                " leave this condition out"
            )
        low, high = ends[0], ends[-1]
        shares = (np.arange(-(-count // len(allowed.ranges))) + 0.5) / count
        shares = shares * len(allowed.ranges)
        parts.append(_rounded(low + shares * (high - low), allowed, like).clip(low, high))
    numbers = np.concatenate(parts)
    return numbers[np.arange(count) * len(numbers) // max(1, count)]


def _rounded(numbers: Floats, allowed: Allowed, like: Floats) -> Floats:
    column = allowed.column
    if column.kind == "datetime":
        return floored(numbers, column.step)
    if column.kind == "integer":
        return np.floor(numbers)
    values = like[~np.isnan(like)]
    for decimals in range(MOST_DECIMALS):
        if len(values) and np.array_equal(np.round(values, decimals), values):
            return np.round(numbers, decimals)
    return numbers

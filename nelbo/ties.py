"""Ties: which categories of a column with many of them go with which values of other columns.

The decoder knows the most frequent categories one by one and the rarer ones by their clusters. So a
row that is drawn as a rarer one, or as a category that never occurs beside its other cells, gets
its category here: one that training rows hold beside the values of the tied columns, of its cluster
if there is one, drawn by its rows. A pair of a category and a value that fewer than `rare` training
rows hold is not in a tie. A rarer category beside a value that is in no pair at all becomes empty:
training rows hold that value beside categories alone that are too rare to be made.

In the other direction, a given category that goes with one value of a tied column fixes that cell,
before all others are drawn.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, FailFast, Field, FiniteFloat, model_validator

from nelbo.encoding import Encoded, as_modelled
from nelbo.schema import CATEGORICALS, Column, Name, Schema

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

MOST_TIES = 8
"""Maximum number of columns that a column is tied to."""
MOST_PAIRS = 100_000
MOST_EDGES = 1_000


class Tie(BaseModel):
    """A column that another one is tied to, and their pairs.

    `pairs` are int32[n, 3] in base64, little-endian: a category, a value, their training rows. A
    category is a code as nelbo.encoding.decode takes it. The value of a number is how many `edges`
    are not above it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: Name
    edges: Annotated[tuple[FiniteFloat, ...], Field(max_length=MOST_EDGES), FailFast()] = ()
    pairs: Annotated[str, Field(max_length=16 * MOST_PAIRS + 8)]

    @model_validator(mode="after")
    def _pairs_are_whole(self) -> Self:
        content = base64.b64decode(self.pairs, validate=True)
        if len(content) % 12 or (np.frombuffer(content, dtype="<i4") < 0).any():
            raise ValueError("pairs are not three numbers each")
        return self

    @classmethod
    def of(cls, column: str, edges: Sequence[float], pairs: Integers) -> Self:
        """From pairs int64[n, 3]."""
        content = np.ascontiguousarray(pairs, dtype="<i4").tobytes()
        return cls(column=column, edges=tuple(edges), pairs=base64.b64encode(content).decode())

    def table(self) -> Integers:
        """The pairs as int64[n, 3]."""
        content = base64.b64decode(self.pairs)
        return np.frombuffer(content, dtype="<i4").reshape(-1, 3).astype(np.int64)


def check_ties(ties: Mapping[str, Sequence[Tie]], schema: Schema) -> None:
    """Raise ValueError where a tie is not between two columns of the schema, or names a category
    that its column does not have."""
    columns = {column.name: column for column in schema.modelled}
    for name, of_column in ties.items():
        column = columns.get(name)
        is_known = column in schema.categoricals and all(tie.column in columns for tie in of_column)
        if column is None or not is_known:
            raise ValueError(f"ties names {name[:100]!r} in another way than table_schema")
        for tie in of_column:
            pairs = tie.table()
            if _exceeds(pairs[:, 0], column) or _exceeds(pairs[:, 1], columns[tie.column]):
                raise ValueError(f"ties of {name[:100]!r} name a category that no column has")


def _exceeds(codes: Integers, column: Column) -> bool:
    """Whether a code is beyond those of a categorical column."""
    is_category = column.kind in CATEGORICALS
    largest = len(column.categories) + 1 + len(column.rarer)
    return is_category and bool((codes > largest).any())


def value_codes(values: Floats, edges: Sequence[float]) -> Integers:
    """The value of each number as a tie has it; one more than the edges where it is missing."""
    codes = np.searchsorted(np.asarray(edges), values, side="right")
    return np.where(np.isnan(values), len(edges) + 1, codes)


@dataclass(frozen=True)
class _Bound:
    """A tie with where its column is among the numbers or the categories, and among all columns.

    `is_later`: whether the column comes after the tied one, so that it is drawn given that.
    """

    tie: Tie
    at: int
    position: int
    is_later: bool
    column: Column | None
    """Where it is a category."""
    size: int
    """The number of codes of the tied column."""

    def is_alone(self, values: Integers) -> Booleans:
        """bool[n]: values that are a frequent category in no pair of the tie."""
        if self.column is None:
            return np.zeros(len(values), dtype=np.bool_)
        alone = np.setdiff1d(np.arange(len(self.column.categories)), self.by_value[:, 1])
        return np.isin(values, alone)

    def values(self, numbers: Floats, codes: Integers) -> Integers:
        if self.column is None:
            return value_codes(numbers[:, self.at], self.tie.edges)
        return codes[:, self.at]

    @cached_property
    def by_value(self) -> Integers:
        """The pairs, sorted by value and category."""
        pairs = self.tie.table()
        in_order: Integers = pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]
        return in_order

    @cached_property
    def _keys(self) -> Integers:
        keys: Integers = self.by_value[:, 1] << 32 | self.by_value[:, 0]
        return keys

    def of(self, value: int) -> tuple[Integers, Integers]:
        """The categories that go with a value, ascending, and the rows of each pair."""
        first, last = np.searchsorted(self.by_value[:, 1], [value, value + 1])
        pairs = self.by_value[first:last]
        return pairs[:, 0], pairs[:, 2]

    def rows_of(self, categories: Integers, values: Integers | int) -> Integers:
        """The rows of each pair, 0 where it is not in the tie."""
        if not len(self._keys):
            return np.zeros(len(categories), dtype=np.int64)
        keys = np.asarray(values) << 32 | categories
        at = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        rows: Integers = np.where(self._keys[at] == keys, self.by_value[at, 2], 0)
        return rows

    def shares_of(self, categories: Integers, value: int) -> Floats:
        """The share of each category's rows that have a value."""
        shares: Floats = self.rows_of(categories, value) / self._rows[categories]
        return shares

    @cached_property
    def _rows(self) -> Floats:
        """The rows of each category, at least 1."""
        pairs = self.by_value
        rows = np.bincount(pairs[:, 0], pairs[:, 2], minlength=self.size)
        return np.maximum(1.0, rows)

    @cached_property
    def _only_value(self) -> Integers:
        """The value of each category that goes with one alone, else -1."""
        assert self.column is not None, "numbers do not follow"
        values = np.full(self.size, -1)
        category, first, count = np.unique(
            self.by_value[:, 0], return_index=True, return_counts=True
        )
        value = self.by_value[first, 1]
        is_fixed = (count == 1) & (value != len(self.column.categories) + 1)
        values[category[is_fixed]] = value[is_fixed]
        return values

    def value_of(self, categories: Integers) -> Integers:
        """The category that each category goes with, -1 where it goes with none or with several,
        or where its cell is missing."""
        values: Integers = self._only_value[categories]
        return values


@dataclass(frozen=True)
class _Tied:
    """A column that is tied to others, and its place among the categories."""

    column: Column
    at: int
    position: int
    ties: tuple[_Bound, ...]

    @cached_property
    def clusters(self) -> Integers:
        """The cluster of each code; -1 for those that are no rarer category. In artifacts without
        clusters, all rarer categories are in one."""
        frequent = np.full(len(self.column.categories) + 2, -1)
        clusters = self.column.clusters or [0] * len(self.column.rarer)
        return np.append(frequent, np.array(clusters, np.int64))

    @property
    def to_categories(self) -> list[_Bound]:
        """The ties to columns that may follow a category."""
        return [tie for tie in self.ties if tie.column is not None]

    def redrawn(
        self, numbers: Floats, codes: Integers, keep: Booleans, u: Floats, mode: bool
    ) -> Integers:
        """The codes int64[n] of the column: where it is not kept, a category that goes with the
        row; by uniform numbers u float64[n] or, in the mode, the most frequent one. A frequent
        category is left to be followed by the columns after it."""
        own = codes[:, self.at].copy()
        kept = keep[:, self.position]
        other = len(self.column.categories)
        values = np.stack([tie.values(numbers, codes) for tie in self.ties], axis=1)
        goes_with = np.ones(len(own), dtype=bool)
        for tie, of_tie in zip(self.ties, values.T, strict=True):
            may_follow = tie.is_later & ~keep[:, tie.position]
            goes_with &= may_follow | (tie.rows_of(own, of_tie) > 0)
        cluster = self.clusters[own]
        is_rarer = cluster >= 0
        for tie, of_tie in zip(self.ties, values.T, strict=True):
            own[~kept & is_rarer & tie.is_alone(of_tie)] = other
        may_be_redrawn = ~kept & ((own < other) | (own > other + 1)) & (is_rarer | ~goes_with)
        rows = np.flatnonzero(may_be_redrawn)
        are_kept = keep[:, [tie.position for tie in self.ties]]
        cases, case = np.unique(
            np.column_stack([cluster, are_kept, values])[rows], axis=0, return_inverse=True
        )
        order = np.argsort(case.ravel(), kind="stable")
        bounds = np.searchsorted(case.ravel()[order], np.arange(len(cases) + 1))
        for number, (of_cluster, *of_ties) in enumerate(cases.tolist()):
            kept_first = sorted(range(len(self.ties)), key=lambda at: not of_ties[at])
            chain = [(self.ties[at], of_ties[len(self.ties) + at]) for at in kept_first]
            categories, weights = self._candidates(chain, of_cluster)
            if len(categories):
                at = rows[order[bounds[number] : bounds[number + 1]]]
                own[at] = categories[_chosen(weights, u[at], mode)]
        return own

    def follow(self, codes: Integers, keep: Booleans) -> None:
        """Set the tied categories that are not kept, where the column's category goes with one of
        them alone."""
        for tie in self.to_categories:
            value = tie.value_of(codes[:, self.at])
            follows = (value >= 0) & ~keep[:, tie.position]
            codes[follows, tie.at] = value[follows]

    def _candidates(
        self, chain: Sequence[tuple[_Bound, int]], cluster: int
    ) -> tuple[Integers, Floats]:
        """The categories that go with the values of all ties or, where there are none, with the
        first of them, and their weights. A row of a cluster, which is -1 where there is none, gets
        one of its members, or else another rarer category, if one goes with it."""
        tie, value = chain[0]
        categories, rows = tie.of(value)
        shares = [tie.shares_of(categories, value) for tie, value in chain[1:]]
        for used in range(len(shares), -1, -1):
            weights = rows * np.prod(shares[:used], axis=0)
            clusters = self.clusters[categories]
            for alike in (clusters == cluster, clusters >= 0):
                if cluster >= 0 and weights[alike].any():
                    return categories, weights * alike
            if weights.any():
                return categories, weights
        return categories[:0], weights[:0]


def _chosen(weights: Floats, u: Floats, mode: bool) -> Integers:
    if mode:
        return np.full(len(u), weights.argmax())
    upto = np.cumsum(weights)
    chosen: Integers = np.searchsorted(upto, u * upto[-1], side="right")
    return chosen.clip(max=int(np.flatnonzero(weights)[-1]))


class Ties:
    """The ties of an artifact."""

    def __init__(
        self, ties: Mapping[str, Sequence[Tie]], schema: Schema, order: Sequence[str]
    ) -> None:
        self._schema = schema
        self._order = order
        self._tied = list(self._bound(ties))

    def _bound(self, ties: Mapping[str, Sequence[Tie]]) -> Iterator[_Tied]:
        """The tied columns. Those of fewer categories come first, as others may be tied to them."""
        numbers = [column.name for column in self._schema.numbers]
        names = [column.name for column in self._schema.categoricals]
        columns = [column for column in self._schema.categoricals if ties.get(column.name)]
        for column in sorted(columns, key=lambda column: len(column.rarer)):
            own = self._order.index(column.name)
            size = len(column.categories) + 2 + len(column.rarer)
            bound = []
            for tie in ties[column.name]:
                position = self._order.index(tie.column)
                at = (numbers if tie.column in numbers else names).index(tie.column)
                of_tie = None if tie.column in numbers else self._schema.categoricals[at]
                bound.append(_Bound(tie, at, position, position > own, of_tie, size))
            yield _Tied(column, names.index(column.name), own, tuple(bound))

    def given(
        self, encoded: Encoded, seen: Booleans, keep: Booleans
    ) -> tuple[Encoded, Booleans, Booleans]:
        """The rows with the cells that their given categories fix, and the masks bool[n, d] of
        cells that are seen and kept with those. A category is given where it is seen and kept."""
        if not self._tied:
            return encoded, seen, keep
        named = encoded.named.copy()
        seen = seen.copy()
        keep = keep.copy()
        for tied in reversed(self._tied):
            is_given = seen[:, tied.position] & keep[:, tied.position]
            for tie in tied.to_categories:
                value = tie.value_of(named[:, tied.at])
                fixed = is_given & ~keep[:, tie.position] & (value >= 0)
                named[fixed, tie.at] = value[fixed]
                seen[fixed, tie.position] = True
                keep[fixed, tie.position] = True
        codes = as_modelled(named, self._schema)
        return replace(encoded, codes=codes, own_codes=named), seen, keep

    def redrawn(
        self, numbers: Floats, codes: Integers, keep: Booleans, u: Floats, mode: bool = False
    ) -> Integers:
        """Codes int64[n, …] of drawn rows, of which the cells that are not kept go with each other.
        The last columns of u float64[n, …] are a uniform number for each categorical column."""
        codes = codes.copy()
        for tied in self._tied:
            of_column = u[:, u.shape[1] - codes.shape[1] + tied.at]
            codes[:, tied.at] = tied.redrawn(numbers, codes, keep, of_column, mode)
        for tied in reversed(self._tied):
            tied.follow(codes, keep)
        return codes

"""Which columns a column of many categories is tied to, learned from training rows; see nelbo.ties.

A column is tied to the few that say most about its category: those of the largest mutual
information, beyond what the same values in another order of the rows have by chance. Pairs that
fewer than `rare` rows hold are left out, and a tie whose pairs leave out too many rows is none.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nelbo.encoding import encode
from nelbo.schema import Column, Schema
from nelbo.ties import MOST_EDGES, MOST_TIES, Tie, value_codes

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

COVERED = 0.9
"""The pairs of a tie hold at least this share of the rows."""
FIXED = 0.99
"""A category fixes a value if this share of its rows have it."""
MOST_JOINT = 3
"""Maximum number of ties that say more about a category than those before them."""
LEAST = 0.1
"""Nats that a tie says about the category beyond chance and the ties before it."""
FEW_VALUES = 200
"""A number with at most this number of values is tied by value, else by RANGES ranges."""
RANGES = 16
PAIRS_IN_ALL = 60_000
"""Maximum number of pairs of all ties of a table together."""
PAIR_BYTES = 16
"""Bytes of a manifest that a pair takes."""


@dataclass(frozen=True)
class Candidate:
    """A column that another one may be tied to: the value of each row."""

    name: str
    values: Integers
    edges: tuple[float, ...] = ()
    nameless: int = -1
    """The value of categories that have no name, which are never made."""
    is_number: bool = False


def learn_ties(
    schema: Schema, usable: pa.Table, numbers: Floats, fitted: Integers, rare: int, room: int
) -> dict[str, tuple[Tie, ...]]:
    """The ties of the columns with rarer categories, by the `fitted` rows of a table: `numbers`
    float64[n, …] are its encoded ones. They take about `room` bytes of the manifest at most."""
    columns = [column for column in schema.categoricals if column.rarer]
    if not columns:
        return {}
    (batch,) = usable.take(fitted).combine_chunks().to_batches()
    named = dict(zip(_names(schema.categoricals), encode(batch, schema).named.T, strict=True))
    candidates = [
        *numbers_of(schema, numbers[fitted]),
        *(
            Candidate(column.name, named[column.name], nameless=len(column.categories))
            for column in schema.categoricals
            if not column.rarer
        ),
    ]
    ties: dict[str, tuple[Tie, ...]] = {}
    pairs = min(PAIRS_IN_ALL, room // PAIR_BYTES)
    for column in sorted(columns, key=lambda column: len(column.rarer)):
        own = named[column.name]
        of_column = tuple(_within(_ties(own, column, candidates, rare), pairs))
        if of_column:
            ties[column.name] = of_column
            pairs -= sum(len(tie.table()) for tie in of_column)
        candidates.append(Candidate(column.name, own, nameless=len(column.categories)))
    return ties


def _names(columns: Sequence[Column]) -> list[str]:
    return [column.name for column in columns]


def numbers_of(schema: Schema, numbers: Floats) -> Iterator[Candidate]:
    """The columns of numbers float64[n, …], by value or by range."""
    for column, values in zip(schema.numbers, numbers.T, strict=True):
        distinct = np.unique(values[~np.isnan(values)])
        if len(distinct) <= FEW_VALUES:
            edges = [(low + high) / 2 for low, high in pairwise(distinct.tolist())]
        else:
            inner = np.linspace(0, 1, RANGES + 1)[1:-1]
            edges = np.unique(np.quantile(values[~np.isnan(values)], inner)).tolist()
        if np.isfinite(edges).all() and len(edges) <= MOST_EDGES:
            yield Candidate(column.name, value_codes(values, edges), tuple(edges), is_number=True)


def _ties(
    own: Integers, column: Column, candidates: Sequence[Candidate], rare: int
) -> Iterator[Tie]:
    """The ties of a column: the candidate that says most, then the one that says most beyond it;
    then the columns that its category fixes."""
    other = len(column.categories)
    has_name = (own != other) & (own != other + 1)
    category = own[has_name]
    joint = np.zeros_like(category)
    gain = 0.0
    remaining = [replace(each, values=each.values[has_name]) for each in candidates]
    for _ in range(MOST_JOINT):
        gains = [_gain(category, _joined(joint, each.values), rare) for each in remaining]
        if not gains or max(gains) < gain + LEAST:
            break
        best = remaining.pop(int(np.argmax(gains)))
        gain = max(gains)
        joint = _joined(joint, best.values)
        yield _tie(category, best, rare)
    fixed = [each for each in remaining if not each.is_number and _is_fixed(category, each.values)]
    informative = (each for each in fixed if _gain(category, each.values, rare) >= LEAST)
    yield from (_tie(category, each, rare) for each in islice(informative, MOST_TIES - MOST_JOINT))


def _tie(category: Integers, candidate: Candidate, rare: int) -> Tie:
    pairs = pairs_of(category, candidate.values, rare)
    return Tie.of(candidate.name, candidate.edges, pairs[pairs[:, 1] != candidate.nameless])


def _is_fixed(category: Integers, values: Integers) -> bool:
    """Whether nearly each category goes with one value."""
    pairs = pairs_of(category, values, 1)
    most = np.zeros(int(category.max(initial=0)) + 1, dtype=np.int64)
    np.maximum.at(most, pairs[:, 0], pairs[:, 2])
    return bool(most.sum() >= FIXED * len(category))


def _joined(first: Integers, second: Integers) -> Integers:
    """One value for each pair of two values."""
    pairs = first * (second.max(initial=0) + 1) + second
    return np.asarray(np.unique(pairs, return_inverse=True)[1].ravel())


def pairs_of(category: Integers, values: Integers, rare: int) -> Integers:
    """Categories, values and rows int64[n, 3] of the pairs that enough rows hold."""
    width = int(values.max(initial=0)) + 1
    pairs, rows = np.unique(category * width + values, return_counts=True)
    often = rows >= rare
    table: Integers = np.stack([pairs // width, pairs % width, rows], axis=1)[often]
    return table


def _gain(category: Integers, values: Integers, rare: int) -> float:
    """Nats that the values say about the category by the pairs that enough rows hold, beyond
    chance; 0 where these pairs leave out too many rows."""
    own = pairs_of(category, values, rare)
    if own[:, 2].sum() < COVERED * len(category):
        return 0.0
    shuffled = np.random.default_rng(0).permutation(values)
    by_chance = information(pairs_of(category, shuffled, 1), category, values)
    return max(0.0, information(own, category, values) - by_chance)


def information(pairs: Integers, category: Integers, values: Integers) -> float:
    """Nats that the values say about the category, by these pairs."""
    of_category = np.bincount(category)[pairs[:, 0]]
    of_value = np.bincount(values)[pairs[:, 1]]
    rows = pairs[:, 2]
    n = len(category)
    return float((rows / n * np.log(rows * n / (of_category * of_value))).sum())


def _within(ties: Iterator[Tie], most: int) -> Iterator[Tie]:
    """The first ties, with at most so many pairs."""
    for tie in ties:
        most -= len(tie.table())
        if most < 0:
            return
        yield tie

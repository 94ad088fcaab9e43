"""Clusters of rarer categories: those of a column that go with the same values of other columns.

The model has one code for each cluster of a column, so that it learns what a rarer category goes
with from all rows of its cluster. A category is described by the columns that say most about it,
beyond what the same values in another order of the rows say: by the square roots of the shares that
each value has among the category's rows, with a few more rows of the whole table's shares. Between
those the squared distance is Hellinger's, and k-means by rows keeps most of what they say. There
are at most √m clusters of m categories, so that each has as many members as the column clusters.
"""

from collections.abc import Sequence
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from nelbo.encoding import in_clusters
from nelbo.schema import Column, Schema

from .ties import information, numbers_of, pairs_of

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Points = NDArray[np.float32]

MOST_CLUSTERS = 64
MOST_COLUMNS = 4
"""Maximum number of columns that describe a category."""
MOST_VALUES = 128
"""Maximum number of values of such a column; less frequent ones count as one."""
MOST_ROWS = 50_000
"""Maximum number of rows, about, by which these columns are chosen."""
LEAST = 0.1
"""Nats that a column says about the category beyond chance."""
PRIOR_ROWS = 5.0
"""Rows of the whole table's shares that are added to those of a category."""
MOST_ROUNDS, TRIES = 30, 6


def with_clusters(schema: Schema, numbers: Floats, named: Integers) -> Schema:
    """The schema with clusters of the rarer categories that have none, by the fitted rows: numbers
    float64[n, …] as encode gives them and codes int64[n, …] as decode takes them."""
    if not any(column.rarer for column in schema.categoricals):
        return schema
    of_columns: dict[str, tuple[int, ...]] = {}
    values = [number.values for number in numbers_of(schema, numbers)]
    codes = {column.name: own for column, own in zip(schema.categoricals, named.T, strict=True)}
    values += [codes[column.name] for column in schema.categoricals if not column.rarer]
    for column in sorted(schema.categoricals, key=lambda column: len(column.rarer)):
        if column.rarer:
            own = codes[column.name]
            clusters = column.clusters or tuple(_clusters(column, own, values).tolist())
            column = column.model_copy(update={"clusters": clusters})
            of_columns[column.name] = clusters
            values.append(in_clusters(own, column))
    columns = tuple(
        column.model_copy(update={"clusters": of_columns.get(column.name, ())})
        for column in schema.columns
    )
    return schema.model_copy(update={"columns": columns})


def _clusters(column: Column, own: Integers, values: Sequence[Integers]) -> Integers:
    """The cluster of each rarer category, numbered from 0 without gaps."""
    first = len(column.categories) + 2
    rows = np.flatnonzero(own >= first)
    rarer = own[rows] - first
    size = len(column.rarer)
    few = slice(None, None, 1 + len(rows) // MOST_ROWS)
    gains = [_gain(rarer[few], of_column[rows[few]]) for of_column in values]
    most = [at for at in np.argsort(-np.array(gains), kind="stable") if gains[at] >= LEAST]
    most = most[:MOST_COLUMNS]
    if not most:
        return np.zeros(size, dtype=np.int64)

    described = np.hstack([_described(rarer, values[at][rows], size) for at in most])
    weights = np.maximum(1, np.bincount(rarer, minlength=size)).astype(np.float64)
    nearest = k_means(described, weights, min(isqrt(size), MOST_CLUSTERS))
    return np.unique(nearest, return_inverse=True)[1].astype(np.int64)


def k_means(points: Points, weights: Floats, count: int) -> Integers:
    """The nearest of `count` centres of each of the points [n, V]. Centres are weighted means of
    the points near to them."""
    centres = _first_centres(points, weights, count)
    nearest = np.full(len(points), -1)
    for _ in range(MOST_ROUNDS):
        before = nearest
        nearest = (_squares(centres) - 2 * (points @ centres.T)).argmin(1)
        if np.array_equal(nearest, before):
            break
        weight = np.bincount(nearest, weights, minlength=count)
        sums = np.zeros(centres.shape)
        np.add.at(sums, nearest, points * weights[:, None])
        means = sums / np.maximum(weight, 1)[:, None]
        centres = np.where(weight[:, None] > 0, means, centres).astype(np.float32)
    return nearest


def _first_centres(points: Points, weights: Floats, count: int) -> Points:
    """Points far from each other. Each is the best of a few that are drawn by their weights times
    their squared distances from the centres before (k-means++, Arthur & Vassilvitskii 2007)."""
    rng = np.random.default_rng(0)
    own = _squares(points)
    distance = np.full(len(points), np.inf)
    chance = weights.cumsum()
    centres = []
    for _ in range(count):
        few = np.searchsorted(chance, rng.random(TRIES) * chance[-1]).clip(max=len(points) - 1)
        to_few = own[:, None] + own[few] - 2 * (points @ points[few].T)
        nearer = np.minimum(distance[:, None], to_few).clip(min=0)
        best = (weights @ nearer).argmin()
        centres.append(points[few[best]])
        distance = nearer[:, best]
        chance = (weights * distance).cumsum()
    return np.array(centres)


def _squares(points: Points) -> NDArray[np.float32]:
    return np.asarray((points**2).sum(1))


def _described(rarer: Integers, values: Integers, size: int) -> Points:
    """float32[size, V]: the square roots of the smoothed shares of the values of each category."""
    frequent = np.argsort(-np.bincount(values), kind="stable")
    rank = np.argsort(frequent)[values].clip(max=MOST_VALUES - 1)
    width = int(rank.max()) + 1
    counts = np.bincount(rarer * width + rank, minlength=size * width).reshape(size, width)
    smoothed = counts + PRIOR_ROWS * np.bincount(rank, minlength=width) / len(rank)
    return np.asarray(np.sqrt(smoothed / smoothed.sum(1, keepdims=True)), np.float32)


def _gain(rarer: Integers, values: Integers) -> float:
    """Nats that the values say about the category, beyond chance."""
    shuffled = np.random.default_rng(0).permutation(values)
    own, by_chance = (
        information(pairs_of(rarer, each, 1), rarer, each) for each in (values, shuffled)
    )
    return own - by_chance

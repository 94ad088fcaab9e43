"""How strongly two columns go together: one figure for a pair of columns of any kinds.

    two numbers           Spearman's rank correlation over the rows that have both, from -1 to 1
    two categories        Cramér's V, from 0 to 1
    number and category   the correlation ratio of the number's ranks, from 0 to 1

V and the correlation ratio are corrected for chance (Bergsma 2013; Kelley 1935), so that columns
without an association have 0 in a small table too.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

RANK_CORRELATION = "rank correlation"
CORRELATION_RATIO = "correlation ratio"
CRAMERS_V = "Cramér’s V"
FEWEST = 0.1
"""Minimum share of the rows that have a pair's numbers: of very few, chance decides."""


def associations(numbers: Floats, levels: Integers) -> Floats:
    """The associations float64[p + c, p + c] of numbers[n, p], NaN where missing, and categories
    levels[n, c], which are counted from 0. They are 0 for a column without two values, and for
    numbers that fewer than one row in ten has."""
    ranks, present = _ranked_columns(numbers)
    table = _rank_correlations(ranks, present)
    if levels.shape[1]:
        flags, starts = _flagged_levels(levels)
        mixed = _correlation_ratios(ranks, present, flags, starts)
        table = np.block([[table, mixed.T], [mixed, _cramers_v(flags, starts)]])
    np.fill_diagonal(table, 0.0)
    return table


def measure_of(i: int, j: int, numbers: int) -> str:
    """The name of the figure for columns i and j, if the first `numbers` columns are numbers."""
    of_numbers = (i < numbers) + (j < numbers)
    return (CRAMERS_V, CORRELATION_RATIO, RANK_CORRELATION)[of_numbers]


def _ranked_columns(numbers: Floats) -> tuple[Floats, Floats]:
    """The columns as ranks around 0, with 0 where missing, and 1 where present."""
    present = (~np.isnan(numbers)).astype(np.float64)
    ranks = np.zeros_like(present)
    for column, values, has in zip(ranks.T, numbers.T, present.T, strict=True):
        at = has > 0
        if at.any():
            ranked = rankdata(values[at])
            column[at] = (ranked - ranked.mean()) / len(ranked)
    return ranks, present


def _rank_correlations(ranks: Floats, present: Floats) -> Floats:
    """[p, p]; the sums for columns i and j are over the rows that have both."""
    rows = present.T @ present
    sums = ranks.T @ present
    squares = np.square(ranks).T @ present
    safe = np.maximum(rows, 1)
    covariance = ranks.T @ ranks - sums * sums.T / safe
    variance = np.maximum(squares - np.square(sums) / safe, 0)
    correlations = _ratio(covariance, np.sqrt(variance * variance.T))
    return np.where(rows >= FEWEST * len(ranks), correlations, 0.0)


def _flagged_levels(levels: Integers) -> tuple[Floats, Integers]:
    """A flag per level of each category [n, all levels], and the first flag of each category."""
    ends = np.cumsum(levels.max(0, initial=0) + 1)
    starts = np.concatenate([[0], ends[:-1]])
    flags = np.zeros((len(levels), ends[-1]), dtype=np.float32)  # exact up to 2**24 rows
    np.put_along_axis(flags, starts + levels, 1.0, axis=1)
    return flags, starts


def _correlation_ratios(ranks: Floats, present: Floats, flags: Floats, starts: Integers) -> Floats:
    """[c, p]; from the share of the ranks' variance that lies between the levels of a category."""
    rows = present.sum(0)
    levels = flags.T @ present
    sums = flags.T @ ranks
    mean = np.square(ranks.sum(0)) / np.maximum(rows, 1)
    between = np.add.reduceat(np.square(sums) / np.maximum(levels, 1), starts) - mean
    total = np.square(ranks).sum(0) - mean
    within = 1 - np.minimum(_ratio(between, np.broadcast_to(total, between.shape)), 1)
    chance = (rows - 1) / np.maximum(rows - np.add.reduceat(levels > 0, starts, dtype=int), 1)
    measured = (total > 1e-9) & (rows >= FEWEST * len(ranks))
    return np.where(measured, np.sqrt(np.maximum(1 - within * chance, 0)), 0.0)


def _cramers_v(flags: Floats, starts: Integers) -> Floats:
    """[c, c]; from the contingency tables of all pairs of categories."""
    n = max(2, len(flags))
    counts = (flags.T @ flags).astype(np.float64)
    rows = np.diag(counts)
    shares = np.square(counts) / np.maximum(np.outer(rows, rows), 1)
    squared = np.add.reduceat(np.add.reduceat(shares, starts, 0), starts, 1) - 1
    freedom = np.add.reduceat(rows > 0, starts, dtype=int) - 1.0
    above_chance = np.maximum(squared - np.outer(freedom, freedom) / (n - 1), 0)
    corrected = freedom - np.square(freedom) / (n - 1)
    return np.sqrt(np.minimum(_ratio(above_chance, np.minimum.outer(corrected, corrected)), 1))


def _ratio(part: Floats, whole: Floats) -> Floats:
    """0 where the whole is next to nothing."""
    ratio: Floats = np.divide(part, whole, out=np.zeros_like(part), where=whole > 1e-9)
    return ratio

"""The law of categories: one code for each known category, and one for all others.

Inside a code there is nothing to say, so log p(x | code) is 0. Where training rows hold more
categories than are known, `other` is drawn as one of the rarer ones by their shares.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nelbo.schema import Column

from .arrays import Array, reached, where

Integers = NDArray[np.int64]

SELDOM = 0.05
"""A category that a smaller share of the rows holds is what makes these rows special."""


@dataclass(frozen=True)
class Category:
    """The fitted law of one categorical column: the rows of each known category (`counts`), of all
    `others` and of `missing`, and of each of the `rarer` categories that are drawn in the place of
    `other` (0 for one that is not)."""

    counts: Integers
    others: int
    missing: int
    rarer: Integers

    always_drawn = False
    ordered: tuple[int, ...] = ()

    @property
    def known(self) -> int:
        return len(self.counts)

    @property
    def values(self) -> int:
        return self.known

    @property
    def single(self) -> int:
        return int((self.counts == 1).sum())

    @property
    def named(self) -> float:
        """The share of the rows of `other` whose category may be drawn."""
        return min(1.0, self.rarer.sum() / self.others) if self.others else 0.0

    def seldom(self, rare: int) -> tuple[int, ...]:
        """The codes that fewer than SELDOM of the rows hold, but at least `rare` rows."""
        few = SELDOM * (self.counts.sum() + self.others + self.missing)
        return tuple(np.flatnonzero((self.counts >= max(1, rare)) & (self.counts < few)).tolist())

    @property
    def words(self) -> str:
        """For the manifest."""
        rarer = f" and {len(self.rarer)} rarer ones as one" if len(self.rarer) else ""
        return f"categorical over {self.known} categories{rarer}"


class Categories(nn.Module):
    """The laws of all categorical columns.

    Buffers: `other` int64[…] and `edges` float64[…, R], the sums of the rarer categories' shares,
    without the last.
    """

    other: Tensor
    edges: Tensor

    def __init__(self, laws: Sequence[Category]) -> None:
        super().__init__()
        self.has_rarer = any(len(law.rarer) for law in laws)
        edges = np.full((len(laws), max((len(law.rarer) for law in laws), default=0)), np.inf)
        for i, law in enumerate(laws):
            count = len(law.rarer)
            upto = np.cumsum(law.rarer) / max(1, law.rarer.sum())
            edges[i, : max(0, count - 1)] = upto[:-1]
        self.register_buffer("edges", torch.from_numpy(edges))
        self.register_buffer("other", torch.tensor([law.known for law in laws], dtype=torch.int64))

    def draw(self, codes: Array, u: Array) -> Array:
        """Codes int64[n, …] with the code of a rarer category in the place of each `other`, by
        uniform numbers u float64[n, …]."""
        rarer = reached(u, self.edges) + (self.other + 2)
        return where(codes.eq(self.other), rarer, codes)


def fit_category(codes: Integers, column: Column, rare: int) -> Category:
    """The law of a categorical column, from its training codes int64[n]."""
    categories = len(column.categories)
    counts = np.bincount(codes, minlength=categories + 2).astype(np.int64)
    rarer = np.array([rows if rows >= rare else 0 for _, rows in column.rarer], np.int64)
    return Category(
        counts[:categories], int(counts[categories]), int(counts[categories + 1]), rarer
    )

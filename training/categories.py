"""The law of categories: a code for each of the frequent ones, one for each cluster of rarer ones,
and one for all others.

A frequent category is its code, so log p(x | code) is 0. A rarer one has the log of its share of
its cluster's training rows, so that p is a distribution over all categories that have a name. See
clusters for how rarer categories are put together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nelbo.encoding import in_clusters
from nelbo.schema import Column

from .arrays import Array, reached, register_buffers, take, where

Integers = NDArray[np.int64]

SELDOM = 0.05
"""A category that a smaller share of the rows holds is what makes these rows special."""
BELOW_ONE = 1 - 1e-9
"""Uniform numbers are scaled by it, so that rounding leads to no member of the next cluster."""


@dataclass(frozen=True)
class Category:
    """The fitted law of one categorical column: the rows of each frequent category and then of each
    cluster (`counts`), of all `others` and of `missing`; of each of the rarer categories its rows
    (`rarer`) and its cluster (`clusters`). Those of fewer than `rare` rows are not drawn.

    A row of `other` is drawn as one of all rarer categories, by their shares: so what goes with the
    categories that have no name here is drawn as often as it occurs."""

    counts: Integers
    others: int
    missing: int
    rarer: Integers
    clusters: Integers
    rare: int

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
        return int((self.frequent == 1).sum())

    @property
    def groups(self) -> int:
        """The number of clusters."""
        return int(self.clusters.max(initial=-1)) + 1

    @property
    def frequent(self) -> Integers:
        """The rows of the categories that have a code of their own."""
        return self.counts[: self.known - self.groups]

    @property
    def drawn(self) -> Integers:
        """The rows of the rarer categories that are drawn, 0 for the others."""
        return np.where(self.rarer >= self.rare, self.rarer, 0)

    @property
    def names_others(self) -> bool:
        return bool(self.drawn.any())

    @property
    def log_most(self) -> NDArray[np.float64]:
        """The log of the largest share that a category which is drawn has of each cluster, and of
        all rarer ones."""
        rows = np.bincount(self.clusters, self.drawn, minlength=self.groups)
        most = np.zeros(self.groups)
        np.maximum.at(most, self.clusters, self.drawn)
        of_any = self.drawn.max(initial=0) / max(1, self.drawn.sum())
        shares = np.where(rows > 0, most / np.maximum(rows, 1), of_any)
        return np.log(np.maximum([*shares, of_any], 1e-9))

    def seldom(self, rare: int) -> tuple[int, ...]:
        """The codes that fewer than SELDOM of the rows hold, but at least `rare` rows."""
        few = SELDOM * (self.counts.sum() + self.others + self.missing)
        is_seldom = (self.frequent >= max(1, rare)) & (self.frequent < few)
        return tuple(np.flatnonzero(is_seldom).tolist())

    @property
    def words(self) -> str:
        """For the manifest."""
        rarer = (
            f" and {len(self.rarer)} rarer ones in {self.groups} clusters" if self.groups else ""
        )
        return f"categorical over {len(self.frequent)} categories{rarer}"


class Categories(nn.Module):
    """The laws of all categorical columns, E of them. A code of a table is as nelbo.encoding gives
    it; a code of the model is that of a frequent category or, after those, of a cluster.

    Buffers, which hold the columns one after another: for each code of a table, from `first`
    int64[E] on, its code of the model (`code`) and the log of its share of that (`log_share`). For
    each code of the model, from `start` int64[E] on, its code of a table (`named`) and, of a
    cluster or `other`, how many rows the members before its own have (`low`) and its own have
    (`width`, else 0): all rarer categories of the column where none of its own is drawn. `upto`
    float64[R] are the rows up to each of the members, `member` their codes of a table: those of a
    cluster together, the most frequent first. As there may be many, `code`, `log_share` and
    `member` have 32 bits, which hold each code exactly.
    """

    first: Tensor
    code: Tensor
    log_share: Tensor
    start: Tensor
    named: Tensor
    low: Tensor
    width: Tensor
    upto: Tensor
    member: Tensor

    def __init__(self, laws: Sequence[Category]) -> None:
        super().__init__()
        self.has_rarer = any(law.groups for law in laws)
        before = np.cumsum([0, *(law.drawn.sum() for law in laws)])
        members = [_members(law) for law in laws]
        intervals = [_intervals(law, least) for law, least in zip(laws, before, strict=False)]
        register_buffers(
            self,
            first=_starts([len(law.frequent) + 2 + len(law.rarer) for law in laws]),
            code=_joined([_codes(law) for law in laws]).float(),
            log_share=_joined([_log_shares(law) for law in laws]).float(),
            start=_starts([law.known + 2 for law in laws]),
            named=_joined([_named(law) for law in laws]),
            low=_joined([low for low, _ in intervals]).double(),
            width=_joined([width for _, width in intervals]).double(),
            upto=_joined([rows for rows, _ in members]).cumsum(0).double(),
            member=_joined([member for _, member in members]).float(),
        )

    def encode(self, codes: Array) -> Array:
        """Codes of the model int64[n, E] of codes of a table int64[n, E]."""
        return take(self.code, codes + self.first).long() if self.has_rarer else codes

    def log_shares(self, codes: Array) -> Array:
        """log p(category | code of the model) float64[n, E] of codes of a table int64[n, E]."""
        if not self.has_rarer:
            return codes.double() * 0
        return take(self.log_share, codes + self.first).double()

    def draw(self, codes: Array, u: Array) -> Array:
        """Codes of a table int64[n, E] from codes of the model int64[n, E]: of a cluster one of its
        members, by uniform numbers u float64[n, E]."""
        if not self.has_rarer:
            return codes
        at = codes + self.start
        width = take(self.width, at)
        rows = take(self.low, at) + (u * width * BELOW_ONE).floor()
        rank = reached(rows.reshape(-1, 1), self.upto[None]).reshape(-1, len(self.start))
        return where(width > 0, take(self.member, rank).long(), take(self.named, at))


def _codes(law: Category) -> Integers:
    """The code of the model of each code of a table."""
    frequent = len(law.frequent)
    return np.array([*range(frequent), law.known, law.known + 1, *(frequent + law.clusters)])


def _log_shares(law: Category) -> NDArray[np.float64]:
    """The log of the share that each code of a table has of its code of the model."""
    rows = np.maximum(law.rarer, 1)
    of_cluster = np.bincount(law.clusters, rows, minlength=law.groups)
    return np.append(np.zeros(len(law.frequent) + 2), np.log(rows / of_cluster[law.clusters]))


def _named(law: Category) -> Integers:
    """The code of a table of each code of the model; that of `other` for a cluster."""
    frequent = len(law.frequent)
    return np.array([*range(frequent), *[frequent] * law.groups, frequent, frequent + 1])


def _members(law: Category) -> tuple[Integers, Integers]:
    """The rows and the codes of a table of the rarer categories: those of a cluster together, the
    most frequent first; 0 rows for one that is not drawn."""
    order = np.lexsort((-law.drawn, law.clusters))
    return law.drawn[order], order + len(law.frequent) + 2


def _intervals(law: Category, before: int) -> tuple[Integers, Integers]:
    """How many rows the members before those of each code of the model have, where all columns
    before have `before`, and its own: those of all clusters for `other` and for a cluster of which
    none is drawn. Both are 0 for other codes."""
    of_cluster = np.bincount(law.clusters, law.drawn, minlength=law.groups).astype(np.int64)
    is_drawn = of_cluster > 0
    low = np.zeros(law.known + 2, np.int64)
    width = np.zeros(law.known + 2, np.int64)
    clusters = slice(len(law.frequent), law.known)
    low[clusters] = np.where(is_drawn, of_cluster.cumsum() - of_cluster, 0)
    width[clusters] = np.where(is_drawn, of_cluster, law.drawn.sum())
    width[law.known] = law.drawn.sum()
    return np.where(width > 0, low + before, 0), width


def _starts(sizes: Sequence[int]) -> Tensor:
    return torch.tensor(np.cumsum([0, *sizes])[:-1], dtype=torch.int64)


def _joined(parts: Sequence[NDArray[Any]]) -> Tensor:
    return torch.from_numpy(np.concatenate([np.empty(0, np.int64), *parts]))


def fit_category(codes: Integers, column: Column, rare: int) -> Category:
    """The law of a categorical column, from its training codes int64[n]."""
    categories = len(column.categories)
    clusters = np.array(column.clusters, np.int64)
    size = categories + 2 + int(clusters.max(initial=-1)) + 1
    counts = np.bincount(in_clusters(codes, column), minlength=size)
    rarer = [rows for _, rows in column.rarer] if column.clusters else []
    return Category(
        np.append(counts[:categories], counts[categories + 2 :]).astype(np.int64),
        int(counts[categories]),
        int(counts[categories + 1]),
        np.array(rarer, np.int64),
        clusters,
        rare,
    )

"""Exemplars: a VAE whose encoder is frozen and whose latent variable is the number of a training
row.

p(x) = Σ_n p(x|n) / M over M exemplars with a kernel p(x|n) around each: the limit of an exemplar
prior (Norouzi et al. 2020, arXiv:2004.04795) under a frozen encoder, with a bandwidth for each
exemplar (Breiman, Meisel & Purcell 1977). q(n|x) is on the nearest few, so that the ELBO is E_q[log
p(x|n)] − KL(q ‖ 1/M), a bound on log p(x) for any q, and the better the nearer they are. −E_q[log
p(x|n)] falls into one term a column. Distances find anomalies among numbers that a smooth density
overlooks.

The prior of an exemplar is 1/M, and less where it is doubted (see doubt.py): training rows may hold
anomalies.

Numbers are compared as y = 3 asinh(u / 3) of the standardised u, so that far tails do not rule the
distances; densities count dy/dx. A whole number counts as its density times 1. Shapes: n rows, M
exemplars, D number columns (fields, where one is cut), E categorical columns, K codes of all of
those together.
"""

import math
from collections.abc import Sequence
from typing import Self

import torch
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from .arrays import Array, register_buffers, take, where
from .doubt import (
    CLEAR,
    doubts,
    hidden_surprise,
    neighbours_for,
    smooth_views,
    strength_for,
)
from .gaussians import LOG_TWO_PI
from .likelihoods import Likelihoods
from .nearest import Kernels, centres

MOST = 10_000
MOST_CELLS = 400_000
"""Exemplars of wide tables are fewer, so that an artifact stays small."""
NEIGHBOURS = 5
NEAREST = 0.5
"""Share of q that the nearest exemplar has alone; all of the nearest share the rest evenly."""
BANDWIDTH = 0.7
"""Times an exemplar's root mean square distance to its nearest others in one column."""
NARROWEST = 3e-3
FLIP = 0.3
"""Probability that a category is not its exemplar's but drawn from all training rows' (Aitchison &
Aitken 1976)."""
BEND = 3.0
FAR = 1e100
"""No value is farther away: its square would be infinite."""
AT_ONCE = 256
"""Rows whose kernels are computed together, so that these stay near 20 MiB."""


def share_for(numbers: int, categories: int) -> float:
    """Weight of the exemplars' bound beside the VAE's: 1 for numbers alone, 0 where half of the
    columns are categorical.

    The weights of the two bounds sum to 1, so by Jensen's inequality their mean is a bound on the
    log of the mixture of both. Among categories there are no distances to lean on, and the VAE
    finds what the exemplars do not see.
    """
    return max(0.0, 1.0 - 2.0 * categories / (numbers + categories))


class Exemplars(nn.Module):
    """Training rows as kernels.

    Buffers: `shift`, `scale` float64[D] standardise the numbers, `missing` float64[D] is the log of
    the probability of a missing one, `log_share` float64[K] that of each code among the rows,
    `log_prior` float64[M] that of each exemplar, and `q` float64[k] is q(n|x) of the k exemplars
    with the highest kernels at x, the highest first. `doubted` is the share of the exemplars that
    only exemplars like them make look normal.
    """

    shift: Tensor
    scale: Tensor
    missing: Tensor
    log_share: Tensor
    log_prior: Tensor
    q: Tensor

    def __init__(
        self, likelihoods: Likelihoods, x: Tensor, codes: Tensor, contaminated: float | None = None
    ) -> None:
        super().__init__()
        self.doubted = 0.0
        self.in_order = likelihoods.in_order
        sizes = [likelihoods.sizes[j] for j in likelihoods.category_at]
        n = len(x)
        present = n - x.isnan().sum(0).double()
        shift, scale = _standard(x)
        log_share = _log_shares(codes, sizes)
        register_buffers(
            self,
            shift=shift,
            scale=scale,
            missing=torch.log((n - present + 1) / (n + 2)),
            log_share=log_share,
            log_prior=torch.full((n,), -math.log(n), dtype=torch.float64),
            q=_nearest_first(min(NEIGHBOURS, n)),
        )

        y = self.warped(x)[0].float().double()  # graphs store 32 bits
        distances, near = _nearest_others(y)
        gain = torch.log1p((1 - FLIP) / (FLIP * log_share.exp()))
        self.kernels = Kernels(y, _bandwidths(distances, y.shape[1]), codes, gain, sizes)

        strength = strength_for(contaminated)
        if strength and near.shape[1]:
            self._doubt(x, near, strength)

    def _doubt(self, x: Tensor, near: Tensor, strength: float) -> None:
        """Lower the prior of the exemplars, rows x float64[M, D], that are doubted."""
        rarity = -self.log_share[self.codes + self.start].sum(1)
        cost = self._cost_by_others(x)
        hidden = hidden_surprise(cost, smooth_views(self.y, rarity), near)
        self.doubted = float((hidden >= CLEAR).double().mean())
        self.log_prior = torch.log_softmax(-doubts(cost, hidden, strength), 0)
        self.kernels.weigh(self.log_prior)

    def _cost_by_others(self, x: Tensor) -> Tensor:
        """Nelbo float64[M] of the exemplars, rows x float64[M, D], each by the others."""
        others = min(len(self.q), len(x) - 1)
        costs = []
        for own in torch.arange(len(x)).split(AT_ONCE):
            nearest = self.kernels.nearest_others(own, others)
            rows, codes = x[own], self.codes[own]
            terms, kl = self._bound(rows, self.warped(rows), codes, nearest, _nearest_first(others))
            costs.append(terms.sum(1) + kl)
        return torch.cat(costs)

    @classmethod
    def fit(
        cls,
        likelihoods: Likelihoods,
        x: Tensor,
        codes: Tensor,
        seed: int,
        contaminated: float | None = None,
    ) -> Self:
        """From training rows, x float64[n, D] as Fields.split gives it and codes int64[n, E], in
        random order; a sample of more than MOST. The rarer categories of a cluster count as one.

        `contaminated` is the share of the rows that are anomalies, None if it is unknown.
        """
        most = min(MOST, MOST_CELLS // len(likelihoods.columns))
        kept = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:most]
        own = likelihoods.categories.encode(codes[kept])
        return cls(likelihoods, x[kept], own, contaminated)

    def warped(self, x: Array) -> tuple[Array, Array]:
        """y float64[n, D] (0 where missing) and log |dy/dx| float64[n, D]."""
        u = (x / self.scale - self.shift / self.scale) / BEND
        u = where(u.isnan(), 0.0, u).clamp(-FAR, FAR)
        return BEND * u.asinh(), -0.5 * (u.square() + 1).log() - self.scale.log()

    def score(self, x: Array, codes: Array) -> tuple[Array, Array]:
        """Terms float64[n, d] in the likelihoods' order of columns and KL float64[n] of rows."""
        warped = self.warped(x)
        nearest = self.kernels.nearest(warped[0], codes, len(self.q))
        return self._bound(x, warped, codes, nearest, self.q)

    def _bound(
        self, x: Array, warped: tuple[Array, Array], codes: Array, nearest: Array, q: Tensor
    ) -> tuple[Array, Array]:
        """Terms float64[n, d] and KL float64[n] of rows, where q(n|x) is q float64[k] on their
        nearest exemplars int64[n, k]."""
        y, log_slope = warped
        log_density = _expected(self._log_kernels(y, nearest), q) + log_slope
        present = log_density + torch.log1p(-self.missing.exp())
        log_p = where(x.isnan(), self.missing, present)
        if self.kernels.sizes:
            log_p = self.in_order(log_p, _expected(self._log_masses(codes, nearest), q))
        # Sums over the last axis would be rounded differently in other batches.
        log_prior = _expected(take(self.log_prior[:, None], nearest), q).sum(1)
        return -log_p, float(torch.xlogy(q, q).sum()) - log_prior

    def _log_kernels(self, y: Array, nearest: Array) -> Array:
        """log p(y_j|n) float64[n, k, D] of the exemplars int64[n, k]: Gaussians."""
        h = take(self.bandwidth[:, None], nearest)
        off = (y[:, None] - centres(self.y, nearest)) / h
        return -0.5 * off.square() - h.log() - 0.5 * LOG_TWO_PI

    def _log_masses(self, codes: Array, nearest: Array) -> Array:
        """log p(code_j|n) float64[n, k, E] of the exemplars int64[n, k]."""
        same = take(self.codes, nearest).eq(codes[:, None]).double()
        share = take(self.log_share.exp(), codes + self.start)
        return ((1 - FLIP) * same + FLIP * share[:, None]).log()

    @property
    def y(self) -> Tensor:
        return self.kernels.y

    @property
    def bandwidth(self) -> Tensor:
        return self.kernels.bandwidth

    @property
    def codes(self) -> Tensor:
        return self.kernels.codes

    @property
    def start(self) -> Tensor:
        return self.kernels.start


def _expected(values: Array, q: Tensor) -> Array:
    """E_q of values float64[n, k, …]."""
    return (values * q[:, None]).sum(1)


def _standard(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation float64[D] of numbers float64[n, D], 1 where all are equal."""
    largest = torch.nan_to_num(x).abs().amax(0).clamp_min(torch.finfo(x.dtype).tiny)
    part = x / largest  # whose squares do not overflow
    shift = largest * torch.nan_to_num(part.nanmean(0))
    spread = largest * torch.nan_to_num((part - shift / largest).square().nanmean(0).sqrt())
    return shift, torch.where(spread > 0, spread, 1.0)


def _nearest_first(k: int) -> Tensor:
    q = torch.full((k,), (1 - NEAREST) / k, dtype=torch.float64)
    q[0] += NEAREST
    return q


def _log_shares(codes: Tensor, sizes: Sequence[int]) -> Tensor:
    """Log of each code's share of the rows, float64[K], with one row more for every code."""
    counts = [
        torch.bincount(column, minlength=size).double() + 1
        for column, size in zip(codes.T, sizes, strict=True)
    ]
    return torch.log(
        torch.cat([torch.empty(0, dtype=torch.float64), *(count / count.sum() for count in counts)])
    )


def _nearest_others(y: Tensor) -> tuple[Tensor, Tensor]:
    """Distances float64[M, k] from each exemplar y float64[M, D] to the nearest others, and those
    int64[M, k], the nearest first; k is 0 if there is no other or no number."""
    neighbours = neighbours_for(len(y)) if y.shape[1] else 0
    if not neighbours:
        none = torch.empty(len(y), 0)
        return none.double(), none.long()
    search = NearestNeighbors(n_neighbors=neighbours, algorithm="brute")
    with threadpool_limits(1):
        distances, near = search.fit(y.float().numpy()).kneighbors()
    return torch.from_numpy(distances).double(), torch.from_numpy(near)


def _bandwidths(distances: Tensor, columns: int) -> Tensor:
    """float64[M] from the distances float64[M, k] to the nearest others."""
    if not distances.shape[1]:
        return torch.ones(len(distances), dtype=torch.float64)
    rms = distances[:, :NEIGHBOURS].square().mean(1).sqrt() / math.sqrt(columns)
    return (BANDWIDTH * rms).clamp_min(NARROWEST)

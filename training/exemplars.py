"""Exemplars: a VAE whose encoder is frozen and whose latent variable is the number of a training
row.

p(x) = Σ_n p(x|n) / M over M exemplars with a kernel p(x|n) around each: the limit of an exemplar
prior (Norouzi et al. 2020, arXiv:2004.04795) under a frozen encoder, with a bandwidth for each
exemplar (Breiman, Meisel & Purcell 1977). q(n|x) is on the nearest few, so that the ELBO is E_q[log
p(x|n)] − KL(q ‖ 1/M), a bound on log p(x) for any q, and the better the nearer they are. −E_q[log
p(x|n)] falls into one term a column. Distances find anomalies among numbers that a smooth density
overlooks.

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

from training.likelihoods import Likelihoods
from training.model import LOG_TWO_PI

MOST = 10_000
MOST_CELLS = 400_000
"""Exemplars of wide tables are fewer, so that an artifact stays small."""
NEIGHBOURS = 5
NEAREST = 0.5
"""So much of q's mass is the nearest exemplar's alone; all of the nearest have an even share in the
rest."""
BANDWIDTH = 0.7
"""Times an exemplar's root mean square distance to its nearest others in one column."""
CLUMP, CLUMP_BANDWIDTH = 4, 1.2
"""Where rows may be anomalies kernels are wider, and reach over so many times their number, so that
anomalies which lie together do not vouch for each other."""
NARROWEST = 3e-3
FLIP = 0.3
"""Probability that a category is not its exemplar's but drawn from all training rows' (Aitchison &
Aitken 1976)."""
BEND = 3.0
FAR = 1e100
"""No value lies farther: its square would be infinite."""
STEP = 2.0**-11
"""Heights of kernels, in nats, are compared in steps of this size. Rounding in float64 is far
smaller, whatever the table."""
GAIN_STEP = 2.0**-10
"""Gains are multiples of it, so that float32 adds them up exactly."""


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

    Buffers: `shift`, `scale` float64[D], `y` float64[M, D], `bandwidth` float64[M], `missing`
    float64[D] (log of its probability), `codes` int64[M, E], `start` int64[E], `log_share`
    float64[K].

    `q` float64[k] is q(n|x) of the k exemplars with the highest kernels at x, the highest first.
    `offset` float64[M] and `gain` float64[K] (of a code that x and exemplar share) are what a
    kernel's height has beside the distance; `slot` int64[2, K] says of which column and code each
    gain is.
    """

    shift: Tensor
    scale: Tensor
    y: Tensor
    bandwidth: Tensor
    missing: Tensor
    q: Tensor
    codes: Tensor
    start: Tensor
    log_share: Tensor
    slot: Tensor
    offset: Tensor
    gain: Tensor

    def __init__(
        self, likelihoods: Likelihoods, x: Tensor, codes: Tensor, contaminated: float = 0.0
    ) -> None:
        super().__init__()
        sizes = [likelihoods.sizes[j] for j in likelihoods.category_at]
        self.number_at, self.category_at = likelihoods.number_at, likelihoods.category_at
        self.sizes = sizes
        known, n = torch.isnan(x).logical_not(), len(x)
        largest = torch.nan_to_num(x).abs().amax(0).clamp_min(torch.finfo(x.dtype).tiny)
        part = x / largest  # whose squares do not overflow
        shift = largest * torch.nan_to_num(part.nanmean(0))
        spread = largest * torch.nan_to_num((part - shift / largest).square().nanmean(0).sqrt())
        self.register_buffer("shift", shift)
        self.register_buffer("scale", torch.where(spread > 0, spread, 1.0))
        self.register_buffer("missing", torch.log((n - known.sum(0).double() + 1) / (n + 2)))
        self.register_buffer(
            "start", torch.tensor([0, *sizes[:-1]], dtype=torch.int64).cumsum(0)[: len(sizes)]
        )
        self.register_buffer("log_share", _log_shares(codes, sizes))
        self.register_buffer("y", self.warped(x)[0].float().double())  # graphs store 32 bits
        self.register_buffer("q", _nearest_first(min(NEIGHBOURS, n)))
        self.register_buffer("codes", codes)
        self.register_buffer("bandwidth", _bandwidths(self.y, contaminated))
        self._fill_heights()

    @classmethod
    def fit(
        cls,
        likelihoods: Likelihoods,
        x: Tensor,
        codes: Tensor,
        seed: int,
        contaminated: float = 0.0,
    ) -> Self:
        """From training rows, x float64[n, D] as Likelihoods.cut gives it and codes int64[n, E]; a
        sample of more than MOST.

        `contaminated` is the share of the rows that may be anomalies.
        """
        most = min(MOST, MOST_CELLS // len(likelihoods.columns))
        kept = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:most]
        return cls(likelihoods, x[kept], codes[kept], contaminated)

    def _fill_heights(self) -> None:
        column = torch.repeat_interleave(
            torch.arange(len(self.sizes)), torch.tensor(self.sizes, dtype=torch.int64)
        )
        self.register_buffer(
            "slot", torch.stack([column, torch.arange(len(column)) - self.start[column]])
        )
        gain = torch.log1p((1 - FLIP) / (FLIP * self.log_share.exp()))
        self.register_buffer("gain", (gain / GAIN_STEP).round() * GAIN_STEP)
        offset = -self.y.shape[1] * self.bandwidth.log()
        highest = offset.max() + sum(
            float(of_column.max()) for of_column in self.gain.split(self.sizes)
        )
        self.register_buffer("offset", offset - highest - STEP * 2**23)

    def warped(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y float64[n, D] (0 where missing) and log |dy/dx| float64[n, D]."""
        u = torch.nan_to_num((x / self.scale - self.shift / self.scale) / BEND).clamp(-FAR, FAR)
        return BEND * torch.asinh(u), -0.5 * torch.log1p(u.square()) - self.scale.log()

    @property
    def steepest(self) -> float:
        """The largest height in nats, without its sign, that an exemplar's kernel has at the centre
        of all."""
        return float((0.5 * self.y.square().sum(1) / self.bandwidth.square()).max())

    @property
    def weight(self) -> Tensor:
        """Float64[D + 2, M]: times (y, |y|², 1) it is what of the kernels' heights does not come
        from codes."""
        narrow = self.bandwidth.square()
        offset = self.offset - 0.5 * self.y.square().sum(1) / narrow
        return torch.cat([(self.y / narrow[:, None]).T, -0.5 / narrow[None], offset[None]])

    def nearest(self, y: Tensor, codes: Tensor) -> Tensor:
        """The k exemplars int64[n, k] whose kernels are highest at y float64[n, D], codes int64[n,
        E]; the highest first.

        A height is that part of log p(x|n) that depends on n, in float64, less a constant that
        makes it −2^23 steps or lower: float32 then rounds it to STEP, or by the same relative
        amount where x is far from all exemplars. Of those that are equally high after that the
        first are taken, so that every way to compute heights in float64 finds the same ones.
        """
        features = torch.cat(
            [y, y.square().sum(1, keepdim=True), torch.ones(len(y), 1, dtype=y.dtype)], 1
        )
        height = features @ self.weight
        for column, own, gain in zip(
            codes.T, self.codes.T, self.gain.split(self.sizes), strict=True
        ):
            height += torch.where(column[:, None] == own, gain[column][:, None], 0.0)
        return height.float().sort(dim=1, descending=True, stable=True).indices[:, : len(self.q)]

    def score(self, x: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Terms float64[n, d] in the likelihoods' order of columns and KL float64[n] of rows."""
        y, log_slope = self.warped(x)
        at = self.nearest(y, codes)
        h = self.bandwidth[at, None]
        log_kernel = -0.5 * ((y[:, None] - self.y[at]) / h).square() - h.log() - 0.5 * LOG_TWO_PI
        log_density = self._mean(log_kernel) + log_slope + torch.log1p(-self.missing.exp())
        share = self.log_share[codes + self.start].exp()[:, None]
        log_mass = self._mean(
            torch.log((1 - FLIP) * (codes[:, None] == self.codes[at]) + FLIP * share)
        )
        order = torch.tensor(self.number_at + self.category_at).argsort()
        terms = -torch.cat([torch.where(torch.isnan(x), self.missing, log_density), log_mass], 1)[
            :, order
        ]
        return terms, torch.full((len(y),), self.kl, dtype=torch.float64)

    def _mean(self, values: Tensor) -> Tensor:
        """E_q of values float64[n, k, …]."""
        return torch.einsum("k,nk...->n...", self.q, values)

    @property
    def kl(self) -> float:
        """KL(q ‖ 1/M), the same for every row."""
        return math.log(len(self.y)) + float(torch.xlogy(self.q, self.q).sum())


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


def _bandwidths(y: Tensor, contaminated: float) -> Tensor:
    """float64[M] from y float64[M, D]."""
    wanted = min(len(y) - 1, max(NEIGHBOURS, round(CLUMP * contaminated * len(y))))
    if not wanted or not y.shape[1]:
        return torch.ones(len(y), dtype=torch.float64)
    with threadpool_limits(1):
        distances, _ = (
            NearestNeighbors(n_neighbors=wanted, algorithm="brute")
            .fit(y.float().numpy())
            .kneighbors()
        )
    rms = torch.from_numpy(distances).double().square().mean(1).sqrt() / math.sqrt(y.shape[1])
    return ((CLUMP_BANDWIDTH if contaminated else BANDWIDTH) * rms).clamp_min(NARROWEST)

"""The variational autoencoder (Kingma & Welling 2014, arXiv:1312.6114): encoder q(z|x), decoder p(x|z), and its ELBO.

Shapes: n rows, d columns, K codes (padded), L latent variables, H hidden units, S noise points.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LOG_TWO_PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class Size:
    """Sizes of the networks, by rules from the number of columns and rows."""

    latent: int
    encoder: int
    decoder: int

    @staticmethod
    def for_table(columns: int, rows: int) -> "Size":
        """Wide tables get thinner networks, so that weights and time grow with the columns only; few rows a thin encoder."""
        decoder = 128 if columns <= 40 else 64 if columns <= 300 else 32
        return Size(latent=min(16, 2 * columns), encoder=min(128 if rows < 2_000 else 256, 2 * decoder), decoder=decoder)


class CodeEmbedding(nn.Module):
    """One vector of `width` for each code of each column: weight [d, K, width]."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(start)

    def forward(self, codes: Tensor) -> Tensor:
        """codes int64[n, d] → float[d, n, width]"""
        d, k, width = self.weight.shape
        flat = codes.T + torch.arange(d)[:, None] * k
        return F.embedding(flat, self.weight.reshape(d * k, width))


class Residual(nn.Module):
    """h + W2 relu(W1 norm(h))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, h: Tensor) -> Tensor:
        return h + self.inner(h)  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """q(z|x) = N(mu(x), diag(exp(log_var(x)))): the sum of code embeddings through residual blocks."""

    def __init__(self, start: Tensor, latent: int) -> None:
        super().__init__()
        width = start.shape[-1]
        self.embedding = CodeEmbedding(start)
        self.blocks = nn.Sequential(Residual(width), Residual(width), nn.LayerNorm(width))
        self.head = nn.Linear(width, 2 * latent)
        nn.init.zeros_(self.head.bias)

    def forward(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """codes int64[n, d] → mu, log_var float[n, L]; log_var is kept within ±12 for float32."""
        h = self.blocks(self.embedding(codes).sum(0) / math.sqrt(codes.shape[1]))
        mu, log_var = self.head(h).chunk(2, -1)
        return mu, 12 * torch.tanh(log_var / 12)


class Decoder(nn.Module):
    """p(x|z) = Π_j p(x_j | x_<j, z), autoregressive over the columns' order (as NADE, Larochelle & Murray 2011).

    A running sum h starts from z and adds an embedding of each column's code; head j reads the sum before its own column.
    One pass in training and scoring; a scan over columns in sampling.
    """

    def __init__(self, start: Tensor, latent: int) -> None:
        super().__init__()
        d, k, width = start.shape
        self.first = nn.Linear(latent, width)
        self.deeper = nn.Sequential(nn.Linear(latent, width), nn.ReLU(), nn.Linear(width, width))
        self.embedding = CodeEmbedding(start)
        self.hidden = nn.Parameter(torch.randn(d, width, width) / math.sqrt(width))
        self.hidden_bias = nn.Parameter(torch.zeros(d, 1, width))
        self.out = nn.Parameter(_smooth(d, k, width).transpose(1, 2) / math.sqrt(width))
        self.out_bias = nn.Parameter(torch.zeros(d, 1, k))

    def start(self, z: Tensor) -> Tensor:
        """z float[m, L] → h float[m, H] before the first column."""
        return self.first(z) + self.deeper(z)  # type: ignore[no-any-return]

    def logits(self, h: Tensor) -> Tensor:
        """h float[d, m, H] → logits float[d, m, K]"""
        a = torch.relu(h)
        a = a + torch.relu(torch.baddbmm(self.hidden_bias, a, self.hidden))
        return torch.baddbmm(self.out_bias, a, self.out)

    def forward(self, z: Tensor, codes: Tensor) -> Tensor:
        """Teacher-forced logits float[d, m, K] for z float[m, L], codes int64[n, d] with m a multiple of n (noise points)."""
        seen = self.embedding(codes)
        before = torch.cat([torch.zeros_like(seen[:1]), torch.cumsum(seen[:-1], 0)])
        points = z.shape[0] // codes.shape[0]
        return self.logits(self.start(z)[None] + before.repeat(1, points, 1))


class Auxiliary(nn.Module):
    """A factorised decoder p(x_j | z), for training only: it keeps z informative beside an autoregressive decoder."""

    def __init__(self, columns: int, codes: int, latent: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(latent, width), nn.ReLU(), Residual(width))
        self.out = nn.Parameter(_smooth(columns, codes, width).transpose(1, 2) / math.sqrt(width))
        self.out_bias = nn.Parameter(torch.zeros(columns, 1, codes))

    def forward(self, z: Tensor) -> Tensor:
        h: Tensor = self.body(z)
        return torch.baddbmm(self.out_bias, h.expand(self.out.shape[0], *h.shape), self.out)


def smooth_start(columns: int, codes: int, width: int, ordinal: Sequence[int]) -> Tensor:
    """First embeddings [d, K, width]: smooth in the rank for the columns in `ordinal`, independent for the others."""
    start = torch.randn(columns, codes, width)
    for j in ordinal:
        start[j] = _smooth(1, codes, width)[0]
    return start / math.sqrt(width)


def _smooth(columns: int, codes: int, width: int) -> Tensor:
    """Random functions of a code's rank: cosines (DCT basis) with amplitudes falling as 1/frequency, unit variance."""
    frequencies = min(codes, 32)
    rank = (torch.arange(codes) + 0.5) / codes
    basis = torch.cos(math.pi * rank[:, None] * torch.arange(frequencies))
    amplitude = 1.0 / (1.0 + torch.arange(frequencies))
    basis = basis * amplitude / amplitude.square().sum().sqrt()
    return basis @ torch.randn(columns, frequencies, width)


def log_normal(z: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
    """log N(z; mu, diag(exp(log_var))), summed over the last axis; every constant is kept."""
    return -0.5 * ((z - mu).square() * torch.exp(-log_var) + log_var + LOG_TWO_PI).sum(-1)


def noise_points(points: int, latent: int, seed: int) -> Tensor:
    """Fixed noise eps float[S, L]: antithetic pairs whose mean is 0 and whose second moment is 1 in each dimension."""
    half = torch.randn(points // 2, latent, generator=torch.Generator().manual_seed(seed))
    half = half / half.square().mean(0).sqrt()
    return torch.cat([half, -half])


def negative_elbo(log_q: Tensor, log_p_z: Tensor, log_p_x: Tensor) -> tuple[Tensor, Tensor]:
    """Terms −E_q[log p(x_j | ·)] float[n, d] and KL(q(z|x) ‖ p(z)) float[n], means over S noise points.

    −ELBO = terms.sum(1) + kl ≥ −log p(x) in expectation over the noise. log_q, log_p_z float[S, n]; log_p_x float[S, n, d].
    """
    return -log_p_x.mean(0), (log_q - log_p_z).mean(0)

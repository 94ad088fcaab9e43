"""The variational autoencoder (Kingma & Welling 2014, arXiv:1312.6114): encoder q(z|x), decoder
p(x|z), and its ELBO.

Shapes: n rows, d columns, K_j codes of column j, C of all columns, L latent variables, H hidden
units, S noise points.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LOG_TWO_PI = math.log(2 * math.pi)
FALL = 0.75
"""Amplitudes of the cosines fall as (1 + frequency) ** -FALL."""


@dataclass(frozen=True)
class Size:
    """Sizes of the networks, by rules from the number of columns and their codes."""

    latent: int
    encoder: int
    decoder: int

    @staticmethod
    def for_table(codes: Sequence[int], widest: int) -> "Size":
        """Columns of fine numbers want a wide decoder, columns of few categories sample fast with a
        thin one: the cube of the mean number of codes over 1,024, as a power of two from 32 to
        `widest`. Wide tables get thinner ones, so that weights and time grow with the columns only.
        """
        columns = len(codes)
        wanted = (sum(codes) / columns) ** 3 / 1_024
        decoder = 2 ** round(math.log2(max(32.0, min(wanted, widest, 8_192 / columns))))
        return Size(
            latent=min(16, 2 * columns), encoder=128 if columns <= 300 else 64, decoder=decoder
        )


class CodeTable(nn.Module):
    """A vector for each code of each column, `weight` [ΣK_j, width].

    The vectors of a column's `ordered` codes are cosines of their rank (DCT basis) times
    `coefficients`. High frequencies have small amplitudes, so that neighbours learn together, and
    what few rows of one code say does not stand alone. The others (categories, missing …) learn by
    themselves.
    """

    def __init__(self, sizes: Sequence[int], ordered: Sequence[Sequence[int]], width: int) -> None:
        super().__init__()
        self.coefficients = nn.Parameter(torch.randn(sum(sizes), width) / math.sqrt(width))
        self.counts = sorted({len(codes) for codes in ordered if codes})
        for count in self.counts:
            columns = zip(ordered, accumulate(sizes, initial=0), strict=False)
            at = [first + code for codes, first in columns if len(codes) == count for code in codes]
            self.register_buffer(f"at_{count}", torch.tensor(at))
            self.register_buffer(f"basis_{count}", cosines(count))

    @property
    def weight(self) -> Tensor:
        weight: Tensor = self.coefficients
        for count in self.counts:
            at, basis = self.get_buffer(f"at_{count}"), self.get_buffer(f"basis_{count}")
            smooth = basis @ weight[at].unflatten(0, (-1, count))
            weight = weight.index_copy(0, at, smooth.flatten(0, 1))
        return weight

    def settle(self) -> None:
        """Let every vector be its own coefficients from now on."""
        self.coefficients.data, self.counts = self.weight.detach(), []


class CodeEmbedding(CodeTable):
    """One vector for each code of each column, and one more that stands for a hidden cell of it:
    weight [C + d, width]."""

    start: Tensor

    def __init__(self, sizes: Sequence[int], ordered: Sequence[Sequence[int]], width: int) -> None:
        rows = [size + 1 for size in sizes]
        super().__init__(rows, ordered, width)
        self.register_buffer("start", torch.tensor([0, *rows[:-1]]).cumsum(0))

    def forward(self, codes: Tensor) -> tuple[Tensor, ...]:
        """codes int64[n, d] → d times float[n, width]"""
        return F.embedding((codes + self.start).T, self.weight).unbind(0)

    def total(self, codes: Tensor) -> Tensor:
        """Their sum over the columns, float[n, width]."""
        return F.embedding_bag(codes + self.start, self.weight, mode="sum")


class Residual(nn.Module):
    """h + W2 relu(W1 norm(h))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)
        )

    def forward(self, h: Tensor) -> Tensor:
        return h + self.inner(h)  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """q(z|x) = N(mu(x), diag(exp(log_var(x)))): the sum of code embeddings through residual
    blocks."""

    def __init__(self, sizes: Sequence[int], ordered: Sequence[Sequence[int]], size: Size) -> None:
        super().__init__()
        width = size.encoder
        self.embedding = CodeEmbedding(sizes, ordered, width)
        self.blocks = nn.Sequential(Residual(width), Residual(width))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 2 * size.latent)
        nn.init.zeros_(self.head.bias)

    def forward(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """codes int64[n, d] → mu, log_var float[n, L]; log_var is kept within ±12 for float32."""
        h = self.blocks(self.embedding.total(codes) / math.sqrt(codes.shape[1]))
        mu, log_var = self.head(self.norm(h)).chunk(2, -1)
        return mu, 12 * torch.tanh(log_var / 12)


class Decoder(nn.Module):
    """p(x|z) = Π_j p(x_j | x_<j, z), autoregressive over the columns' order (as NADE, Larochelle &
    Murray 2011).

    A running sum h starts from z and adds an embedding of each column's code; head j reads the sum
    before its own column. `out` [C, H] and `out_bias` [C] hold the heads of all columns one after
    another, each as many rows as its column has codes.
    """

    def __init__(
        self, sizes: Sequence[int], ordered: Sequence[Sequence[int]], size: Size, out_bias: Tensor
    ) -> None:
        super().__init__()
        d, width = len(sizes), size.decoder
        self.sizes = list(sizes)
        self.first = nn.Linear(size.latent, width)
        self.deeper = nn.Sequential(
            nn.Linear(size.latent, width), nn.ReLU(), nn.Linear(width, width)
        )
        self.embedding = CodeEmbedding(sizes, ordered, width)
        self.hidden = nn.Parameter(torch.randn(d, width, width) / math.sqrt(width))
        self.hidden_bias = nn.Parameter(torch.zeros(d, 1, width))
        self.out = CodeTable(sizes, ordered, width)
        self.out_bias = nn.Parameter(out_bias.clone())

    def start(self, z: Tensor) -> Tensor:
        """z float[m, L] → h float[m, H] before the first column."""
        return self.first(z) + self.deeper(z)  # type: ignore[no-any-return]

    def forward(self, z: Tensor, codes: Tensor) -> list[Tensor]:
        """Teacher-forced logits, d times float[m, K_j], for z float[m, L] and codes int64[m, d].

        Column after column, so that a column's arrays stay in the processor's cache.
        """
        h, logits = self.start(z), []
        out, out_bias = (part.split(self.sizes) for part in (self.out.weight, self.out_bias))
        heads = zip(self.hidden, self.hidden_bias, out, out_bias, strict=True)
        for (hidden, hidden_bias, head, head_bias), seen in zip(
            heads, self.embedding(codes), strict=True
        ):
            a = torch.relu(h)
            a = a + torch.relu(torch.addmm(hidden_bias, a, hidden))
            logits.append(F.linear(a, head, head_bias))
            h = h + seen
        return logits


class Auxiliary(nn.Module):
    """A factorised decoder p(x_j | z), for training only: it keeps z informative beside an
    autoregressive decoder."""

    def __init__(
        self, sizes: Sequence[int], ordered: Sequence[Sequence[int]], size: Size, out_bias: Tensor
    ) -> None:
        super().__init__()
        self.sizes, width = list(sizes), size.encoder
        self.body = nn.Sequential(nn.Linear(size.latent, width), nn.ReLU(), Residual(width))
        self.out = CodeTable(sizes, ordered, width)
        self.out_bias = nn.Parameter(out_bias.clone())

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:
        """z float[n, L] → logits, d times float[n, K_j]"""
        return F.linear(self.body(z), self.out.weight, self.out_bias).split(self.sizes, 1)  # type: ignore[no-any-return]


def cosines(codes: int) -> Tensor:
    """A cosine of the rank for each frequency, [codes, frequencies]; the squares of their
    amplitudes add up to 1."""
    rank, frequency = (torch.arange(codes) + 0.5) / codes, torch.arange(codes)
    amplitude = (1.0 + frequency) ** -FALL
    return (
        torch.cos(math.pi * rank[:, None] * frequency) * amplitude / amplitude.square().sum().sqrt()
    )


def log_normal(z: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
    """log N(z; mu, diag(exp(log_var))), summed over the last axis; every constant is kept."""
    return -0.5 * ((z - mu).square() * torch.exp(-log_var) + log_var + LOG_TWO_PI).sum(-1)


def noise_points(points: int, latent: int, seed: int) -> Tensor:
    """Fixed noise eps float[S, L]: antithetic pairs whose mean is 0 and whose second moment is 1 in
    each dimension."""
    half = torch.randn(points // 2, latent, generator=torch.Generator().manual_seed(seed))
    half = half / half.square().mean(0).sqrt()
    return torch.cat([half, -half])


def negative_elbo(log_q: Tensor, log_p_z: Tensor, log_p_x: Tensor) -> tuple[Tensor, Tensor]:
    """Terms −E_q[log p(x_j | ·)] float[n, d] and KL(q(z|x) ‖ p(z)) float[n], means over S noise
    points.

    −ELBO = terms.sum(1) + kl ≥ −log p(x) in expectation over the noise. log_q, log_p_z float[S, n];
    log_p_x float[S, n, d].
    """
    return -log_p_x.mean(0), (log_q - log_p_z).mean(0)

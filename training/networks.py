"""The networks: tables of code vectors, the encoder q(z|x), and the auxiliary decoder of training.

Shapes: n rows, d columns, K_j codes of column j, C codes of all columns, L latent variables.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .arrays import Array, take, through, where
from .nodes import Value

FALL = 0.75
"""Amplitudes of the cosines fall as (1 + frequency) ** -FALL."""
WIDEST_LOG_VAR = 12
"""log_var of q(z|x) is within ± this, for float32."""
MANY_COLUMNS = 16
FEW_ROWS = 100
"""A table with more columns than MANY_COLUMNS and fewer than FEW_ROWS rows for each is wide."""


@dataclass(frozen=True)
class Size:
    """Sizes of the networks, by rules from the number of rows, of columns and of their codes."""

    latent: int
    encoder: int
    decoder: int
    wide: bool = False
    """Whether the table has many columns and few rows for each. Then training begins at a Gaussian
    copula."""

    @staticmethod
    def for_table(codes: Sequence[int], rows: int, widest: int) -> "Size":
        """Columns of fine numbers need a wide decoder, columns of few categories are fast to draw
        with a narrow one. The width is the cube of the mean number of codes over 1,024, as a power
        of two from 32 to `widest`. From some hundred columns on it falls, so that weights and time
        grow with the number of columns only.

        A wide table has many columns and few rows for each. There the decoder has two hidden units
        for each column, one of which holds what the columns before it tell (copula.start_from).
        """
        columns = len(codes)
        wide = columns > MANY_COLUMNS and rows < FEW_ROWS * columns
        units = (sum(codes) / columns) ** 3 / 1_024
        if wide:
            units = max(units, 2 * columns)
        width = max(32.0, min(units, widest, 8_192 / columns))
        return Size(
            latent=min(16, 2 * columns),
            encoder=128 if columns <= 300 else 64,
            decoder=2 ** round(math.log2(width)),
            wide=wide,
        )


class CodeTable(nn.Module):
    """A vector for each code of each column, `weight` [ΣK_j, width].

    The vectors of a column's `ordered` codes are cosines of their rank (DCT basis) times
    `coefficients`. High frequencies have small amplitudes, so that neighbouring codes learn
    together, and a few rows of one code have little effect alone. The other codes (categories,
    missing …) have coefficients of their own.
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
            at = self.get_buffer(f"at_{count}")
            basis = self.get_buffer(f"basis_{count}")
            smooth = basis @ weight[at].unflatten(0, (-1, count))
            weight = weight.index_copy(0, at, smooth.flatten(0, 1))
        return weight

    def assign(self, weight: Tensor) -> None:
        """Take coefficients that give these vectors."""
        coefficients = weight.clone()
        for count in self.counts:
            at = self.get_buffer(f"at_{count}")
            vectors = weight[at].unflatten(0, (-1, count))
            basis = self.get_buffer(f"basis_{count}")
            coefficients[at] = torch.linalg.solve(basis, vectors).flatten(0, 1)
        self.coefficients.data = coefficients

    def settle(self) -> None:
        """End training: every vector becomes its own coefficients."""
        self.coefficients.data = self.weight.detach()
        self.counts = []


class CodeEmbedding(CodeTable):
    """One vector for each code of each column, and one more that stands for a hidden cell of the
    column: weight [C + d, width]."""

    start: Tensor

    def __init__(self, sizes: Sequence[int], ordered: Sequence[Sequence[int]], width: int) -> None:
        rows = [size + 1 for size in sizes]
        super().__init__(rows, ordered, width)
        self.register_buffer("start", torch.tensor([0, *rows[:-1]]).cumsum(0))

    def forward(self, codes: Tensor) -> tuple[Tensor, ...]:
        """codes int64[n, d] → d times float[n, width]"""
        return F.embedding((codes + self.start).T, self.weight).unbind(0)

    def total(self, codes: Array, observed: Array | None = None) -> Array:
        """Their sum over the columns, float[n, width], or over the cells where `observed`
        bool[n, d] is true."""
        row = codes + self.start
        if not isinstance(row, Value):
            counted = None if observed is None else observed.float()
            return F.embedding_bag(row, self.weight, mode="sum", per_sample_weights=counted)
        if observed is None:
            return take(self.weight, row).sum(1)
        with_none = torch.cat([self.weight, torch.zeros_like(self.weight[:1])])
        return take(with_none, where(observed, row, len(self.weight))).sum(1)


class Residual(nn.Module):
    """h + W2 relu(W1 norm(h))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)
        )

    def forward(self, h: Array) -> Array:
        return h + through(self.inner, h)


class Encoder(nn.Module):
    """q(z|x) = N(mu(x), diag(exp(log_var(x)))): the sum of code embeddings through residual
    blocks."""

    def __init__(self, sizes: Sequence[int], ordered: Sequence[Sequence[int]], size: Size) -> None:
        super().__init__()
        width = size.encoder
        self.latent = size.latent
        self.embedding = CodeEmbedding(sizes, ordered, width)
        self.blocks = nn.Sequential(Residual(width), Residual(width))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 2 * size.latent)
        nn.init.zeros_(self.head.bias)

    def forward(self, codes: Array) -> tuple[Array, Array]:
        """codes int64[n, d] → mu, log_var float[n, L]"""
        h = self.embedding.total(codes) / math.sqrt(len(self.embedding.start))
        h = through(self.norm, through(self.blocks, h))
        both = through(self.head, h)

        mu = both[:, : self.latent]
        log_var = both[:, self.latent :]
        return mu, WIDEST_LOG_VAR * (log_var / WIDEST_LOG_VAR).tanh()


class Auxiliary(nn.Module):
    """A factorised decoder p(x_j | z), for training only: it keeps z informative beside an
    autoregressive decoder."""

    def __init__(
        self, sizes: Sequence[int], ordered: Sequence[Sequence[int]], size: Size, out_bias: Tensor
    ) -> None:
        super().__init__()
        width = size.encoder
        self.sizes = list(sizes)
        self.body = nn.Sequential(nn.Linear(size.latent, width), nn.ReLU(), Residual(width))
        self.out = CodeTable(sizes, ordered, width)
        self.out_bias = nn.Parameter(out_bias.clone())

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:
        """z float[n, L] → logits, d times float[n, K_j]"""
        logits = F.linear(self.body(z), self.out.weight, self.out_bias)
        return torch.split(logits, self.sizes, 1)


def cosines(codes: int) -> Tensor:
    """A cosine of the rank for each frequency, [codes, frequencies]; the squares of their
    amplitudes add up to 1."""
    rank = (torch.arange(codes) + 0.5) / codes
    frequency = torch.arange(codes)
    amplitude = (1.0 + frequency) ** -FALL
    return (
        torch.cos(math.pi * rank[:, None] * frequency) * amplitude / amplitude.square().sum().sqrt()
    )

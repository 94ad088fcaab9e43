"""The decoder: p(x|z) = Π_j p(x_j | x_<j, z), one column after another, in torch and in graphs.

Where some cells o of a row are observed, it is p(x_rest | z, x_o) = Π_j p(x_j | x_<j, x_o, z) over
the other cells: a column then reads the observed cells after it too. With nothing observed, it is
p(x|z).

The model needs three things of a decoder: the logits of all columns for codes that are known
(`forward`, to train), log p of such codes in a graph (`learned`, to score), and codes drawn in a
graph (`draw`, to generate). Another decoder offers the same three.

Shapes: m rows, d columns, K_j codes of column j, C codes of all columns, L latent variables, H
hidden units.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .arrays import Array, addmm, linear, through, where
from .columns import Weights, over_columns, padded, widths
from .masses import MASKED, NEVER
from .networks import CodeEmbedding, CodeTable, Size
from .nodes import Value, concat

NEAR_ONE = np.float32(1 - 2**-18)
"""Uniform numbers are scaled by it, so that a sum of probabilities that rounding left below 1 is
still reached."""
SHARP = np.float32(1e4)
"""Logits times this are the mode's: a softmax with nearly all mass at the largest."""
OUTWEIGHS = 2.0**15
"""A weight that 16 bits hold, whose square is larger than −MASKED."""


@dataclass(frozen=True)
class Head(Generic[Array]):
    """What gives one column's logits: hidden [H, H], hidden_bias [H], out [K, H], out_bias [K]."""

    hidden: Array
    hidden_bias: Array
    out: Array
    out_bias: Array

    def logits(self, h: Array) -> Array:
        """float[m, K] from h float[m, H]"""
        a = h.relu()
        a = a + addmm(self.hidden_bias, a, self.hidden).relu()
        return linear(a, self.out, self.out_bias)


class Decoder(nn.Module):
    """Autoregressive over the columns' order (as NADE, Larochelle & Murray 2011).

    A running sum h starts from z and adds an embedding of each column's code; head j reads the sum
    before its own column. Embeddings of observed cells, of another table `condition`, are in the
    sum from its start. `out` [C, H] and `out_bias` [C] hold the heads of all columns one after
    another, each as many rows as its column has codes.
    """

    def __init__(
        self, sizes: Sequence[int], ordered: Sequence[Sequence[int]], size: Size, out_bias: Tensor
    ) -> None:
        super().__init__()
        d = len(sizes)
        width = size.decoder
        self.sizes = list(sizes)
        self.first = nn.Linear(size.latent, width)
        self.deeper = nn.Sequential(
            nn.Linear(size.latent, width), nn.ReLU(), nn.Linear(width, width)
        )
        self.embedding = CodeEmbedding(sizes, ordered, width)
        self.condition = CodeEmbedding(sizes, ordered, width)
        nn.init.zeros_(self.condition.coefficients)
        self.hidden = nn.Parameter(torch.randn(d, width, width) / math.sqrt(width))
        self.hidden_bias = nn.Parameter(torch.zeros(d, 1, width))
        self.out = CodeTable(sizes, ordered, width)
        self.out_bias = nn.Parameter(out_bias.clone())

    def start(self, z: Array) -> Array:
        """z float[m, L] → h float[m, H] before the first column."""
        return through(self.first, z) + through(self.deeper, z)

    def forward(self, z: Tensor, codes: Tensor, observed: Tensor | None = None) -> list[Tensor]:
        """Logits of each column, d times float[m, K_j], where the codes before it are known: z
        float[m, L], codes int64[m, d], observed bool[m, d].

        Column after column, so that a column's arrays stay in the processor's cache.
        """
        out = self.out.weight.split(self.sizes)
        out_bias = self.out_bias.split(self.sizes)
        heads = zip(self.hidden, self.hidden_bias, out, out_bias, strict=True)

        h = self.start(z)
        if observed is not None:
            h = h + self.condition.total(codes, observed)
        logits = []
        for (hidden, hidden_bias, weight, bias), seen in zip(
            heads, self.embedding(codes), strict=True
        ):
            logits.append(Head(hidden, hidden_bias, weight, bias).logits(h))
            h = h + seen
        return logits

    def learned(self, z: Value, x: Value, rows: int) -> Value:
        """Log-softmax of each column's logits at its own code, float32[m, d], from z float32[m, L]
        and x int64[m, d] with m = `rows`."""

        def column(h: Value, of: Mapping[str, Value]) -> tuple[Value, Value]:
            log_p = _head(of).logits(h).log_softmax(-1)
            own = log_p.gather(1, of["x"][:, None]).squeeze(1)
            return h + of["embedding"].index_select(0, of["x"]), own

        return over_columns(column, self.start(z), self.by_column(), {"x": x}, rows)

    def draw(self, z: Value, cells: "CellsToDraw", drawable: "Drawable", rows: int) -> Value:
        """Codes int64[m, d], drawn one column after another given those that are kept, from z
        float32[m, L] with m = `rows`."""

        def column(h: Value, of: Mapping[str, Value]) -> tuple[Value, Value]:
            logits = drawable.masked(of).logits(h)
            upto = (logits * cells.sharpness).softmax(-1).cumsum(1)[:, :-1]
            drawn = (upto <= of["u"][:, None]).float().sum(1).long()
            code = where(of["keep"], of["x"], drawn)
            return h + of["embedding"].index_select(0, code), code

        h = self.start(z) + self.condition.total(cells.x, cells.keep)
        h = drawable.widened(h, rows)
        weights = drawable.weights(self)
        u = cells.u.float() * NEAR_ONE
        return over_columns(column, h, weights, {"x": cells.x, "keep": cells.keep, "u": u}, rows)

    def by_column(self, bias: Tensor | None = None) -> Weights:
        """The weights of each column, with `bias` float32[C] added to the logits."""
        sizes = widths(self.sizes)
        own_rows = [size + 1 for size in self.sizes]
        out_bias = self.out_bias if bias is None else self.out_bias + bias
        embedding = _split(self.embedding.weight, own_rows)
        return {
            "embedding": padded(embedding, [size + 1 for size in sizes]),
            "hidden": list(self.hidden.numpy()),
            "hidden_bias": list(self.hidden_bias[:, 0].numpy()),
            "out": padded(_split(self.out.weight, self.sizes), sizes),
            "out_bias": padded(_split(out_bias, self.sizes), sizes, NEVER),
        }


def _head(of: Mapping[str, Value]) -> Head[Value]:
    return Head(of["hidden"], of["hidden_bias"], of["out"], of["out_bias"])


def _split(weight: Tensor, rows: Sequence[int]) -> list[NDArray[np.float32]]:
    return [part.numpy() for part in weight.split(list(rows))]


@dataclass(frozen=True)
class CellsToDraw:
    """The cells of rows to draw: codes x int64[m, d], of which those where `keep` bool[m, d] holds
    stay, uniform numbers u float64[m, d], and what the logits are multiplied by."""

    x: Value
    keep: Value
    u: Value
    sharpness: Value


@dataclass(frozen=True)
class Mask:
    """What is added to the logits while a switch is 1, float[C]: MASKED for codes that are not
    drawn then."""

    name: str
    added: Tensor
    switch: Value

    def by_column(self, sizes: Sequence[int]) -> list[NDArray[np.float32]]:
        """The same for each column."""
        return padded(
            [part.float().numpy() for part in self.added.split(list(sizes))], widths(sizes)
        )


@dataclass(frozen=True)
class Drawable:
    """The codes that may be drawn: `drawn` float[C] is added to the logits, the masks are switched
    on and off, and `together` are groups of columns that are missing together, as the first column
    of each decides."""

    drawn: Tensor
    masks: Sequence[Mask] = ()
    together: Sequence[Sequence[int]] = ()

    def weights(self, decoder: Decoder) -> Weights:
        """The decoder's weights of each column under these limits, and the masks."""
        weights = decoder.by_column(self.drawn)
        if self.together:
            weights = missing_together(weights, self.together, decoder.sizes)
        for mask in self.masks:
            weights[mask.name] = mask.by_column(decoder.sizes)
        return weights

    def widened(self, h: Value, rows: int) -> Value:
        """h [m, H] with the hidden units of missing_together, which start at 0."""
        if not self.together:
            return h
        return concat([h, np.zeros((rows, len(self.together)), np.float32)], 1)

    def masked(self, of: Mapping[str, Value]) -> Head[Value]:
        """A column's head under the masks that are on."""
        bias = of["out_bias"]
        for mask in self.masks:
            bias = bias + of[mask.name] * mask.switch
        return _head({**of, "out_bias": bias})


def missing_together(
    weights: Weights, groups: Sequence[Sequence[int]], sizes: Sequence[int]
) -> Weights:
    """Weights with one hidden unit more for each group of columns. It stays 0 unless the group's
    first column is drawn as missing, and then it outweighs all codes of the others but missing,
    which is each column's last code.
    """
    more = (0, len(groups))
    edges = {
        "embedding": [(0, 0), more],
        "hidden": [more, more],
        "hidden_bias": [more],
        "out": [(0, 0), more],
    }
    wider = {
        name: [np.pad(part, edges.get(name, 0)) for part in parts]
        for name, parts in weights.items()
    }
    for unit, (first, *others) in enumerate(groups, start=-len(groups)):
        wider["embedding"][first][sizes[first] - 1, unit] = OUTWEIGHS
        for column in others:
            wider["out"][column][sizes[column] - 1, unit] = OUTWEIGHS
            wider["out_bias"][column][sizes[column] - 1] = MASKED
    return wider

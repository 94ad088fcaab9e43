"""The nearest exemplars of a row: those whose kernels are highest there, in torch and in graphs.

Shapes: n rows, M exemplars, D number columns (fields, where one is split), E categorical columns, K
codes of all of those together, k nearest exemplars.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .arrays import Array, concat, register_buffers, take, where
from .nodes import Nodes, Value

STEP = 2.0**-11
"""Heights of kernels, in nats, are compared in steps of this size. Rounding in float64 is far
smaller, whatever the table."""
GAIN_STEP = 2.0**-10
"""Gains are multiples of it, so that float32 adds them up exactly."""
MANY, LAYERS = 1_500, 8
"""From MANY exemplars on, LAYERS of them at a time are compared as one."""
PIECE = 1_250
"""Heights of about this many exemplars at a time stay in the processor's cache."""
STEEP = 2048.0
"""Kernels whose heights are at most this many nats apart are told from each other in float32."""
SPARE = 3
"""Number of exemplars beyond the k nearest that are compared exactly where float32 chose them."""


class Kernels(nn.Module):
    """The heights of all exemplars' kernels.

    Buffers: `y` float64[M, D] and `codes` int64[M, E] are the exemplars, `bandwidth` float64[M] the
    kernels' widths. `gain` float64[K] is what a code adds to the height of an exemplar that has it
    too, `slot` int64[2, K] says of which column and code each gain is, and `start` int64[E] where a
    column's codes begin among the K. `offset` float64[M] is the rest of a height beside the
    distance.
    """

    y: Tensor
    bandwidth: Tensor
    codes: Tensor
    start: Tensor
    slot: Tensor
    gain: Tensor
    offset: Tensor

    def __init__(
        self, y: Tensor, bandwidth: Tensor, codes: Tensor, gain: Tensor, sizes: Sequence[int]
    ) -> None:
        """`gain` float64[K] as the densities say; `sizes` are the codes of each column."""
        super().__init__()
        self.sizes = list(sizes)
        counts = torch.tensor(self.sizes, dtype=torch.int64)
        start = counts.cumsum(0) - counts
        column = torch.repeat_interleave(torch.arange(len(counts)), counts)
        gain = (gain / GAIN_STEP).round() * GAIN_STEP
        offset = -y.shape[1] * bandwidth.log()
        highest = offset.max() + sum(float(gains.max()) for gains in gain.split(self.sizes))
        register_buffers(
            self,
            y=y,
            bandwidth=bandwidth,
            codes=codes,
            start=start,
            slot=torch.stack([column, torch.arange(len(column)) - start[column]]),
            gain=gain,
            offset=offset - highest - STEP * 2**23,
        )

    @property
    def steepest(self) -> float:
        """The largest height in nats, without its sign, of an exemplar's kernel at the centre of
        all."""
        return float((0.5 * self.y.square().sum(1) / self.bandwidth.square()).max())

    def nearest(self, y: Array, codes: Array, k: int) -> Array:
        """The k exemplars int64[n, k] whose kernels are highest at y float64[n, D], codes int64[n,
        E]; the highest first.

        A height is that part of log p(x|n) that depends on n, in float64, less a constant that
        makes it −2^23 steps or lower: float32 then rounds it to STEP, or by the same relative
        amount where x is far from all exemplars. Of those that are equally high after that the
        first are taken, so that every way to compute heights in float64 finds the same ones.
        """
        if isinstance(y, Value):
            return _Search(self, y, codes, k).nearest()
        return _first_highest(self._heights(y, codes), k)

    def nearest_others(self, own: Tensor, k: int) -> Tensor:
        """For the exemplars own int64[n], the k others int64[n, k] whose kernels are highest at
        them; the highest first."""
        height = self._heights(self.y[own], self.codes[own])
        height[torch.arange(len(own)), own] = -math.inf
        return height.topk(k, dim=1).indices

    def _heights(self, y: Tensor, codes: Tensor) -> Tensor:
        """float64[n, M]"""
        height = _features(y) @ self.weight
        gains = self.gain.split(self.sizes)
        for column, own, gain in zip(codes.T, self.codes.T, gains, strict=True):
            height += torch.where(column[:, None] == own, gain[column][:, None], 0.0)
        return height

    def weigh(self, log_prior: Tensor) -> None:
        """Add the logs of the exemplars' prior probabilities float64[M], all below 0, to the
        heights."""
        self.offset = self.offset + log_prior

    @property
    def weight(self) -> Tensor:
        """float64[D + 2, M]: times (y, |y|², 1) it is the part of the kernels' heights that does
        not come from codes."""
        narrow = self.bandwidth.square()
        offset = self.offset - 0.5 * self.y.square().sum(1) / narrow
        return torch.cat([(self.y / narrow[:, None]).T, -0.5 / narrow[None], offset[None]])


def _first_highest(height: Tensor, k: int) -> Tensor:
    """The k highest int64[n, k] in each row, the highest first, the first of equally high ones.

    Heights are negative, so the bits of a lower one are a larger integer. The place behind those
    bits tells equal heights apart. Selecting k such integers is six times as fast as sorting all.
    """
    bits = height.float().view(torch.int32).long()
    ranked = (bits << 32) + torch.arange(height.shape[1])
    return ranked.topk(k, dim=1, largest=False).indices


def _features(y: Array) -> Array:
    """(y, |y|², 1) float64[n, D + 2]"""
    squares = y.square().sum(1, keepdim=True)
    return concat([y, squares, squares * 0 + 1], 1)


class _Search:
    """The graph of Kernels.nearest for one batch: a quick search over all exemplars finds a few
    that may be the nearest, and those are compared by their own distances."""

    def __init__(self, kernels: Kernels, y: Value, codes: Value, k: int) -> None:
        self.kernels = kernels
        self.layout = _Placement.of(len(kernels.y))
        self.y = y
        self.codes = codes
        self.k = k
        self.has_codes = bool(kernels.sizes)
        narrow = self._padded(kernels.bandwidth, 1.0).square()
        self.steepness = -0.5 / narrow
        self.offset = self._padded(kernels.offset, -np.inf)

    def _padded(self, values: Tensor, rest: float) -> Tensor:
        """Values [M, …] of all exemplars, and `rest` for the places of a layout without one."""
        more = values.new_full((self.layout.padded - len(values), *values.shape[1:]), rest)
        return torch.cat([values, more])

    def nearest(self) -> Value:
        few = self.kernels.steepest <= STEEP
        places = self._found_in_float32() if few else self._found_in_float64()
        away = self.y[:, None] - centres(self.kernels.y, places)
        distance = away.square().sum(2)
        height = distance * take(self.steepness, places) + take(self.offset, places)
        if self.has_codes:
            height = height + self._gained(places)
        return places.gather(1, _highest(height, self.k))

    def _found_in_float32(self) -> Value:
        """Places int64[B, k + SPARE], ascending, of the exemplars with the highest kernels:
        rounding hides none of the k highest behind that many others. float32 is twice as fast as
        float64.
        """
        shared = np.zeros((self.y_columns + 2, 1))
        shared[-1] = STEP * 2**23  # what all heights have in common would take their last digits
        weight = (self._weights().permute(1, 0) + shared).float()
        height = _features(self.y).float() @ weight
        if self.has_codes:
            gains = _gains(self.kernels, np.arange(self.layout.padded))
            height = height + self._one_hot() @ gains

        count = min(self.k + SPARE, len(self.kernels.y))
        if self.layout.layers == 1:
            places = height.highest(count)[1]
        else:
            places = self._found_in_layers(height, count)
        return places.lowest(count)[0]

    def _found_in_layers(self, height: Value, count: int) -> Value:
        """Places of the highest: first the columns whose highest layer is highest, then the highest
        in all layers of those."""
        layers = self.layout.layers
        columns = self.layout.padded // layers
        highest = height.reshape(height.nodes.rows, layers, columns).amax(1)
        column = highest.highest(count)[1]
        under = column[:, None] + np.arange(layers)[:, None] * columns
        under = under.reshape(height.nodes.rows, -1)
        return under.gather(1, height.gather(1, under).highest(count)[1])

    def _found_in_float64(self) -> Value:
        """Places int64[B, layers · k], ascending, of the exemplars in the k columns whose highest
        kernels are highest.

        The k nearest are among them, the first of equally high ones: any other column has k
        exemplars before all of its own.
        """
        layout = self.layout
        rows = self.y.nodes.rows
        columns = []
        for piece, weight in enumerate(self._pieces()):
            height = _features(self.y) @ weight
            if self.has_codes:
                gains = _gains(self.kernels, layout.order[piece])
                height = height + (self._one_hot() @ gains).double()
            columns.append(height.reshape(rows, layout.layers, layout.columns).amax(1))
        column = _highest(concat(columns, 1), self.k).lowest(self.k)[0]
        first = (column * layout.layers).unsqueeze(2)
        return (first + np.arange(layout.layers)).reshape(rows, layout.layers * self.k)

    @property
    def y_columns(self) -> int:
        return self.kernels.y.shape[1]

    def _weights(self) -> Value:
        """Kernels.weight, transposed: float64[M, D + 2]. ONNX Runtime computes it once, as it
        loads."""
        nodes = self.y.nodes
        by_row = nodes.constant(self.steepness).unsqueeze(1)
        y = _padded_centres(nodes, self.kernels.y, self.layout.padded).double()
        constant = nodes.constant(self.offset).unsqueeze(1) + y.square().sum(1, True) * by_row
        return concat([y * (by_row * -2), by_row, constant], 1)

    def _pieces(self) -> list[Value]:
        """float64[D + 2, layers · columns] of each piece."""
        layout = self.layout
        by_layer = self._weights().reshape(layout.pieces, layout.columns, layout.layers, -1)
        flat = by_layer.permute(0, 3, 2, 1).reshape(
            layout.pieces, -1, layout.layers * layout.columns
        )
        return [flat.index_select(0, piece) for piece in range(layout.pieces)]

    def _one_hot(self) -> Value:
        """float32[B, K]"""
        column, code = self.kernels.slot
        return self.codes.index_select(1, column).eq(code).float()

    def _gained(self, places: Value) -> Value:
        """float64[B, …]: what a row's codes add to the heights of the exemplars at `places`."""
        own = take(self._padded(self.kernels.codes, 0), places)
        gain = take(self.kernels.gain, self.codes + self.kernels.start)
        return where(own.eq(self.codes[:, None]), gain[:, None], 0.0).sum(2)


def _highest(height: Value, k: int) -> Value:
    """Places int64[B, k] of the k highest in each row, the highest first, the first of equally high
    ones."""
    return height.float().highest(k)[1]


def _gains(kernels: Kernels, own: NDArray[np.int64]) -> NDArray[np.float32]:
    """float32[K, …]: what each code adds to the heights of exemplars that share it."""
    column, code = kernels.slot.numpy()
    codes = kernels.codes.numpy()
    same = codes[own.clip(max=len(codes) - 1)][:, column] == code
    gains: NDArray[Any] = np.where(same, kernels.gain.numpy(), 0.0)
    return gains.astype(np.float32).T


def centres(y: Tensor, places: Array) -> Array:
    """Exemplars float64[n, k, D] at places int64[n, k]. Graphs store them once, in 32 bits, which
    hold them exactly."""
    if not isinstance(places, Value):
        return y[places]
    stored = _padded_centres(places.nodes, y, _Placement.of(len(y)).padded)
    return stored.index_select(0, places).double()


def _padded_centres(nodes: Nodes, y: Tensor, rows: int) -> Value:
    return nodes.constant(np.pad(y.float().numpy(), ((0, rows - len(y)), (0, 0))))


@dataclass(frozen=True)
class _Placement:
    """Exemplars as `pieces`, each of which has `columns` of `layers` exemplars; `padded` are all of
    those."""

    layers: int
    pieces: int
    columns: int

    @staticmethod
    def of(exemplars: int) -> "_Placement":
        layers = LAYERS if exemplars >= MANY else 1
        pieces = -(-exemplars // PIECE)
        return _Placement(layers, pieces, -(-exemplars // (layers * pieces)))

    @property
    def padded(self) -> int:
        return self.layers * self.pieces * self.columns

    @property
    def order(self) -> NDArray[np.int64]:
        """Places int64[pieces, layers · columns] of the exemplars in a piece's product, one layer
        after the other."""
        by_column = np.arange(self.padded).reshape(self.pieces, self.columns, self.layers)
        return by_column.transpose(0, 2, 1).reshape(self.pieces, -1)

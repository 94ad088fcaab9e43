"""Exemplars.score node by node."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto

from training.exemplars import BEND, FAR, FLIP, STEP, Exemplars
from training.fit import VAE
from training.model import LOG_TWO_PI
from training.nodes import Nodes
from training.parts.codes import cut

MANY, LAYERS = 1_500, 8
"""From MANY exemplars on LAYERS of them at a time are compared as one."""
PIECE = 1_250
"""Heights of about this many exemplars at a time stay in the processor's cache."""
STEEP = 2048.0
"""Kernels whose heights are at most this many nats apart are told from each other in float32."""
SPARE = 3
"""Number of exemplars beyond the k nearest that are compared exactly where float32 chose them."""


def score(nodes: Nodes, vae: VAE, exemplars: Exemplars, batch: int) -> tuple[str, str]:
    """Exemplars.score: terms float64[B, d] and kl float64[B]."""
    x = cut(nodes, vae.likelihoods)
    missing = nodes("IsNaN", x)
    scaled = nodes("Div", x, nodes.constant(exemplars.scale.numpy()))
    away = nodes("Sub", scaled, nodes.constant((exemplars.shift / exemplars.scale).numpy()))
    u = nodes("Where", missing, nodes.constant(0.0), nodes("Div", away, nodes.constant(BEND)))
    u = nodes("Clip", u, nodes.constant(-FAR), nodes.constant(FAR))
    square = nodes("Add", nodes("Mul", u, u), nodes.constant(1.0))
    size = nodes("Abs", u)  # asinh by its definition: the engine has it for float32 alone
    bent = nodes("Mul", nodes("Sign", u), nodes("Log", nodes("Add", size, nodes("Sqrt", square))))
    y = nodes("Mul", bent, nodes.constant(BEND))
    layout = _Layout.of(len(exemplars.y))
    centres = nodes.constant(
        np.pad(exemplars.y.float().numpy(), ((0, layout.padded - len(exemplars.y)), (0, 0)))
    )
    at = _nearest(nodes, exemplars, layout, y, centres, batch)
    h = nodes("Gather", nodes.constant(exemplars.bandwidth[:, None].numpy()), at, axis=0)
    away = nodes("Sub", nodes("Unsqueeze", y, nodes.axes(1)), _at(nodes, centres, at))
    off = nodes(
        "Mul", away, nodes("Div", nodes.constant((exemplars.q[:, None] / 2).sqrt().numpy()), h)
    )
    known = 0.5 * LOG_TWO_PI + exemplars.scale.log() - torch.log1p(-exemplars.missing.exp())
    spread = nodes(
        "Add",
        nodes("Mul", nodes("Log", square), nodes.constant(0.5)),
        nodes.constant(known.numpy()),
    )
    spread = nodes("Add", _mean(nodes, exemplars, nodes("Log", h)), spread)
    cost = nodes("Add", nodes("ReduceSumSquare", off, nodes.axes(1), keepdims=0), spread)
    terms = nodes("Where", missing, nodes.constant(-exemplars.missing.numpy()), cost)
    if exemplars.category_at:
        own = nodes("Gather", nodes.constant(exemplars.codes.numpy()), at, axis=0)
        codes = nodes("Unsqueeze", "codes", nodes.axes(1))
        same = nodes("Cast", nodes("Equal", own, codes), to=TensorProto.DOUBLE)
        place = nodes("Add", codes, nodes.constant(exemplars.start.numpy()))
        drawn = nodes("Gather", nodes.constant(FLIP * exemplars.log_share.exp().numpy()), place)
        mass = nodes("Add", nodes("Mul", same, nodes.constant(1 - FLIP)), drawn)
        order = nodes.constant(np.argsort(exemplars.number_at + exemplars.category_at))
        of_codes = _mean(nodes, exemplars, nodes("Neg", nodes("Log", mass)))
        terms = nodes("Gather", nodes("Concat", terms, of_codes, axis=1), order, axis=1)
    return terms, nodes.constant(np.full(batch, exemplars.kl))


def _at(nodes: Nodes, centres: str, places: str) -> str:
    """Centres float64[B, k, D] of the exemplars at places int64[B, k]."""
    return str(nodes("Cast", nodes("Gather", centres, places, axis=0), to=TensorProto.DOUBLE))


def _mean(nodes: Nodes, exemplars: Exemplars, values: str) -> str:
    """E_q of values float64[B, k, …]."""
    weighted = nodes("Mul", values, nodes.constant(exemplars.q[:, None].numpy()))
    made: str = nodes("ReduceSum", weighted, nodes.axes(1), keepdims=0)
    return made


@dataclass(frozen=True)
class _Layout:
    """Exemplars as `pieces`, each of which has `columns` of `layers` exemplars; `padded` are all of
    those."""

    layers: int
    pieces: int
    columns: int

    @staticmethod
    def of(exemplars: int) -> "_Layout":
        layers, pieces = LAYERS if exemplars >= MANY else 1, -(-exemplars // PIECE)
        return _Layout(layers, pieces, -(-exemplars // (layers * pieces)))

    @property
    def padded(self) -> int:
        return self.layers * self.pieces * self.columns

    @property
    def order(self) -> NDArray[np.int64]:
        """Places int64[pieces, layers · columns] of the exemplars in a piece's product, one layer
        after the other."""
        by_column = np.arange(self.padded).reshape(self.pieces, self.columns, self.layers)
        return by_column.transpose(0, 2, 1).reshape(self.pieces, -1)


def _nearest(
    nodes: Nodes, exemplars: Exemplars, layout: _Layout, y: str, centres: str, batch: int
) -> str:
    """Exemplars.nearest: places int64[B, k]. Those that come into question are compared by their
    own distances."""
    more = layout.padded - len(exemplars.y)
    bandwidth = nodes.constant(np.pad(exemplars.bandwidth.numpy(), (0, more), constant_values=1))
    offset = nodes.constant(np.pad(exemplars.offset.numpy(), (0, more), constant_values=-np.inf))
    steepness = nodes("Div", nodes.constant(-0.5), nodes("Mul", bandwidth, bandwidth))
    squares = nodes("ReduceSumSquare", y, nodes.axes(1), keepdims=1)
    features = nodes("Concat", y, squares, nodes.constant(np.ones((batch, 1))), axis=1)
    find = _found_in_float32 if exemplars.steepest <= STEEP else _found_in_float64
    places = find(
        nodes, exemplars, layout, features, _weights(nodes, centres, steepness, offset), batch
    )
    away = nodes("Sub", nodes("Unsqueeze", y, nodes.axes(1)), _at(nodes, centres, places))
    distance = nodes("ReduceSumSquare", away, nodes.axes(2), keepdims=0)
    height = nodes("Mul", distance, nodes("Gather", steepness, places))
    height = nodes("Add", height, nodes("Gather", offset, places))
    if exemplars.category_at:
        height = nodes("Add", height, _gained(nodes, exemplars, places, more))
    return str(nodes("GatherElements", places, _highest(nodes, height, len(exemplars.q)), axis=1))


def _found_in_float32(
    nodes: Nodes, exemplars: Exemplars, layout: _Layout, features: str, weight: str, batch: int
) -> str:
    """Places int64[B, k + SPARE], ascending, of the exemplars with the highest kernels: rounding
    hides none of the k highest behind so many others. Float32 is twice as fast as float64.
    """
    wanted = nodes.constant([min(len(exemplars.q) + SPARE, len(exemplars.y))], "int64")
    shared = np.zeros((exemplars.y.shape[1] + 2, 1))
    shared[-1] = STEP * 2**23  # what all heights have in common would take their last digits
    weight = nodes("Add", nodes("Transpose", weight, perm=[1, 0]), nodes.constant(shared))
    features, weight = (
        nodes("Cast", factor, to=TensorProto.FLOAT) for factor in (features, weight)
    )
    height = nodes("MatMul", features, weight)
    if exemplars.category_at:
        gains = nodes.constant(_gains(exemplars, np.arange(layout.padded)))
        height = nodes("Add", height, nodes("MatMul", _one_hot(nodes, exemplars), gains))
    if layout.layers == 1:
        places = nodes("TopK", height, wanted, outputs=2, axis=1)[1]
    else:
        columns = layout.padded // layout.layers
        layers = nodes("Reshape", height, nodes.constant([batch, layout.layers, columns], "int64"))
        column = nodes(
            "TopK", nodes("ReduceMax", layers, nodes.axes(1), keepdims=0), wanted, outputs=2, axis=1
        )[1]
        under = nodes("Unsqueeze", column, nodes.axes(1))
        under = nodes("Add", under, nodes.constant(np.arange(layout.layers)[:, None] * columns))
        under = nodes("Reshape", under, nodes.constant([batch, -1], "int64"))
        chosen = nodes(
            "TopK", nodes("GatherElements", height, under, axis=1), wanted, outputs=2, axis=1
        )[1]
        places = nodes("GatherElements", under, chosen, axis=1)
    return str(nodes("TopK", places, wanted, outputs=2, axis=1, largest=0)[0])


def _found_in_float64(
    nodes: Nodes, exemplars: Exemplars, layout: _Layout, features: str, weight: str, batch: int
) -> str:
    """Places int64[B, layers · k], ascending, of the exemplars in the k columns whose highest
    kernels are highest.

    The k nearest are among them, the first of equally high ones: any other column has k exemplars
    before all of its own.
    """
    one_hot = _one_hot(nodes, exemplars) if exemplars.category_at else ""
    columns = []
    for i, piece in enumerate(_pieces(nodes, layout, weight)):
        height = nodes("MatMul", features, piece)
        if one_hot:
            gains = nodes("MatMul", one_hot, nodes.constant(_gains(exemplars, layout.order[i])))
            height = nodes("Add", height, nodes("Cast", gains, to=TensorProto.DOUBLE))
        layers = nodes(
            "Reshape", height, nodes.constant([batch, layout.layers, layout.columns], "int64")
        )
        columns.append(nodes("ReduceMax", layers, nodes.axes(1), keepdims=0))
    k = len(exemplars.q)
    column = _highest(nodes, nodes("Concat", *columns, axis=1), k)
    column = nodes("TopK", column, nodes.constant([k], "int64"), outputs=2, axis=1, largest=0)[0]
    first = nodes(
        "Unsqueeze", nodes("Mul", column, nodes.constant(layout.layers, "int64")), nodes.axes(2)
    )
    places = nodes("Add", first, nodes.constant(np.arange(layout.layers)))
    return str(nodes("Reshape", places, nodes.constant([batch, layout.layers * k], "int64")))


def _weights(nodes: Nodes, centres: str, steepness: str, offset: str) -> str:
    """Exemplars.weight, transposed: float64[M, D + 2]. ONNX Runtime computes it once, as it
    loads."""
    by_row = nodes("Unsqueeze", steepness, nodes.axes(1))
    centres = nodes("Cast", centres, to=TensorProto.DOUBLE)
    squares = nodes("ReduceSumSquare", centres, nodes.axes(1), keepdims=1)
    constant = nodes(
        "Add", nodes("Unsqueeze", offset, nodes.axes(1)), nodes("Mul", squares, by_row)
    )
    linear = nodes("Mul", centres, nodes("Mul", by_row, nodes.constant(-2.0)))
    return str(nodes("Concat", linear, by_row, constant, axis=1))


def _pieces(nodes: Nodes, layout: _Layout, weight: str) -> list[str]:
    """Float64[D + 2, layers · columns] of each piece."""
    shape = [layout.pieces, layout.columns, layout.layers, -1]
    by_layer = nodes(
        "Transpose", nodes("Reshape", weight, nodes.constant(shape, "int64")), perm=[0, 3, 2, 1]
    )
    flat = nodes(
        "Reshape",
        by_layer,
        nodes.constant([layout.pieces, -1, layout.layers * layout.columns], "int64"),
    )
    return [nodes("Gather", flat, nodes.constant(i, "int64"), axis=0) for i in range(layout.pieces)]


def _highest(nodes: Nodes, height: str, k: int) -> str:
    """Places int64[B, k] of the k highest in each row, the highest first, the first of equally high
    ones."""
    return str(
        nodes(
            "TopK",
            nodes("Cast", height, to=TensorProto.FLOAT),
            nodes.constant([k], "int64"),
            outputs=2,
            axis=1,
        )[1]
    )


def _one_hot(nodes: Nodes, exemplars: Exemplars) -> str:
    """Float32[B, K]."""
    column, code = exemplars.slot.numpy()
    same = nodes(
        "Equal", nodes("Gather", "codes", nodes.constant(column), axis=1), nodes.constant(code)
    )
    return str(nodes("Cast", same, to=TensorProto.FLOAT))


def _gains(exemplars: Exemplars, own: NDArray[np.int64]) -> NDArray[np.float32]:
    """Float32[K, …]: what each code adds to the heights of exemplars that share it."""
    column, code = exemplars.slot.numpy()
    same = exemplars.codes.numpy()[own.clip(max=len(exemplars.codes) - 1)][:, column] == code
    gains: NDArray[np.float32] = np.where(same, exemplars.gain.numpy(), 0.0).astype(np.float32).T
    return gains


def _gained(nodes: Nodes, exemplars: Exemplars, places: str, more: int) -> str:
    """Float64[B, …]: what the codes of a row add to the heights of the exemplars at `places`."""
    own = nodes(
        "Gather",
        nodes.constant(np.pad(exemplars.codes.numpy(), ((0, more), (0, 0)))),
        places,
        axis=0,
    )
    same = nodes("Equal", own, nodes("Unsqueeze", "codes", nodes.axes(1)))
    gain = nodes(
        "Gather",
        nodes.constant(exemplars.gain.numpy()),
        nodes("Add", "codes", nodes.constant(exemplars.start.numpy())),
    )
    gained = nodes("Where", same, nodes("Unsqueeze", gain, nodes.axes(1)), nodes.constant(0.0))
    return str(nodes("ReduceSum", gained, nodes.axes(2), keepdims=0))

"""Exemplars.score node by node."""

import numpy as np
import torch
from onnx import TensorProto

from training.exemplars import BEND, FAR, FLIP, Exemplars
from training.fit import VAE
from training.model import LOG_TWO_PI
from training.nodes import Nodes
from training.parts.codes import cut

MANY, STRIPES = 1_500, 8


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
    more = -len(exemplars.weight) % STRIPES if len(exemplars.weight) >= MANY else 0
    weight = nodes.constant(np.pad(exemplars.weight.numpy(), ((0, more), (0, 0))))
    offset = nodes.constant(np.pad(exemplars.offset.numpy(), (0, more), constant_values=-np.inf))
    height = nodes("Gemm", _features(nodes, exemplars, y), weight, offset, transB=1)
    at = _largest(nodes, height, len(exemplars.q), batch, len(exemplars.weight) + more)
    h = nodes("Gather", nodes.constant(exemplars.bandwidth[:, None].numpy()), at, axis=0)
    centre = nodes("Gather", nodes.slice(weight, 0, exemplars.y.shape[1]), at, axis=0)
    centre = nodes("Mul", nodes("Cast", centre, to=TensorProto.DOUBLE), nodes("Mul", h, h))
    away = nodes("Sub", nodes("Unsqueeze", y, nodes.axes(1)), centre)
    off = nodes("Mul", away, nodes("Div", nodes.constant((exemplars.q[:, None] / 2).sqrt().numpy()), h))
    known = 0.5 * LOG_TWO_PI + exemplars.scale.log() - torch.log1p(-exemplars.missing.exp())
    spread = nodes("Add", nodes("Mul", nodes("Log", square), nodes.constant(0.5)), nodes.constant(known.numpy()))
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


def _mean(nodes: Nodes, exemplars: Exemplars, values: str) -> str:
    """E_q of values float64[B, k, …]."""
    weighted = nodes("Mul", values, nodes.constant(exemplars.q[:, None].numpy()))
    made: str = nodes("ReduceSum", weighted, nodes.axes(1), keepdims=0)
    return made


def _features(nodes: Nodes, exemplars: Exemplars, y: str) -> str:
    """What the weights of all exemplars are multiplied with, float32[B, …]; see Exemplars.nearest."""
    features = [y, nodes("ReduceSum", nodes("Mul", y, y), nodes.axes(1), keepdims=1)]
    if exemplars.category_at:
        column, code = exemplars.slot.numpy()
        one_hot = nodes("Equal", nodes("Gather", "codes", nodes.constant(column), axis=1), nodes.constant(code))
        features.append(nodes("Cast", one_hot, to=TensorProto.DOUBLE))
    joined: str = nodes("Cast", nodes("Concat", *features, axis=1), to=TensorProto.FLOAT)
    return joined


def _largest(nodes: Nodes, height: str, k: int, batch: int, size: int) -> str:
    """Places int64[B, k] of the k largest of height [B, size] in each row, the largest first.

    Many are cut into stripes of equal length and laid over each other: only where the highest layer is among its k largest can
    one of the k largest lie. That takes a quarter less time.
    """
    wanted = nodes.constant([k], "int64")
    if size < MANY:
        return str(nodes("TopK", height, wanted, outputs=2, axis=1)[1])
    stripes = nodes("Reshape", height, nodes.constant([batch, STRIPES, size // STRIPES], "int64"))
    _, column = nodes("TopK", nodes("ReduceMax", stripes, nodes.axes(1), keepdims=0), wanted, outputs=2, axis=1)
    start = nodes.constant(np.arange(STRIPES)[:, None] * (size // STRIPES))
    under = nodes("Add", nodes("Unsqueeze", column, nodes.axes(1)), start)
    places = nodes("Reshape", under, nodes.constant([batch, STRIPES * k], "int64"))
    _, chosen = nodes("TopK", nodes("GatherElements", height, places, axis=1), wanted, outputs=2, axis=1)
    return str(nodes("GatherElements", places, chosen, axis=1))

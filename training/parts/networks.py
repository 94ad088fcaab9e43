"""Encoder and decoder node by node: q(z|x), and p(x|z) column after column."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor, nn

from training.fit import VAE
from training.likelihoods import MASKED, NEVER
from training.model import Encoder, Residual
from training.nodes import Nodes, values

UNROLLED = 100
"""Up to so many columns, each is a piece of graph of its own with its own number of codes. Wider
tables are a Scan over padded weights, as thousands of nodes take long to load."""
OUTWEIGHS = 2.0**15
"""A weight that 16 bits hold, whose square is larger than −MASKED."""

Weights = dict[str, list[NDArray[np.generic]]]
"""By name, for each column."""
Step = Callable[[Nodes, str, Mapping[str, str]], tuple[str, str]]
"""From the running sum h and a column's weights and cells by name to the next h and the column's
result."""


def encoder(nodes: Nodes, encoder: Encoder, seen: str) -> tuple[str, str]:
    """Encoder.forward: mu, log_var float32[B, L] from codes int64[B, d]."""
    embedding = encoder.embedding
    d = len(embedding.start)
    place = nodes("Add", seen, nodes.constant(embedding.start.numpy()))
    h = nodes(
        "ReduceSum",
        nodes("Gather", nodes.constant(embedding.weight.numpy()), place, axis=0),
        nodes.axes(1),
        keepdims=0,
    )
    h = nodes("Mul", h, nodes.constant(1 / math.sqrt(d), "float32"))
    for block in encoder.blocks:
        assert isinstance(block, Residual)
        norm, first, _, last = block.inner
        h = nodes(
            "Add",
            h,
            _linear(nodes, nodes("Relu", _linear(nodes, _norm(nodes, h, norm), first)), last),
        )
    both = _linear(nodes, _norm(nodes, h, encoder.norm), encoder.head)
    latent = encoder.head.out_features // 2
    bent = nodes(
        "Tanh", nodes("Div", nodes.slice(both, latent, 2 * latent), nodes.constant(12, "float32"))
    )
    return nodes.slice(both, 0, latent), nodes("Mul", bent, nodes.constant(12, "float32"))


def log_prob(nodes: Nodes, vae: VAE, z: str, x: str, rows: int) -> str:
    """log p(code | x_<j, z) float32[m, d] for z float32[m, L] and x int64[m, d]: Decoder.forward
    and Likelihoods.log_prob."""
    likelihoods = vae.likelihoods

    def step(step: Nodes, h: str, of: Mapping[str, str]) -> tuple[str, str]:
        log_p = step("LogSoftmax", logits(step, h, of), axis=-1)
        chosen = step("GatherElements", log_p, step("Unsqueeze", of["x"], step.axes(1)), axis=1)
        return step("Add", h, step("Gather", of["embedding"], of["x"], axis=0)), step(
            "Squeeze", chosen, step.axes(1)
        )

    never = np.zeros(sum(likelihoods.sizes), np.float32)
    start = decoder_start(nodes, vae, z)
    learned = over_columns(
        nodes, step, start, decoder_weights(vae, never), {"x": x}, "float32", rows
    )
    place = nodes("Add", x, nodes.constant(likelihoods.start.numpy()))
    is_learned = nodes("Gather", nodes.constant(likelihoods.learned.numpy()), place)
    learned = nodes("Where", is_learned, learned, nodes.constant(0, "float32"))
    made: str = nodes(
        "Add", learned, nodes("Gather", nodes.constant(likelihoods.log_mass.numpy()), place)
    )
    return made


def logits(step: Nodes, h: str, of: Mapping[str, str]) -> str:
    """A column's logits float32[m, K] from h float32[m, H], as in Decoder.forward."""
    a = step("Relu", h)
    a = step("Add", a, step("Relu", step("Gemm", a, of["hidden"], of["hidden_bias"])))
    made: str = step("Gemm", a, of["out"], of["out_bias"])
    return made


def widths(vae: VAE) -> list[int]:
    """Codes of each column as the graphs hold them: padded to the most where they are a Scan."""
    sizes = list(vae.likelihoods.sizes)
    return sizes if len(sizes) <= UNROLLED else [max(sizes)] * len(sizes)


def decoder_weights(vae: VAE, bias: NDArray[np.float32]) -> Weights:
    """The decoder's weights column by column, with `bias` float32[C] added to the logits."""
    decoder, sizes = vae.decoder, list(vae.likelihoods.sizes)
    rows = [size + 1 for size in sizes]
    return {
        "embedding": _padded(
            decoder.embedding.weight.split(rows), [width + 1 for width in widths(vae)]
        ),
        "hidden": list(decoder.hidden.numpy()),
        "hidden_bias": list(decoder.hidden_bias[:, 0].numpy()),
        "out": [out.T.copy() for out in _padded(decoder.out.weight.split(sizes), widths(vae))],
        "out_bias": _padded((decoder.out_bias + Tensor(bias)).split(sizes), widths(vae), NEVER),
    }


def missing_together(
    nodes: Nodes, vae: VAE, h: str, weights: Weights, batch: int
) -> tuple[str, Weights]:
    """h and weights with one hidden unit more for each column that is cut and may be missing: it
    stays 0 unless the first field is drawn as missing, and then outweighs all other codes of the
    fields that follow.
    """
    tables = vae.likelihoods
    is_missing = torch.stack(
        [codes[-1] > MASKED / 2 for codes in tables.drawn.split(tables.sizes)]
    )  # at times or always
    may_miss = tables.column_of[is_missing].tolist()
    cut = [
        column
        for column, fields in enumerate(tables.fitted)
        if len(fields) > 1 and column in may_miss
    ]
    if not cut:
        return h, weights
    more = (0, len(cut))
    edges = {
        "embedding": [(0, 0), more],
        "hidden": [more, more],
        "hidden_bias": [more],
        "out": [more, (0, 0)],
    }
    wider = {
        name: [np.pad(part, edges.get(name, 0)) for part in parts]
        for name, parts in weights.items()
    }
    for j, (column, follows) in enumerate(
        zip(tables.column_of.tolist(), tables.follows, strict=True)
    ):
        if column in cut:
            unit, missing = (
                wider["hidden"][j].shape[0] - len(cut) + cut.index(column),
                tables.sizes[j] - 1,
            )
            if follows:
                wider["out"][j][unit, missing], wider["out_bias"][j][missing] = OUTWEIGHS, MASKED
            else:
                wider["embedding"][j][missing, unit] = OUTWEIGHS
    return nodes(
        "Concat", h, nodes.constant(np.zeros((batch, len(cut)), np.float32)), axis=1
    ), wider


def masked(vae: VAE, code: Tensor) -> list[NDArray[np.generic]]:
    """For each column MASKED at its code int64[d] (nowhere where that is negative) and 0 elsewhere,
    as wide as its logits."""
    return [
        np.where(np.arange(width) == one, np.float32(MASKED), np.float32(0))
        for width, one in zip(widths(vae), code.tolist(), strict=True)
    ]


def _padded(
    parts: Sequence[Tensor], rows: Sequence[int], value: float = 0.0
) -> list[NDArray[np.generic]]:
    edges = [
        ((0, size - len(part)), *[(0, 0)] * (part.ndim - 1))
        for part, size in zip(parts, rows, strict=True)
    ]
    return [
        np.pad(part.numpy(), edge, constant_values=value)
        for part, edge in zip(parts, edges, strict=True)
    ]


def over_columns(
    nodes: Nodes,
    step: Step,
    h: str,
    weights: Weights,
    cells: Mapping[str, str],
    result: str,
    rows: int,
) -> str:
    """`step` over the columns with their weights and cells ([m, d] each): the columns' results, [m,
    d]."""
    d = len(weights["out"])
    by_column = {name: nodes("Transpose", value, perm=[1, 0]) for name, value in cells.items()}
    if d > UNROLLED:
        return _scanned(nodes, step, h, weights, by_column, result, rows)
    results = []
    for j in range(d):
        of = {name: nodes.constant(weight[j]) for name, weight in weights.items()}
        of |= {
            name: nodes("Gather", value, nodes.constant(j, "int64"), axis=0)
            for name, value in by_column.items()
        }
        h, made = step(nodes, h, of)
        results.append(nodes("Unsqueeze", made, nodes.axes(1)))
    joined: str = nodes("Concat", *results, axis=1)
    return joined


def _scanned(
    nodes: Nodes,
    step: Step,
    h: str,
    weights: Weights,
    cells: Mapping[str, str],
    result: str,
    rows: int,
) -> str:
    body = Nodes("step_")
    h_next, made = step(body, "step_h", {name: f"step_{name}" for name in (*weights, *cells)})
    body.name(h_next, "step_h_next")
    body.name(made, "step_result")
    stacked = {name: np.stack(weight) for name, weight in weights.items()}
    width = stacked["hidden"].shape[-1]
    kinds = {"x": "int64", "keep": "bool", "u": "float32"}
    inputs: dict[str, tuple[str, list[int]]] = {"step_h": ("float32", [rows, width])}
    inputs |= {
        f"step_{name}": ("float32", list(weight.shape[1:])) for name, weight in stacked.items()
    }
    inputs |= {f"step_{name}": (kinds[name], [rows]) for name in cells}
    outputs = {"step_h_next": ("float32", [rows, width]), "step_result": (result, [rows])}
    graph = helper.make_graph(body.nodes, "column", values(inputs), values(outputs), body.constants)
    scanned = (*(nodes.constant(weight) for weight in stacked.values()), *cells.values())
    _, results = nodes("Scan", h, *scanned, outputs=2, body=graph, num_scan_inputs=len(scanned))
    by_row: str = nodes("Transpose", results, perm=[1, 0])
    return by_row


def decoder_start(nodes: Nodes, vae: VAE, z: str) -> str:
    """Decoder.start: h float32[m, H] from z."""
    inner, _, last = vae.decoder.deeper
    added: str = nodes(
        "Add",
        _linear(nodes, z, vae.decoder.first),
        _linear(nodes, nodes("Relu", _linear(nodes, z, inner)), last),
    )
    return added


def _linear(nodes: Nodes, x: str, layer: nn.Module) -> str:
    assert isinstance(layer, nn.Linear)
    made: str = nodes(
        "Gemm", x, nodes.constant(layer.weight.T.numpy()), nodes.constant(layer.bias.numpy())
    )
    return made


def _norm(nodes: Nodes, x: str, layer: nn.Module) -> str:
    assert isinstance(layer, nn.LayerNorm)
    weights = (nodes.constant(part.numpy()) for part in (layer.weight, layer.bias))
    made: str = nodes("LayerNormalization", x, *weights, axis=-1, epsilon=layer.eps)
    return made


def half_sum(nodes: Nodes, log_var: str) -> str:
    half = nodes("ReduceSum", log_var, nodes.axes(1), keepdims=0)
    made: str = nodes("Mul", half, nodes.constant(0.5, "float32"))
    return made

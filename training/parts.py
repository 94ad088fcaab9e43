"""The parts that graphs are made of, each named after the method of a torch module that it repeats node by node."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn

from training.exemplars import BEND, FAR, FLIP, Exemplars
from training.fit import VAE
from training.likelihoods import MASKED, Category, Likelihoods
from training.model import LOG_TWO_PI, Encoder, Residual
from training.nodes import Nodes, values
from training.numbers import SUBBINS
from training.prior import Mixture

UNROLLED = 100
"""Up to so many columns, each is a piece of graph of its own with its own number of codes. Wider tables are a Scan over padded
weights, as thousands of nodes take long to load."""
MANY, STRIPES = 1_500, 8
OUTWEIGHS = 2.0**15
"""A weight that 16 bits hold, whose square is larger than −MASKED."""
EXACT = 1e-6
"""Part of a value's last digit that is rounding, not value."""

Weights = dict[str, list[NDArray[np.generic]]]
"""By name, for each column."""
Step = Callable[[Nodes, str, Mapping[str, str]], tuple[str, str]]
"""From the running sum h and a column's weights and cells by name to the next h and the column's result."""


def exemplars_score(nodes: Nodes, vae: VAE, exemplars: Exemplars, batch: int) -> tuple[str, str]:
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


def encode(nodes: Nodes, vae: VAE) -> tuple[str, str]:
    """Likelihoods.encode: x int64[B, d] codes and log p(x | code) float64[B, d] from numbers and codes."""
    tables = vae.likelihoods
    if not tables.number_at:
        return "codes", nodes.constant(np.zeros((1, len(tables.columns))))
    x, one = cut(nodes, tables), nodes.constant(tables.integral.double().numpy())
    missing = nodes("IsNaN", x)
    first, last = nodes.constant(tables.first.numpy()), nodes.constant(tables.last.numpy())
    x = nodes("Where", missing, first, x)
    cell = _cell(nodes, x, tables.edges.numpy())
    known = nodes("Gather", nodes.constant(tables.cell_code.reshape(-1).numpy()), cell)
    codes = nodes("Where", missing, nodes.constant(tables.missing_code.numpy()), known)
    density = nodes("Gather", nodes.constant(tables.cell_log_density.reshape(-1).numpy()), cell)
    zero = nodes.constant(0.0)
    for beyond, rates in zip((nodes("Sub", first, x), nodes("Sub", x, last)), tables.rates.numpy().T, strict=True):
        outside = nodes("Greater", beyond, zero)
        distance = nodes("Where", outside, nodes("Sub", beyond, one), zero)
        density = nodes("Sub", density, nodes("Mul", distance, nodes.constant(rates)))
    density = nodes("Where", missing, zero, density)
    if not tables.category_at:
        return codes, density
    order = nodes.constant(np.argsort(tables.number_at + tables.category_at))
    none = nodes("Mul", nodes("Cast", "codes", to=TensorProto.DOUBLE), zero)
    x = nodes("Gather", nodes("Concat", codes, "codes", axis=1), order, axis=1)
    return x, nodes("Gather", nodes("Concat", density, none, axis=1), order, axis=1)


def cut(nodes: Nodes, tables: Likelihoods) -> str:
    """Likelihoods.cut: float64[B, …]."""
    x = "numbers"
    if any(tables.follows):
        of_fields = nodes("Gather", x, nodes.constant(tables.source.numpy()), axis=1)
        x = nodes("Sub", of_fields, nodes.constant(tables.origin.numpy()))
    if tables.integral.any():
        x = nodes("Div", x, nodes.constant(tables.unit.numpy()))
        x = nodes("Where", nodes.constant(tables.integral.numpy()), nodes("Floor", x), x)
    if any(tables.follows):
        times = nodes("Floor", nodes("Div", x, nodes.constant(tables.period.numpy())))
        x = nodes("Sub", x, nodes("Mul", times, nodes.constant(tables.period.nan_to_num(posinf=0.0).numpy())))
    return x


def _cell(nodes: Nodes, x: str, edges: NDArray[np.float64]) -> str:
    """Place of x float64[B, n] in flat tables of n rows."""
    n, width = edges.shape
    made: str = nodes("Add", _reached(nodes, x, edges), nodes.constant(np.arange(n, dtype=np.int64) * (width + 1)))
    return made


def _reached(nodes: Nodes, x: str, edges: NDArray[np.float64]) -> str:
    """How many edges [n, …] of its column are not above x float64[B, n], by halving: int64[B, n]."""
    n, width = edges.shape
    levels = width.bit_length()
    padded = np.full((n, 2**levels), np.inf)
    padded[:, :width] = edges
    flat = nodes.constant(padded.reshape(-1))
    own, zero = np.arange(n, dtype=np.int64) * 2**levels, nodes.constant(0, "int64")
    count: str = nodes("Mul", nodes("Cast", x, to=TensorProto.INT64), zero)
    for half in (2**level for level in reversed(range(levels))):
        edge = nodes("Gather", flat, nodes("Add", count, nodes.constant(own + half - 1)))
        reached = nodes("LessOrEqual", edge, x)
        count = nodes("Add", count, nodes("Where", reached, nodes.constant(half, "int64"), zero))
    return count


def encoder(nodes: Nodes, encoder: Encoder, seen: str) -> tuple[str, str]:
    """Encoder.forward: mu, log_var float32[B, L] from codes int64[B, d]."""
    embedding = encoder.embedding
    d = len(embedding.start)
    place = nodes("Add", seen, nodes.constant(embedding.start.numpy()))
    h = nodes("ReduceSum", nodes("Gather", nodes.constant(embedding.weight.numpy()), place, axis=0), nodes.axes(1), keepdims=0)
    h = nodes("Mul", h, nodes.constant(1 / math.sqrt(d), "float32"))
    for block in encoder.blocks:
        assert isinstance(block, Residual)
        norm, first, _, last = block.inner
        h = nodes("Add", h, _linear(nodes, nodes("Relu", _linear(nodes, _norm(nodes, h, norm), first)), last))
    both = _linear(nodes, _norm(nodes, h, encoder.norm), encoder.head)
    latent = encoder.head.out_features // 2
    bent = nodes("Tanh", nodes("Div", nodes.slice(both, latent, 2 * latent), nodes.constant(12, "float32")))
    return nodes.slice(both, 0, latent), nodes("Mul", bent, nodes.constant(12, "float32"))


def by_column(nodes: Nodes, tables: Likelihoods, terms: str) -> str:
    """Likelihoods.by_column."""
    if not any(tables.follows):
        return terms
    own = np.equal.outer(tables.column_of.numpy(), np.arange(len(tables.fitted)))
    made: str = nodes("MatMul", terms, nodes.constant(own.astype(np.float64)))
    return made


def log_prob(nodes: Nodes, vae: VAE, z: str, x: str, rows: int) -> str:
    """log p(code | x_<j, z) float32[m, d] for z float32[m, L] and x int64[m, d]: Decoder.forward and Likelihoods.log_prob."""
    likelihoods = vae.likelihoods

    def step(step: Nodes, h: str, of: Mapping[str, str]) -> tuple[str, str]:
        log_p = step("LogSoftmax", logits(step, h, of), axis=-1)
        chosen = step("GatherElements", log_p, step("Unsqueeze", of["x"], step.axes(1)), axis=1)
        return step("Add", h, step("Gather", of["embedding"], of["x"], axis=0)), step("Squeeze", chosen, step.axes(1))

    never = np.zeros(sum(likelihoods.sizes), np.float32)
    start = decoder_start(nodes, vae, z)
    learned = over_columns(nodes, step, start, decoder_weights(vae, never), {"x": x}, "float32", rows)
    place = nodes("Add", x, nodes.constant(likelihoods.start.numpy()))
    is_learned = nodes("Gather", nodes.constant(likelihoods.learned.numpy()), place)
    learned = nodes("Where", is_learned, learned, nodes.constant(0, "float32"))
    made: str = nodes("Add", learned, nodes("Gather", nodes.constant(likelihoods.log_mass.numpy()), place))
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
        "embedding": _padded(decoder.embedding.weight.split(rows), [width + 1 for width in widths(vae)]),
        "hidden": list(decoder.hidden.numpy()),
        "hidden_bias": list(decoder.hidden_bias[:, 0].numpy()),
        "out": [out.T.copy() for out in _padded(decoder.out.weight.split(sizes), widths(vae))],
        "out_bias": _padded((decoder.out_bias + Tensor(bias)).split(sizes), widths(vae), MASKED),
    }


def missing_together(nodes: Nodes, vae: VAE, h: str, weights: Weights, batch: int) -> tuple[str, Weights]:
    """h and weights with one hidden unit more for each column that is cut and may be missing: it stays 0 unless the first field
    is drawn as missing, and then outweighs all other codes of the fields that follow.
    """
    tables = vae.likelihoods
    may_miss = tables.column_of[tables.draws_missing].tolist()
    cut = [column for column, fields in enumerate(tables.fitted) if len(fields) > 1 and column in may_miss]
    if not cut:
        return h, weights
    more = (0, len(cut))
    edges = {"embedding": [(0, 0), more], "hidden": [more, more], "hidden_bias": [more], "out": [more, (0, 0)]}
    wider = {name: [np.pad(part, edges.get(name, 0)) for part in parts] for name, parts in weights.items()}
    for j, (column, follows) in enumerate(zip(tables.column_of.tolist(), tables.follows, strict=True)):
        if column in cut:
            unit, missing = wider["hidden"][j].shape[0] - len(cut) + cut.index(column), tables.sizes[j] - 1
            if follows:
                wider["out"][j][unit, missing], wider["out_bias"][j][missing] = OUTWEIGHS, MASKED
            else:
                wider["embedding"][j][missing, unit] = OUTWEIGHS
    return nodes("Concat", h, nodes.constant(np.zeros((batch, len(cut)), np.float32)), axis=1), wider


def masked(vae: VAE, code: Tensor) -> list[NDArray[np.generic]]:
    """For each column MASKED at its code int64[d] (nowhere where that is negative) and 0 elsewhere, as wide as its logits."""
    return [
        np.where(np.arange(width) == one, np.float32(MASKED), np.float32(0))
        for width, one in zip(widths(vae), code.tolist(), strict=True)
    ]


def _padded(parts: Sequence[Tensor], rows: Sequence[int], value: float = 0.0) -> list[NDArray[np.generic]]:
    edges = [((0, size - len(part)), *[(0, 0)] * (part.ndim - 1)) for part, size in zip(parts, rows, strict=True)]
    return [np.pad(part.numpy(), edge, constant_values=value) for part, edge in zip(parts, edges, strict=True)]


def over_columns(nodes: Nodes, step: Step, h: str, weights: Weights, cells: Mapping[str, str], result: str, rows: int) -> str:
    """`step` over the columns with their weights and cells ([m, d] each): the columns' results, [m, d]."""
    d = len(weights["out"])
    by_column = {name: nodes("Transpose", value, perm=[1, 0]) for name, value in cells.items()}
    if d > UNROLLED:
        return _scanned(nodes, step, h, weights, by_column, result, rows)
    results = []
    for j in range(d):
        of = {name: nodes.constant(weight[j]) for name, weight in weights.items()}
        of |= {name: nodes("Gather", value, nodes.constant(j, "int64"), axis=0) for name, value in by_column.items()}
        h, made = step(nodes, h, of)
        results.append(nodes("Unsqueeze", made, nodes.axes(1)))
    joined: str = nodes("Concat", *results, axis=1)
    return joined


def _scanned(nodes: Nodes, step: Step, h: str, weights: Weights, cells: Mapping[str, str], result: str, rows: int) -> str:
    body = Nodes("step_")
    h_next, made = step(body, "step_h", {name: f"step_{name}" for name in (*weights, *cells)})
    body.name(h_next, "step_h_next")
    body.name(made, "step_result")
    stacked = {name: np.stack(weight) for name, weight in weights.items()}
    width = stacked["hidden"].shape[-1]
    kinds = {"x": "int64", "keep": "bool", "u": "float32"}
    inputs: dict[str, tuple[str, list[int]]] = {"step_h": ("float32", [rows, width])}
    inputs |= {f"step_{name}": ("float32", list(weight.shape[1:])) for name, weight in stacked.items()}
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
        "Add", _linear(nodes, z, vae.decoder.first), _linear(nodes, nodes("Relu", _linear(nodes, z, inner)), last)
    )
    return added


def mixture_log_prob(nodes: Nodes, prior: Mixture, z: str) -> str:
    """Mixture.log_prob: float32[m] for z float32[m, L]."""
    both = nodes("Concat", nodes("Mul", z, z), z, axis=1)
    joint = nodes("Gemm", both, nodes.constant(prior.quadratic.T.numpy()), nodes.constant(prior.constant.numpy()))
    top = nodes("ReduceMax", joint, nodes.axes(1), keepdims=1)
    rest = nodes("ReduceSum", nodes("Exp", nodes("Sub", joint, top)), nodes.axes(1), keepdims=1)
    made: str = nodes("Add", top, nodes("Log", rest))
    return made


def picked(nodes: Nodes, u: str, upto: str) -> str:
    """int64[B]: the places of u [B, 1] among the sums `upto` [1 or B, C - 1] of C weights, without the last."""
    below = nodes("Cast", nodes("GreaterOrEqual", u, upto), to=TensorProto.FLOAT)
    made: str = nodes("Cast", nodes("ReduceSum", below, nodes.axes(1), keepdims=0), to=TensorProto.INT64)
    return made


def between(nodes: Nodes, prior: Mixture, batch: int) -> tuple[str, str]:
    """Mixture.between: mean and standard deviation float32[B, L] of the component that the first uniform number picks."""
    a = nodes("Cast", nodes("Sub", nodes.constant(1.0), "spread"), to=TensorProto.FLOAT)
    s = nodes("Cast", "spread", to=TensorProto.FLOAT)
    var = nodes("Exp", "log_var")
    s_var = nodes("Mul", s, var)
    weights = nodes("Cast", _weights(nodes, prior, a, s, s_var, batch), to=TensorProto.DOUBLE)
    upto, last = nodes("CumSum", weights, nodes.constant(1, "int64")), len(prior.weight) - 1
    u = nodes("Mul", nodes.slice("u", 0, 1), nodes.slice(upto, last, last + 1))
    component = picked(nodes, u, nodes.slice(upto, 0, last))
    m, v = (nodes("Gather", nodes.constant(value.numpy()), component, axis=0) for value in (prior.mean, prior.variance))
    t = nodes("Add", nodes("Mul", a, v), s_var)
    step = nodes("Mul", nodes("Div", s_var, t), nodes("Sub", m, "mu"))
    return nodes("Add", "mu", step), nodes("Sqrt", nodes("Div", nodes("Mul", var, v), t))


def _weights(nodes: Nodes, prior: Mixture, a: str, s: str, s_var: str, batch: int) -> str:
    """The components' weights float32[B, C] over the largest of each row.

    A Scan over the latent variables: arrays [B, C] stay in the processor's cache, [B, C, L] would not. Logarithms cost most, so
    the variances t, 1e-6 to some 1e5 each, are multiplied up first; a double holds that for 16 latent variables and more.
    """
    shape = [batch, len(prior.weight)]
    body = Nodes("latent_")
    t = body("Add", "latent_v", body("Unsqueeze", "latent_var", body.axes(1)))
    off = body("Sub", "latent_m", body("Unsqueeze", "latent_mu", body.axes(1)))
    body.name(body("Add", "latent_cost", body("Div", body("Mul", off, off), t)), "latent_cost_next")
    body.name(body("Mul", "latent_product", body("Cast", t, to=TensorProto.DOUBLE)), "latent_product_next")
    inputs = {"latent_cost": ("float32", shape), "latent_product": ("float64", shape)}
    inputs |= {f"latent_{name}": ("float32", shape[1:]) for name in ("m", "v")}
    inputs |= {f"latent_{name}": ("float32", shape[:1]) for name in ("mu", "var")}
    outputs = {"latent_cost_next": ("float32", shape), "latent_product_next": ("float64", shape)}
    graph = helper.make_graph(body.nodes, "latent", values(inputs), values(outputs), body.constants)
    start = (
        nodes("Expand", nodes.constant(*value), nodes.constant(shape, "int64")) for value in ((0, "float32"), (1, "float64"))
    )
    root = nodes("Sqrt", nodes("Mul", a, s))
    m = nodes("Mul", root, nodes.constant(prior.mean.T.numpy()))
    v = nodes("Mul", a, nodes.constant(prior.variance.T.numpy()))
    mu, var = (nodes("Transpose", value, perm=[1, 0]) for value in (nodes("Mul", root, "mu"), s_var))
    cost, product = nodes("Scan", *start, m, v, mu, var, outputs=2, body=graph, num_scan_inputs=4)
    cost = nodes("Add", cost, nodes("Cast", nodes("Log", product), to=TensorProto.FLOAT))
    of_prior = nodes("Mul", a, nodes.constant(0.5 * prior.variance.log().sum(1).numpy()))
    of_prior = nodes("Add", of_prior, nodes.constant(prior.weight.log().numpy()))
    log_weight = nodes("Sub", of_prior, nodes("Mul", cost, nodes.constant(0.5, "float32")))
    made: str = nodes("Exp", nodes("Sub", log_weight, nodes("ReduceMax", log_weight, nodes.axes(1), keepdims=1)))
    return made


def values_of_codes(nodes: Nodes, cells: str, vae: VAE, d: int) -> str:
    """Numbers float64[B, …] from their codes: a uniform number through the piecewise linear quantile function of the code.

    A datetime's fields are added up.
    """
    tables, n = vae.likelihoods, len(vae.likelihoods.fitted_numbers)
    k = max(tables.sizes)
    knots, last = np.zeros((n, k, SUBBINS + 1)), np.zeros((n, k))
    for i, number in enumerate(tables.fitted_numbers):
        first, end = number.knots[:, 0], number.knots[:, -1]
        knots[i, : number.known] = number.knots
        last[i, : number.known] = np.where(first == end, first, np.nextafter(end, -np.inf))
    u = nodes("Where", "mode", nodes.constant(0.5), nodes.slice("u", d, d + n))
    place = nodes("Mul", u, nodes.constant(float(SUBBINS)))
    part = nodes("Floor", place)
    row = nodes("Add", cells, nodes.constant(np.arange(n, dtype=np.int64) * k))
    at = nodes("Add", nodes("Mul", row, nodes.constant(SUBBINS + 1, "int64")), nodes("Cast", part, to=TensorProto.INT64))
    flat = nodes.constant(knots.reshape(-1))
    low = nodes("Gather", flat, at)
    high = nodes("Gather", flat, nodes("Add", at, nodes.constant(1, "int64")))
    value = nodes("Add", low, nodes("Mul", nodes("Sub", place, part), nodes("Sub", high, low)))
    value = nodes("Min", value, nodes("Gather", nodes.constant(last.reshape(-1)), row))  # rounding may reach the next code
    digits = tables.decimals.numpy()
    ten = nodes.constant(10.0 ** np.maximum(digits, 0))
    cut = nodes("Div", nodes("Floor", nodes("Add", nodes("Mul", value, ten), nodes.constant(EXACT))), ten)
    if (tables.grid > 1).any():
        above = nodes("Sub", cut, nodes.constant(tables.first.numpy()))
        on_grid = nodes("Sub", cut, nodes("Mod", above, nodes.constant(tables.grid.numpy()), fmod=1))
        cut = nodes("Where", nodes.constant(tables.grid.numpy() > 1), on_grid, cut)
    whole = nodes("Where", nodes.constant(tables.integral.numpy() | (digits >= 0)), cut, value)
    scaled = nodes("Mul", whole, nodes.constant(tables.unit.numpy()))
    missing = nodes("Equal", cells, nodes.constant(tables.missing_code.numpy()))
    if any(tables.follows):
        scaled, missing = _together(nodes, tables, scaled, missing)
    made: str = nodes("Where", missing, nodes.constant(np.nan), scaled)
    return made


def _together(nodes: Nodes, tables: Likelihoods, scaled: str, missing: str) -> tuple[str, str]:
    """Number columns, and which of them are missing, from their fields: what a cut took apart is added up."""
    own = np.equal.outer(tables.source.numpy(), np.arange(len(tables.schema.numbers)))
    first = own.argmax(0)
    total = nodes("MatMul", scaled, nodes.constant(own.astype(np.float64)))
    origin = nodes.constant(tables.origin.numpy()[first])
    return nodes("Add", total, origin), nodes("Gather", missing, nodes.constant(first), axis=1)


def with_rarer(nodes: Nodes, codes: str, vae: VAE, u: str) -> str:
    """Codes int64[B, …] of categories with a rarer one, by its share, in the place of each `other`; u float64[B, …]."""
    columns = [column for column in vae.likelihoods.columns if isinstance(column, Category)]
    edges = np.full((len(columns), max(len(column.rarer) for column in columns)), np.inf)
    for i, column in enumerate(columns):
        edges[i, : len(column.rarer)] = np.cumsum(column.rarer) / max(1, column.rarer.sum())
        edges[i, max(0, len(column.rarer) - 1) :] = np.inf
    other = vae.likelihoods.other[vae.likelihoods.category_at].numpy()
    rarer = nodes("Add", _reached(nodes, u, edges), nodes.constant(other + 2))
    made: str = nodes("Where", nodes("Equal", codes, nodes.constant(other)), rarer, codes)
    return made


def normals(nodes: Nodes, u: str, latent: int) -> str:
    """Normal numbers float32[B, L] from the uniform numbers after the first (Box & Muller 1958)."""
    pairs = (latent + 1) // 2
    radius_u = nodes.slice(u, 1, 1 + pairs)
    angle_u = nodes.slice(u, 1 + pairs, 1 + 2 * pairs)
    log = nodes("Log", nodes("Sub", nodes.constant(1.0), radius_u))
    radius = nodes("Sqrt", nodes("Mul", log, nodes.constant(-2.0)))
    angle = nodes("Mul", angle_u, nodes.constant(2 * np.pi))
    both = nodes("Concat", *(nodes("Mul", radius, nodes(wave, angle)) for wave in ("Cos", "Sin")), axis=1)
    made: str = nodes("Cast", nodes.slice(both, 0, latent), to=TensorProto.FLOAT)
    return made


def _linear(nodes: Nodes, x: str, layer: nn.Module) -> str:
    assert isinstance(layer, nn.Linear)
    made: str = nodes("Gemm", x, nodes.constant(layer.weight.T.numpy()), nodes.constant(layer.bias.numpy()))
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

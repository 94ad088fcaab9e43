"""The ONNX graphs of a fitted VAE: score, posterior, spread, prior and generate. Noise is data: no
graph holds a random node.

They are built node by node, and export compares them with torch on real rows. Exporters trace in
minutes what is built here in a moment, and pad all columns to the widest.
"""

from collections.abc import Mapping

import numpy as np
import onnx
import torch
from onnx import TensorProto

from training.fit import VAE
from training.model import LOG_TWO_PI
from training.nodes import Nodes
from training.parts import codes, exemplars, networks, priors
from training.prior import Mixture

NEAR_ONE = np.float32(1 - 2**-18)
"""Uniform numbers are scaled by it, so that a sum of probabilities that rounding left below 1 is
still reached."""
SHARP = np.float32(1e4)
"""Logits times this are the mode's: a softmax with nearly all mass at the largest."""


def batch_for(vae: VAE) -> int:
    """Rows of the one fixed batch: a power of two from 16 to 256 whose activations stay near 16
    MiB.

    Those are all columns' logits and hidden units or, where a Scan has those of one column at a
    time, the encoder's embeddings.
    """
    d, logits = len(vae.likelihoods.columns), sum(vae.likelihoods.sizes)
    of_decoder = len(vae.eps) * (logits + 4 * d * vae.decoder.hidden.shape[-1])
    bytes_per_row = 4 * (
        of_decoder if d <= networks.UNROLLED else d * vae.encoder.embedding.weight.shape[1]
    )
    return int(2 ** np.clip(np.floor(np.log2(2**24 / bytes_per_row)), 4, 8))


def draws_for(vae: VAE) -> dict[str, int]:
    """Uniform numbers of a row: z takes one for the mixture's component and two for each pair of
    normals."""
    latent = vae.eps.shape[1]
    likelihoods = vae.likelihoods
    named = len(likelihoods.category_at) if likelihoods.has_rarer else 0
    return {
        "z": 1 + 2 * ((latent + 1) // 2),
        "x": len(likelihoods.columns) + len(likelihoods.number_at) + named,
    }


def build(vae: VAE, batch: int) -> dict[str, onnx.ModelProto]:
    """The graphs by name, for batches of exactly `batch` rows."""
    graphs = {
        "score": _score(vae, batch),
        "posterior": _posterior(vae, batch),
        "spread": _spread(vae, batch),
        "prior": _prior(vae, batch),
        "generate": _generate(vae, batch),
    }
    for model in graphs.values():
        onnx.checker.check_model(model)
    return graphs


def _score(vae: VAE, batch: int) -> onnx.ModelProto:
    """numbers, codes → nelbo float64[B], terms float64[B, d_t], kl float64[B]: fit.score."""
    nodes = Nodes()
    members = []
    if vae.share < 1:
        members.append((1 - vae.share, _vae_score(nodes, vae, batch)))
    if vae.exemplars is not None:
        members.append((vae.share, exemplars.score(nodes, vae, vae.exemplars, batch)))
    terms, kl = (
        nodes("Sum", *(nodes("Mul", part[i], nodes.constant(weight)) for weight, part in members))
        for i in range(2)
    )
    nodes.name(codes.by_column(nodes, vae.likelihoods, terms), "terms")
    nodes.name(kl, "kl")
    nodes.name(nodes("Add", nodes("ReduceSum", "terms", nodes.axes(1), keepdims=0), "kl"), "nelbo")
    d_t = len(vae.likelihoods.fitted)
    outputs = {
        "nelbo": ("float64", [batch]),
        "terms": ("float64", [batch, d_t]),
        "kl": ("float64", [batch]),
    }
    return nodes.model(_rows(vae, batch), outputs)


def _vae_score(nodes: Nodes, vae: VAE, batch: int) -> tuple[str, str]:
    """VAE.score: terms float64[B, d] and kl float64[B]."""
    points, d = len(vae.eps), len(vae.likelihoods.columns)
    x, log_density = codes.encode(nodes, vae)
    mu, log_var = networks.encoder(nodes, vae.encoder, x)
    sigma = nodes("Exp", nodes("Mul", log_var, nodes.constant(0.5, "float32")))
    eps = nodes.constant(np.repeat(vae.eps.numpy(), batch, axis=0))
    many = nodes.constant([points, 1], "int64")
    z = nodes("Add", nodes("Tile", mu, many), nodes("Mul", nodes("Tile", sigma, many), eps))
    log_p_x = nodes(
        "Cast",
        networks.log_prob(nodes, vae, z, nodes("Tile", x, many), batch * points),
        to=TensorProto.DOUBLE,
    )
    by_point = nodes("Reshape", log_p_x, nodes.constant([points, batch, d], "int64"))
    terms = nodes(
        "Neg", nodes("Add", nodes("ReduceMean", by_point, nodes.axes(0), keepdims=0), log_density)
    )
    of_noise = nodes.constant(-0.5 * (vae.eps.square() + LOG_TWO_PI).sum(1).mean().numpy())
    log_q = nodes("Sub", of_noise, networks.half_sum(nodes, log_var))
    assert isinstance(vae.prior, Mixture), "the prior is fitted before export"
    log_p_z = nodes(
        "Reshape", priors.log_prob(nodes, vae.prior, z), nodes.constant([points, batch], "int64")
    )
    kl = nodes("Sub", log_q, nodes("ReduceMean", log_p_z, nodes.axes(0), keepdims=0))
    return terms, nodes("Cast", kl, to=TensorProto.DOUBLE)


def _posterior(vae: VAE, batch: int) -> onnx.ModelProto:
    """numbers, codes, observed, u float64[B, draws z], mode bool[1] → z ~ q(z | observed cells)
    (its mean if mode), x codes, mu and log_var of q.
    """
    nodes, latent, d = Nodes(), vae.eps.shape[1], len(vae.likelihoods.columns)
    x, _ = codes.encode(nodes, vae)
    seen = nodes(
        "Where",
        _of_fields(nodes, vae, "observed"),
        x,
        nodes.constant(vae.likelihoods.hidden.numpy()),
    )
    mu, log_var = networks.encoder(nodes, vae.encoder, seen)
    sigma = nodes("Exp", nodes("Mul", log_var, nodes.constant(0.5, "float32")))
    noise = nodes("Where", "mode", nodes.constant(0, "float32"), priors.normals(nodes, "u", latent))
    nodes.name(nodes("Add", mu, nodes("Mul", sigma, noise)), "z")
    nodes.name(x, "x")
    nodes.name(mu, "mu")
    nodes.name(log_var, "log_var")
    inputs = _rows(vae, batch) | {
        "observed": ("bool", [batch, len(vae.likelihoods.fitted)]),
        "u": ("float64", [batch, draws_for(vae)["z"]]),
        "mode": ("bool", [1]),
    }
    of_latent = ("float32", [batch, latent])
    return nodes.model(
        inputs, {"z": of_latent, "x": ("int64", [batch, d]), "mu": of_latent, "log_var": of_latent}
    )


def _spread(vae: VAE, batch: int) -> onnx.ModelProto:
    """mu, log_var of q(z|x), u float64[B, draws z], spread float64[1] → z from Mixture.between: as
    _prior draws from p(z)."""
    assert isinstance(vae.prior, Mixture), "the prior is fitted before export"
    latent, nodes = vae.eps.shape[1], Nodes()
    mean, sigma = priors.between(nodes, vae.prior, batch)
    nodes.name(nodes("Add", mean, nodes("Mul", sigma, priors.normals(nodes, "u", latent))), "z")
    of_latent = ("float32", [batch, latent])
    inputs = {"mu": of_latent, "log_var": of_latent, "u": ("float64", [batch, draws_for(vae)["z"]])}
    return nodes.model(inputs | {"spread": ("float64", [1])}, {"z": of_latent})


def _prior(vae: VAE, batch: int) -> onnx.ModelProto:
    """u float64[B, draws z] → z from the mixture: a component by the first number, then its
    Gaussian."""
    assert isinstance(vae.prior, Mixture), "the prior is fitted before export"
    latent, nodes = vae.eps.shape[1], Nodes()
    upto = np.cumsum(vae.prior.weight.double().numpy())
    component = priors.picked(nodes, nodes.slice("u", 0, 1), nodes.constant(upto[None, :-1]))
    mean = nodes("Gather", nodes.constant(vae.prior.mean.numpy()), component, axis=0)
    sigma = nodes("Gather", nodes.constant(vae.prior.variance.sqrt().numpy()), component, axis=0)
    nodes.name(nodes("Add", mean, nodes("Mul", sigma, priors.normals(nodes, "u", latent))), "z")
    return nodes.model(
        {"u": ("float64", [batch, draws_for(vae)["z"]])}, {"z": ("float32", [batch, latent])}
    )


def _generate(vae: VAE, batch: int) -> onnx.ModelProto:
    """z, x int64[B, d] codes, keep bool[B, d_t], u float64[B, draws x], mode, fill → numbers, codes
    from p(x|z), kept x given.

    With `fill`, a cell that may be drawn as missing is drawn from what else it may be.
    """
    likelihoods, nodes = vae.likelihoods, Nodes()
    d = len(likelihoods.columns)
    u = nodes("Cast", nodes.slice("u", 0, d), to=TensorProto.FLOAT)
    cells = {
        "x": "x",
        "keep": _of_fields(nodes, vae, "keep"),
        "u": nodes("Mul", u, nodes.constant(NEAR_ONE)),
    }
    sharpness = nodes("Where", "mode", nodes.constant(SHARP), nodes.constant(1, "float32"))

    def draw(step: Nodes, h: str, of: Mapping[str, str]) -> tuple[str, str]:
        bias = of["out_bias"]
        for never, switch in switches.items():
            bias = step("Add", bias, step("Mul", of[never], switch))
        p = step(
            "Softmax",
            step("Mul", networks.logits(step, h, {**of, "out_bias": bias}), sharpness),
            axis=-1,
        )
        upto = step.slice(step("CumSum", p, step.constant(1, "int64")), 0, -1)
        below = step(
            "Cast",
            step("LessOrEqual", upto, step("Unsqueeze", of["u"], step.axes(1))),
            to=TensorProto.FLOAT,
        )
        drawn = step(
            "Cast", step("ReduceSum", below, step.axes(1), keepdims=0), to=TensorProto.INT64
        )
        code = step("Where", of["keep"], of["x"], drawn)
        return step("Add", h, step("Gather", of["embedding"], code, axis=0)), code

    weights, switches = networks.decoder_weights(vae, likelihoods.drawn.numpy()), dict[str, str]()
    if likelihoods.has_rarer:  # many rarer categories together are never the most probable value
        weights["no_other"] = networks.masked(vae, likelihoods.other)
        switches["no_other"] = nodes("Cast", "mode", to=TensorProto.FLOAT)
    if likelihoods.draws_missing.any():
        weights["no_missing"] = networks.masked(
            vae, torch.where(likelihoods.draws_missing, likelihoods.other + 1, -1)
        )
        switches["no_missing"] = nodes("Cast", "fill", to=TensorProto.FLOAT)
    h, weights = networks.missing_together(
        nodes, vae, networks.decoder_start(nodes, vae, "z"), weights, batch
    )
    made = networks.over_columns(nodes, draw, h, weights, cells, "int64", batch)
    numbers, categories = (
        nodes("Gather", made, nodes.constant(np.array(at, dtype=np.int64)), axis=1)
        for at in (likelihoods.number_at, likelihoods.category_at)
    )
    if likelihoods.has_rarer:
        first = d + len(likelihoods.number_at)
        categories = codes.with_rarer(
            nodes, categories, vae, nodes.slice("u", first, first + len(likelihoods.category_at))
        )
    none = nodes("Cast", numbers, to=TensorProto.DOUBLE)
    nodes.name(codes.values(nodes, numbers, vae, d) if likelihoods.number_at else none, "numbers")
    nodes.name(categories, "codes")
    inputs = {
        "z": ("float32", [batch, vae.eps.shape[1]]),
        "x": ("int64", [batch, d]),
        "keep": ("bool", [batch, len(likelihoods.fitted)]),
        "u": ("float64", [batch, draws_for(vae)["x"]]),
        "mode": ("bool", [1]),
        "fill": ("bool", [1]),
    }
    return nodes.model(inputs, _rows(vae, batch))


def _of_fields(nodes: Nodes, vae: VAE, cells: str) -> str:
    """bool[B, d] from bool[B, d_t]: what is so of a cell is so of all its fields."""
    if not any(vae.likelihoods.follows):
        return cells
    made: str = nodes("Gather", cells, nodes.constant(vae.likelihoods.column_of.numpy()), axis=1)
    return made


def _rows(vae: VAE, batch: int) -> dict[str, tuple[str, list[int]]]:
    """Encoded rows, as they come in and go out."""
    schema = vae.likelihoods.schema
    number, category = len(schema.numbers), len(schema.categoricals)
    return {"numbers": ("float64", [batch, number]), "codes": ("int64", [batch, category])}

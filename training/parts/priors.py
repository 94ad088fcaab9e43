"""The prior node by node: Mixture's density, its draws, and what lies between it and q(z|x)."""

import numpy as np
from onnx import TensorProto, helper

from training.nodes import Nodes, values
from training.prior import Mixture


def log_prob(nodes: Nodes, prior: Mixture, z: str) -> str:
    """Mixture.log_prob: float32[m] for z float32[m, L]."""
    both = nodes("Concat", nodes("Mul", z, z), z, axis=1)
    joint = nodes(
        "Gemm",
        both,
        nodes.constant(prior.quadratic.T.numpy()),
        nodes.constant(prior.constant.numpy()),
    )
    top = nodes("ReduceMax", joint, nodes.axes(1), keepdims=1)
    rest = nodes("ReduceSum", nodes("Exp", nodes("Sub", joint, top)), nodes.axes(1), keepdims=1)
    made: str = nodes("Add", top, nodes("Log", rest))
    return made


def picked(nodes: Nodes, u: str, upto: str) -> str:
    """int64[B]: the places of u [B, 1] among the sums `upto` [1 or B, C - 1] of C weights, without
    the last."""
    below = nodes("Cast", nodes("GreaterOrEqual", u, upto), to=TensorProto.FLOAT)
    made: str = nodes(
        "Cast", nodes("ReduceSum", below, nodes.axes(1), keepdims=0), to=TensorProto.INT64
    )
    return made


def between(nodes: Nodes, prior: Mixture, batch: int) -> tuple[str, str]:
    """Mixture.between: mean and standard deviation float32[B, L] of the component that the first
    uniform number picks."""
    a = nodes("Cast", nodes("Sub", nodes.constant(1.0), "spread"), to=TensorProto.FLOAT)
    s = nodes("Cast", "spread", to=TensorProto.FLOAT)
    var = nodes("Exp", "log_var")
    s_var = nodes("Mul", s, var)
    weights = nodes("Cast", _weights(nodes, prior, a, s, s_var, batch), to=TensorProto.DOUBLE)
    upto, last = nodes("CumSum", weights, nodes.constant(1, "int64")), len(prior.weight) - 1
    u = nodes("Mul", nodes.slice("u", 0, 1), nodes.slice(upto, last, last + 1))
    component = picked(nodes, u, nodes.slice(upto, 0, last))
    m, v = (
        nodes("Gather", nodes.constant(value.numpy()), component, axis=0)
        for value in (prior.mean, prior.variance)
    )
    t = nodes("Add", nodes("Mul", a, v), s_var)
    step = nodes("Mul", nodes("Div", s_var, t), nodes("Sub", m, "mu"))
    return nodes("Add", "mu", step), nodes("Sqrt", nodes("Div", nodes("Mul", var, v), t))


def _weights(nodes: Nodes, prior: Mixture, a: str, s: str, s_var: str, batch: int) -> str:
    """The components' weights float32[B, C] over the largest of each row.

    A Scan over the latent variables: arrays [B, C] stay in the processor's cache, [B, C, L] would
    not. Logarithms cost most, so the variances t, 1e-6 to some 1e5 each, are multiplied up first; a
    double holds that for 16 latent variables and more.
    """
    shape = [batch, len(prior.weight)]
    body = Nodes("latent_")
    t = body("Add", "latent_v", body("Unsqueeze", "latent_var", body.axes(1)))
    off = body("Sub", "latent_m", body("Unsqueeze", "latent_mu", body.axes(1)))
    body.name(body("Add", "latent_cost", body("Div", body("Mul", off, off), t)), "latent_cost_next")
    body.name(
        body("Mul", "latent_product", body("Cast", t, to=TensorProto.DOUBLE)), "latent_product_next"
    )
    inputs = {"latent_cost": ("float32", shape), "latent_product": ("float64", shape)}
    inputs |= {f"latent_{name}": ("float32", shape[1:]) for name in ("m", "v")}
    inputs |= {f"latent_{name}": ("float32", shape[:1]) for name in ("mu", "var")}
    outputs = {"latent_cost_next": ("float32", shape), "latent_product_next": ("float64", shape)}
    graph = helper.make_graph(body.nodes, "latent", values(inputs), values(outputs), body.constants)
    start = (
        nodes("Expand", nodes.constant(*value), nodes.constant(shape, "int64"))
        for value in ((0, "float32"), (1, "float64"))
    )
    root = nodes("Sqrt", nodes("Mul", a, s))
    m = nodes("Mul", root, nodes.constant(prior.mean.T.numpy()))
    v = nodes("Mul", a, nodes.constant(prior.variance.T.numpy()))
    mu, var = (
        nodes("Transpose", value, perm=[1, 0]) for value in (nodes("Mul", root, "mu"), s_var)
    )
    cost, product = nodes("Scan", *start, m, v, mu, var, outputs=2, body=graph, num_scan_inputs=4)
    cost = nodes("Add", cost, nodes("Cast", nodes("Log", product), to=TensorProto.FLOAT))
    of_prior = nodes("Mul", a, nodes.constant(0.5 * prior.variance.log().sum(1).numpy()))
    of_prior = nodes("Add", of_prior, nodes.constant(prior.weight.log().numpy()))
    log_weight = nodes("Sub", of_prior, nodes("Mul", cost, nodes.constant(0.5, "float32")))
    made: str = nodes(
        "Exp", nodes("Sub", log_weight, nodes("ReduceMax", log_weight, nodes.axes(1), keepdims=1))
    )
    return made


def normals(nodes: Nodes, u: str, latent: int) -> str:
    """Normal numbers float32[B, L] from the uniform numbers after the first (Box & Muller 1958)."""
    pairs = (latent + 1) // 2
    radius_u = nodes.slice(u, 1, 1 + pairs)
    angle_u = nodes.slice(u, 1 + pairs, 1 + 2 * pairs)
    log = nodes("Log", nodes("Sub", nodes.constant(1.0), radius_u))
    radius = nodes("Sqrt", nodes("Mul", log, nodes.constant(-2.0)))
    angle = nodes("Mul", angle_u, nodes.constant(2 * np.pi))
    both = nodes(
        "Concat", *(nodes("Mul", radius, nodes(wave, angle)) for wave in ("Cos", "Sin")), axis=1
    )
    made: str = nodes("Cast", nodes.slice(both, 0, latent), to=TensorProto.FLOAT)
    return made

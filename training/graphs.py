"""The four ONNX graphs of a fitted VAE: score, posterior, prior and generate. Noise is data: no graph holds a random node.

The score and the posterior are traced from the torch model itself, so that no formula stands twice. Sampling is a Scan over the
columns, built node by node: torch never samples, and an unrolled export of it takes minutes on wide tables.
"""

import contextlib
import io
import logging
import warnings

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from training.fit import VAE
from training.likelihoods import MASKED, SUBBINS
from training.nodes import OPSET, Nodes, values
from training.prior import Mixture

BELOW_ONE = np.float32(1 - 2**-24)


def batch_for(vae: VAE) -> int:
    """Rows of the one fixed batch: a power of two from 16 to 256 whose activations stay near 16 MiB."""
    d, k = len(vae.likelihoods.columns), vae.likelihoods.codes
    bytes_per_row = 4 * len(vae.eps) * d * (2 * vae.decoder.hidden.shape[-1] + 2 * k)
    return int(2 ** np.clip(np.floor(np.log2(2**24 / bytes_per_row)), 4, 8))


def draws_for(vae: VAE) -> dict[str, int]:
    """Uniform numbers of a row: z takes one for the mixture's component and two for each pair of normals."""
    latent = vae.eps.shape[1]
    return {"z": 1 + 2 * ((latent + 1) // 2), "x": len(vae.likelihoods.columns) + len(vae.likelihoods.number_at)}


def build(vae: VAE, batch: int) -> dict[str, onnx.ModelProto]:
    """The graphs by name, for batches of exactly `batch` rows."""
    traced = _trace(vae, batch)
    graphs = {
        "score": _score(traced),
        "posterior": _posterior(traced, vae, batch),
        "prior": _prior(vae, batch),
        "generate": _generate(vae, batch),
    }
    for model in graphs.values():
        _strip(model)
        onnx.checker.check_model(model)
    return graphs


class _Traced(nn.Module):
    """What is traced: numbers float64[B, …], codes int64[B, …], observed bool[B, d] → nelbo, terms, kl, mu, sigma, x."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, numbers: Tensor, codes: Tensor, observed: Tensor) -> tuple[Tensor, ...]:
        x, log_density = self.vae.likelihoods.encode(numbers, codes)
        seen = torch.where(observed, x, self.vae.likelihoods.other)
        mu, log_var = self.vae.encoder(seen)
        terms, kl = self.vae.score(x, log_density, seen)
        return terms.sum(1) + kl, terms, kl, mu, torch.exp(0.5 * log_var), x


def _trace(vae: VAE, batch: int) -> onnx.ModelProto:
    schema = vae.likelihoods.schema
    example = (
        torch.zeros(batch, len(schema.numbers), dtype=torch.float64),
        torch.zeros(batch, len(schema.categoricals), dtype=torch.int64),
        torch.ones(batch, len(schema.modelled), dtype=torch.bool),
    )
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # torch's own exporter warns of its own internals
        program = torch.onnx.export(
            _Traced(vae).eval(),
            example,
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            verbose=False,
            input_names=["numbers", "codes", "observed"],
            output_names=["nelbo", "terms", "kl", "mu", "sigma", "x"],
        )
    assert program is not None, "torch.onnx.export returns a program when dynamo is on"
    return program.model_proto


def _score(traced: onnx.ModelProto) -> onnx.ModelProto:
    """numbers, codes → nelbo, terms, kl: every cell is observed."""
    model = onnx.utils.Extractor(traced).extract_model(["numbers", "codes", "observed"], ["nelbo", "terms", "kl"])
    (observed,) = (value for value in model.graph.input if value.name == "observed")
    shape = [size.dim_value for size in observed.type.tensor_type.shape.dim]
    model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, dtype=np.bool_), "observed"))
    model.graph.input.remove(observed)
    return model


def _posterior(traced: onnx.ModelProto, vae: VAE, batch: int) -> onnx.ModelProto:
    """numbers, codes, observed, u float64[B, draws z], mode bool[1] → z ~ q(z | observed cells) (its mean if mode), x codes."""
    model = onnx.utils.Extractor(traced).extract_model(["numbers", "codes", "observed"], ["mu", "sigma", "x"])
    latent, nodes = vae.eps.shape[1], Nodes("z_")
    noise = nodes("Where", "mode", nodes.constant(0, "float32"), _normals(nodes, "u", latent))
    scaled = nodes("Add", "mu", nodes("Mul", "sigma", noise))
    nodes.name(scaled, "z")
    model.graph.node.extend(nodes.nodes)
    model.graph.initializer.extend(nodes.constants)
    model.graph.input.extend(values({"u": ("float64", [batch, draws_for(vae)["z"]]), "mode": ("bool", [1])}))
    kept = [value for value in model.graph.output if value.name == "x"]
    del model.graph.output[:]
    model.graph.output.extend([*values({"z": ("float32", [batch, latent])}), *kept])
    return model


def _prior(vae: VAE, batch: int) -> onnx.ModelProto:
    """u float64[B, draws z] → z from the mixture: a component by the first number, then its Gaussian."""
    assert isinstance(vae.prior, Mixture), "the prior is fitted before export"
    latent, nodes = vae.eps.shape[1], Nodes()
    upto = np.cumsum(vae.prior.weight.double().numpy())
    pick = nodes.slice("u", 0, 1)
    below = nodes("Cast", nodes("GreaterOrEqual", pick, nodes.constant(upto[None, :-1])), to=TensorProto.INT64)
    component = nodes("ReduceSum", below, nodes.constant([1], "int64"), keepdims=0)
    mean = nodes("Gather", nodes.constant(vae.prior.mean.numpy()), component, axis=0)
    factor = nodes("Gather", nodes.constant(vae.prior.factor.numpy()), component, axis=0)
    column = nodes("Unsqueeze", _normals(nodes, "u", latent), nodes.constant([2], "int64"))
    moved = nodes("Squeeze", nodes("MatMul", factor, column), nodes.constant([2], "int64"))
    nodes.nodes.append(helper.make_node("Add", [mean, moved], ["z"]))
    return nodes.model({"u": ("float64", [batch, draws_for(vae)["z"]])}, {"z": ("float32", [batch, latent])})


def _generate(vae: VAE, batch: int) -> onnx.ModelProto:
    """z, x int64[B, d] codes, keep bool[B, d], u float64[B, draws x], mode → numbers, codes drawn from p(x|z), kept x given."""
    schema, d, nodes = vae.likelihoods.schema, len(vae.likelihoods.columns), Nodes()
    uniform = nodes("Cast", nodes.slice("u", 0, d), to=TensorProto.FLOAT)
    below_one = nodes("Min", uniform, nodes.constant(BELOW_ONE))
    columns = [nodes("Transpose", name, perm=[1, 0]) for name in ("x", "keep", below_one)]
    body, weights = _column_step(vae, batch)
    _, drawn = nodes(
        "Scan",
        _decoder_start(nodes, vae),
        *(nodes.constant(weight) for weight in weights.values()),
        *columns,
        outputs=2,
        body=body,
        num_scan_inputs=len(weights) + 3,
    )
    outputs: dict[str, tuple[str, list[int]]] = {}
    for name, dtype, at in (
        ("numbers", "float64", vae.likelihoods.number_at),
        ("codes", "int64", vae.likelihoods.category_at),
    ):
        chosen = nodes("Gather", drawn, nodes.constant(np.array(at, dtype=np.int64)), axis=0)
        cells = nodes("Transpose", chosen, perm=[1, 0])
        made = _values_of_codes(nodes, cells, vae, d) if name == "numbers" and at else cells
        if name == "numbers" and not at:
            made = nodes("Cast", cells, to=TensorProto.DOUBLE)
        nodes.name(made, name)
        outputs[name] = (dtype, [batch, len(at)])
    assert len(schema.modelled) == d
    return nodes.model(
        {
            "z": ("float32", [batch, vae.eps.shape[1]]),
            "x": ("int64", [batch, d]),
            "keep": ("bool", [batch, d]),
            "u": ("float64", [batch, draws_for(vae)["x"]]),
            "mode": ("bool", [1]),
        },
        outputs,
    )


def _column_step(vae: VAE, batch: int) -> tuple[onnx.GraphProto, dict[str, NDArray[np.generic]]]:
    """The Scan's body, one column: Decoder.logits, a draw by the inverse distribution function, and the sum h moved on."""
    decoder, k = vae.decoder, vae.likelihoods.codes
    width = decoder.hidden.shape[-1]
    mask = torch.where(vae.likelihoods.generated, 0.0, MASKED)[:, None, :]
    weights = {
        "embedding": decoder.embedding.weight.numpy(),
        "hidden": decoder.hidden.numpy(),
        "hidden_bias": decoder.hidden_bias.numpy(),
        "out": decoder.out.numpy(),
        "out_bias": (decoder.out_bias + mask).numpy(),
    }
    step = Nodes("step_")
    a = step("Relu", "h")
    a = step("Add", a, step("Relu", step("Add", step("MatMul", a, "hidden"), "hidden_bias")))
    p = step("Softmax", step("Add", step("MatMul", a, "out"), "out_bias"), axis=-1)
    upto = step("CumSum", p, step.constant(1, "int64"))
    total = step.slice(upto, k - 1, k)
    reached = step("Mul", total, step("Unsqueeze", "column_u", step.constant([1], "int64")))
    below = step("Cast", step("LessOrEqual", upto, reached), to=TensorProto.INT64)
    drawn = step("ReduceSum", below, step.constant([1], "int64"), keepdims=0)
    made = step("Where", "mode", step("ArgMax", p, axis=1, keepdims=0), drawn)
    step.nodes.append(helper.make_node("Where", ["column_keep", "column_x", made], ["code"]))
    step.nodes.append(helper.make_node("Add", ["h", step("Gather", "embedding", "code", axis=0)], ["h_next"]))
    inputs: dict[str, tuple[str, list[int]]] = {"h": ("float32", [batch, width])}
    inputs |= {name: ("float32", list(weight.shape[1:])) for name, weight in weights.items()}
    inputs |= {"column_x": ("int64", [batch]), "column_keep": ("bool", [batch]), "column_u": ("float32", [batch])}
    outputs = {"h_next": ("float32", [batch, width]), "code": ("int64", [batch])}
    return helper.make_graph(step.nodes, "column", values(inputs), values(outputs), step.constants), weights


def _decoder_start(nodes: Nodes, vae: VAE) -> str:
    """Decoder.start: h float[B, H] from z."""
    first, inner, last = vae.decoder.first, vae.decoder.deeper[0], vae.decoder.deeper[2]
    linear = lambda x, layer: nodes(  # noqa: E731
        "Add", nodes("MatMul", x, nodes.constant(layer.weight.T.numpy())), nodes.constant(layer.bias.numpy())
    )
    added: str = nodes("Add", linear("z", first), linear(nodes("Relu", linear("z", inner)), last))
    return added


def _values_of_codes(nodes: Nodes, cells: str, vae: VAE, d: int) -> str:
    """Numbers float64[B, …] from their codes: a uniform number through the piecewise linear quantile function of the code."""
    fitted, n, k = vae.likelihoods.fitted_numbers, len(vae.likelihoods.fitted_numbers), vae.likelihoods.codes
    knots = np.zeros((n, k, SUBBINS + 1))
    for i, number in enumerate(fitted):
        knots[i, : number.known] = number.knots
    u = nodes("Where", "mode", nodes.constant(0.5), nodes.slice("u", d, d + n))
    place = nodes("Mul", u, nodes.constant(float(SUBBINS)))
    part = nodes("Floor", place)
    row = nodes("Add", cells, nodes.constant(np.arange(n, dtype=np.int64) * k))
    at = nodes("Add", nodes("Mul", row, nodes.constant(SUBBINS + 1, "int64")), nodes("Cast", part, to=TensorProto.INT64))
    flat = nodes.constant(knots.reshape(-1))
    low = nodes("Gather", flat, at)
    high = nodes("Gather", flat, nodes("Add", at, nodes.constant(1, "int64")))
    value = nodes("Add", low, nodes("Mul", nodes("Sub", place, part), nodes("Sub", high, low)))
    whole = nodes("Where", nodes.constant(vae.likelihoods.integral.numpy()), nodes("Floor", value), value)
    scaled = nodes("Mul", whole, nodes.constant(vae.likelihoods.step.numpy()))
    missing = nodes("Equal", cells, nodes.constant(vae.likelihoods.missing_code.numpy()))
    made: str = nodes("Where", missing, nodes.constant(np.nan), scaled)
    return made


def _normals(nodes: Nodes, u: str, latent: int) -> str:
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


def _strip(model: onnx.ModelProto) -> None:
    """Take out what exporters write about where the code stands, and intermediate shapes."""
    del model.graph.value_info[:], model.metadata_props[:], model.functions[:]
    model.producer_name, model.producer_version, model.doc_string = "nelbo", "", ""
    model.graph.name, model.graph.doc_string = "nelbo", ""
    del model.graph.metadata_props[:]
    for part in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        part.doc_string = ""
        del part.metadata_props[:]

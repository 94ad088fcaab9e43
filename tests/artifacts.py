"""A small real artifact made by hand, without torch: probabilistic PCA over three numbers, and a
colour that stands by itself.

The loadings' columns are orthogonal, so that the exact posterior is a diagonal Gaussian: with it as
q(z|x) and noise points of identity covariance, nelbo equals the exact -log p(x), which
`exact_nelbo` gives in closed form.
"""

import hashlib
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from nelbo.artifact import ALL_GRAPHS, MANIFEST, Calibration, Graph, Manifest, check_manifest
from nelbo.engine import Engine
from nelbo.identifiers import Consecutive, Identifier
from nelbo.packing import pack
from nelbo.schema import Column, Schema
from nelbo.settings import Settings
from training.config import Config
from training.data import MOST_RARER, split_rows
from training.nodes import Nodes, Value, concat, where
from training.surprises import (
    KNOTS_IN_ALL,
    HeldOutCosts,
    fit_surprise,
    held_out_surprises,
)
from training.tail import CANDIDATES

LOADINGS = np.array([[1.0, 1.0], [1.0, -1.0], [1.0, 0.0]]) * [1.0, 0.5]
MEAN = np.array([1.0, -2.0, 10.0])
NOISE = 0.5
COLOURS = {"red": 0.5, "green": 0.3, "blue": 0.15, "other": 0.04, "missing": 0.01}
BATCH = 16
SIGNS = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])

SCHEMA = Schema(
    columns=(
        Column(name="id", kind="identifier"),
        Column(name="length", kind="continuous"),
        Column(name="colour", kind="categorical", categories=("red", "green", "blue")),
        Column(name="width", kind="continuous"),
        Column(name="weight", kind="continuous"),
    )
)
_PRECISION = LOADINGS.T @ LOADINGS + NOISE**2 * np.eye(2)
_TO_MU = np.linalg.inv(_PRECISION) @ LOADINGS.T
_SIGMA = NOISE / np.sqrt(np.diag(_PRECISION))
_LOG_TWO_PI = np.log(2 * np.pi)


def linear_artifact(
    folder: Path, name: str = "linear", calibration: int = 99, surprise: bool = False
) -> Path:
    """Write the artifact into `folder` and return it; its calibration scores are those of rows
    drawn from the model. With `surprise` it has what present training adds: costs, which are the
    terms, and what makes surprises of them."""
    folder.mkdir(parents=True, exist_ok=True)
    graphs = {
        "score": _score(with_costs=surprise),
        "posterior": _posterior(),
        "spread": _spread(),
        "prior": _prior(),
        "generate": _generate(),
    }
    numbers, codes = sample(calibration, seed=1)
    manifest = Manifest(
        name=name,
        table_schema=SCHEMA,
        order=("length", "colour", "width", "weight"),
        likelihoods={
            "length": "gaussian",
            "colour": "categorical",
            "width": "gaussian",
            "weight": "gaussian",
        },
        graphs={key: _write(folder / f"{key}.onnx", model) for key, model in graphs.items()},
        latent=2,
        points=4,
        batch=BATCH,
        draws={"z": 4, "x": 7},
        calibration=Calibration(
            method="split", scores=tuple(np.sort(exact_nelbo(numbers, codes)).tolist())
        ),
        identifiers={"id": Identifier(rows=9, consecutive=Consecutive(first=1_000))},
        seed=0,
        data={"rows": calibration},
        libraries={},
        config={},
        metrics={},
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1))
    return _with_surprise(folder, numbers, codes) if surprise else folder


def _with_surprise(folder: Path, numbers: NDArray[np.float64], codes: NDArray[np.int64]) -> Path:
    engine = Engine.load(folder)
    costs = engine.costs(numbers, codes)
    assert costs.members is not None
    held_out = HeldOutCosts(costs.nelbo, costs.members, np.zeros(costs.terms.shape, np.int8))
    novelties = [(0.0, 4.0, 3.0, 5.0, 6.0)] * 4
    scores = held_out_surprises(held_out, novelties, 0.0, seed=0)
    update = {
        "surprise": fit_surprise(held_out, novelties, 0.0),
        "calibration": Calibration(method="split", scores=tuple(np.sort(scores).tolist())),
    }
    manifest = engine.manifest.model_copy(update=update)
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1))
    return folder


@cache
def largest_manifest() -> Manifest:
    """As training's own limits allow it: the widest table, each column with all categories, noise
    points and scores."""
    config, wide = Config(), Settings().max_columns
    word = "category of a length "
    of_column = tuple(f"{word[: at % 15]}{at:x}" for at in range(config.max_categories))
    names = [f"column {number}" for number in range(wide)]
    graph = Graph(
        file="posterior.onnx", sha256="0" * 64, inputs=("numbers", "codes"), outputs=("z", "x")
    )
    return check_manifest(
        {
            "name": "n" * 100,
            "table_schema": {
                "columns": [
                    {
                        "name": name,
                        "kind": "categorical",
                        "categories": of_column,
                        "rarer": [
                            (f"{word[: at % 15]} {at}", 5)
                            for at in range(MOST_RARER if number == 0 else 0)
                        ],
                        "clusters": [63] * (MOST_RARER if number == 0 else 0),
                    }
                    for number, name in enumerate(names)
                ]
            },
            "order": names,
            "codes": wide,
            "likelihoods": dict.fromkeys(
                names, "categorical over 200 categories and 50000 rarer ones in 64 clusters"
            ),
            "graphs": dict.fromkeys(ALL_GRAPHS, graph),
            "latent": 16,
            "points": 1_024,
            "batch": 256,
            "members": {"vae": 0.5, "exemplars": 0.5},
            "draws": {"z": 17, "x": 2 * wide},
            "calibration": {
                "method": "split",
                "scores": [
                    at + 0.123456789012345 for at in range(len(split_rows(10**6, 0.1, 0).calibrate))
                ],
                "tail": {
                    "threshold": 9.5,
                    "excesses": 500,
                    "components": [(1 / 3, 1 / 3, 1 / 3)] * CANDIDATES,
                    "fit": 0.5,
                    "used": True,
                },
            },
            "surprise": _largest_surprise(wide),
            "domains": {name: {"low": -1.23456789e-8, "high": 1.23456789e8} for name in names},
            "seed": 2**63 - 1,
            "data": {
                "rows": 10**9,
                "trained_on": 10**6,
                "refused": 3,
                "sha256": "0" * 64,
                "table_sha256": "0" * 64,
            },
            "libraries": dict.fromkeys(("nelbo", "numpy", "onnx", "torch"), "1.2.3"),
            "config": config.model_dump(mode="json"),
            "metrics": {f"metric {at}": 1.25 for at in range(20)},
        }
    )


def _largest_surprise(columns: int) -> dict[str, Any]:
    """With two members, and curves of as many knots as training gives them."""
    knots = max(8, KNOTS_IN_ALL // (2 * columns))
    curve = {
        "costs": [at + 0.12345 for at in range(10, 10 + knots)],
        "surprises": [at + 0.12345 for at in range(knots)],
        "rate": 0.123456,
    }
    column = {"curves": [curve, curve], "novelty": [0.0, 1.23456, 2.34567, 3.45678, 4.56789]}
    return {
        "members": [0.5, 0.5],
        "columns": [column] * columns,
        "most": curve,
        "nelbo": curve,
        "nelbo_weight": 0.25,
    }


def padded(folder: Path, mib: int) -> Path:
    """Make the artifact in a folder larger: its score graph has so many MiB more of weights, of
    which it adds none."""
    path = folder / "score.onnx"
    model = onnx.load(path)
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["bare_kl" if name == "kl" else name for name in names]
    nodes = Nodes(BATCH, "padding_")
    weights = nodes.constant(np.full((mib * 2**18, 1), 0.1, dtype=np.float32))
    first = weights.index_select(0, 0).double()
    kl = Value(nodes, "bare_kl", "float64") + first * 0
    nodes.nodes.append(helper.make_node("Identity", [kl.name], ["kl"]))
    padding = nodes.graph("padding")
    model.graph.node.extend(padding.node)
    model.graph.initializer.extend(padding.initializer)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    content = model.SerializeToString()
    path.write_bytes(content)
    manifest = folder / MANIFEST
    manifest.write_text(manifest.read_text().replace(before, hashlib.sha256(content).hexdigest()))
    return folder


def packed(folder: Path) -> bytes:
    """The artifact's zip, as `nelbo push` sends it."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "artifact.zip"
        pack(folder, path)
        return path.read_bytes()


def sample(rows: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Numbers float64[rows, 3] and colour codes int64[rows, 1] drawn from the model."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((rows, 2))
    numbers = z @ LOADINGS.T + MEAN + NOISE * rng.standard_normal((rows, 3))
    known = np.array(list(COLOURS.values()))[:3]
    return numbers, rng.choice(3, (rows, 1), p=known / known.sum())


def exact_nelbo(numbers: NDArray[np.float64], codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """-log p(x) of rows without missing numbers: N(MEAN, LOADINGS LOADINGSᵀ + NOISE² I) and the
    colour's mass."""
    covariance = LOADINGS @ LOADINGS.T + NOISE**2 * np.eye(3)
    centred = numbers - MEAN
    quadratic = np.einsum("ni,ij,nj->n", centred, np.linalg.inv(covariance), centred)
    colour = np.log(np.array(list(COLOURS.values())))[codes[:, 0]]
    return np.asarray(
        0.5 * (quadratic + np.linalg.slogdet(covariance)[1] + 3 * _LOG_TWO_PI) - colour
    )


def _write(path: Path, model: onnx.ModelProto) -> Graph:
    onnx.checker.check_model(model)
    content = model.SerializeToString()
    path.write_bytes(content)
    return Graph(
        file=path.name,
        sha256=hashlib.sha256(content).hexdigest(),
        inputs=tuple(value.name for value in model.graph.input),
        outputs=tuple(value.name for value in model.graph.output),
    )


NUMBERS = [BATCH, 3]
LATENT = [BATCH, 2]
CELLS = [BATCH, 4]


def _mu(numbers: Value) -> tuple[Value, Value]:
    """Posterior mean float64[B, 2] and whether each number is missing; a missing number is taken as
    the mean."""
    missing = numbers.isnan()
    centred = where(missing, 0.0, numbers - MEAN)
    return centred @ _TO_MU.T, missing


def _score(with_costs: bool) -> onnx.ModelProto:
    """−E_q[log p(x_j|z)] at four noise points, and KL(q ‖ N(0, I)) in closed form."""
    nodes = Nodes(BATCH)
    numbers = nodes.input("numbers", "float64", NUMBERS)
    codes = nodes.input("codes", "int64", [BATCH, 1])
    mu, missing = _mu(numbers)
    z = mu[:, None] + (SIGNS * _SIGMA)[None]
    residual = (numbers[:, None] - (z @ LOADINGS.T + MEAN)) / NOISE
    gaussian = residual.square().mean(1) * 0.5 + (np.log(NOISE) + 0.5 * _LOG_TWO_PI)
    number_terms = where(missing, 5.0, gaussian)
    colour = nodes.op("Gather", -np.log(list(COLOURS.values())), codes, axis=0)
    in_order = concat([number_terms, colour], 1)
    terms = in_order.index_select(1, [0, 3, 1, 2])
    kl = mu.square().sum(1) * 0.5 + 0.5 * float((_SIGMA**2 - 1 - 2 * np.log(_SIGMA)).sum())
    nodes.output("nelbo", terms.sum(1) + kl, [BATCH])
    nodes.output("terms", terms, CELLS)
    nodes.output("kl", kl, [BATCH])
    if with_costs:
        nodes.output("costs", terms.unsqueeze(1), [BATCH, 1, 4])
    return nodes.model()


def _posterior() -> onnx.ModelProto:
    nodes = Nodes(BATCH)
    numbers = nodes.input("numbers", "float64", NUMBERS)
    codes = nodes.input("codes", "int64", [BATCH, 1])
    nodes.input("observed", "bool", CELLS)
    u = nodes.input("u", "float64", CELLS)
    mode = nodes.input("mode", "bool", [1])
    mu, _ = _mu(numbers)
    noise = where(mode, 0.0, _normals(u, 0) * _SIGMA)
    nodes.output("z", (mu + noise).float(), LATENT)
    zero = codes * 0
    nodes.output("x", concat([zero, codes, zero, zero], 1), CELLS)
    nodes.output("mu", mu.float(), LATENT)
    log_var = np.tile(2 * np.log(_SIGMA), (BATCH, 1)).astype(np.float32)
    nodes.output("log_var", nodes.constant(log_var), LATENT)
    return nodes.model()


def _spread() -> onnx.ModelProto:
    """N(mu, σ²)^(1 - s) N(0, 1)^s is N((1 - s) mu / t, σ² / t) with t = 1 - s + s σ²."""
    nodes = Nodes(BATCH)
    mu = nodes.input("mu", "float32", LATENT).double()
    var = nodes.input("log_var", "float32", LATENT).double().exp()
    u = nodes.input("u", "float64", CELLS)
    spread = nodes.input("spread", "float64", [1])
    a = 1 - spread
    t = a + spread * var
    z = a * mu / t + (var / t).sqrt() * _normals(u, 0)
    nodes.output("z", z.float(), LATENT)
    return nodes.model()


def _prior() -> onnx.ModelProto:
    nodes = Nodes(BATCH)
    nodes.output("z", _normals(nodes.input("u", "float64", CELLS), 0).float(), LATENT)
    return nodes.model()


def _generate() -> onnx.ModelProto:
    """Each number is its mean given z plus noise; a missing number is drawn like the others."""
    nodes = Nodes(BATCH)
    z = nodes.input("z", "float32", LATENT).double()
    x = nodes.input("x", "int64", CELLS)
    keep = nodes.input("keep", "bool", CELLS)
    u = nodes.input("u", "float64", [BATCH, 7])
    mode = nodes.input("mode", "bool", [1])
    noise = concat([_normals(u, 1), _normals(u, 3)], 1)[:, :3] * NOISE
    noise = where(mode, 0.0, noise)
    nodes.output("numbers", z @ LOADINGS.T + MEAN + noise, NUMBERS)
    upto = np.cumsum(list(COLOURS.values())[:3]) / sum(list(COLOURS.values())[:3])
    drawn = (u[:, :1] >= upto[:-1]).long().sum(1, keepdim=True)
    colour = where(mode, np.int64(0), drawn)
    codes = where(keep[:, 1:2], x[:, 1:2], colour)
    nodes.output("codes", codes, [BATCH, 1])
    return nodes.model()


def _normals(u: Value, first: int) -> Value:
    """Two normal numbers from two uniform ones (Box & Muller 1958)."""
    radius = ((1 - u[:, first : first + 1]).log() * -2).sqrt()
    angle = u[:, first + 1 : first + 2] * (2 * np.pi)
    return concat([radius * angle.cos(), radius * angle.sin()], 1)

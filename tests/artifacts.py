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

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from nelbo.artifact import ALL_GRAPHS, MANIFEST, Calibration, Graph, Manifest, check_manifest
from nelbo.packing import pack
from nelbo.schema import Column, Schema
from nelbo.settings import Settings
from training.config import Config
from training.data import MOST_RARER, MOST_RARER_IN_ALL, split_rows
from training.nodes import Nodes
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


def linear_artifact(folder: Path, name: str = "linear", calibration: int = 99) -> Path:
    """Write the artifact into `folder` and return it; its calibration scores are those of rows
    drawn from the model."""
    folder.mkdir(parents=True, exist_ok=True)
    graphs = {
        "score": _score(),
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
        seed=0,
        data={"rows": calibration},
        libraries={},
        config={},
        metrics={},
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1))
    return folder


@cache
def largest_manifest() -> Manifest:
    """As training's own limits allow it: the widest table, each column with all categories, noise
    points and scores."""
    config, wide = Config(), Settings().max_columns
    rarer = MOST_RARER_IN_ALL // MOST_RARER
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
                            for at in range(MOST_RARER if number < rarer else 0)
                        ],
                    }
                    for number, name in enumerate(names)
                ]
            },
            "order": names,
            "codes": wide,
            "likelihoods": dict.fromkeys(
                names, "categorical over 200 categories and 10000 rarer ones as one"
            ),
            "graphs": dict.fromkeys(ALL_GRAPHS, graph),
            "latent": 16,
            "points": 1_024,
            "batch": 256,
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
            "seed": 2**63 - 1,
            "data": {
                "rows": 10**9,
                "trained_on": 10**6,
                "refused": 3,
                "sha256": "0" * 64,
                "table_sha256": "0" * 64,
            },
            "libraries": dict.fromkeys(("nelbo", "numpy", "onnx", "torch"), "1.2.3"),
            "config": config.model_dump(),
            "metrics": {f"metric {at}": 1.25 for at in range(20)},
        }
    )


def padded(folder: Path, mib: int) -> Path:
    """Make the artifact in a folder larger: its score graph has so many MiB more of weights, of
    which it adds none."""
    path = folder / "score.onnx"
    model = onnx.load(path)
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["bare_kl" if name == "kl" else name for name in names]
    nodes = Nodes("padding_")
    weights = nodes.constant(np.full((mib * 2**18, 1), 0.1, dtype=np.float32))
    first = nodes(
        "Cast", nodes("Gather", weights, nodes.constant(0, "int64"), axis=0), to=TensorProto.DOUBLE
    )
    nodes.name(nodes("Add", "bare_kl", nodes("Mul", first, nodes.constant(0.0))), "kl")
    padding = nodes.model({}, {}).graph
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


NUMBERS, CODES, LATENT = ("float64", [BATCH, 3]), ("int64", [BATCH, 1]), ("float32", [BATCH, 2])


def _mu(nodes: Nodes) -> tuple[str, str]:
    """Posterior mean float64[B, 2] and whether each number is missing; missing numbers stand at the
    mean."""
    missing: str = nodes("IsNaN", "numbers")
    centred = nodes(
        "Where", missing, nodes.constant(0.0), nodes("Sub", "numbers", nodes.constant(MEAN))
    )
    return nodes("MatMul", centred, nodes.constant(_TO_MU.T)), missing


def _score() -> onnx.ModelProto:
    """−E_q[log p(x_j|z)] at four noise points, and KL(q ‖ N(0, I)) in closed form."""
    nodes = Nodes()
    mu, missing = _mu(nodes)
    z = nodes(
        "Add",
        nodes("Unsqueeze", mu, nodes.constant([1], "int64")),
        nodes.constant((SIGNS * _SIGMA)[None]),
    )
    expected = nodes("Add", nodes("MatMul", z, nodes.constant(LOADINGS.T)), nodes.constant(MEAN))
    x = nodes("Unsqueeze", "numbers", nodes.constant([1], "int64"))
    residual = nodes("Div", nodes("Sub", x, expected), nodes.constant(NOISE))
    squared = nodes(
        "ReduceMean", nodes("Mul", residual, residual), nodes.constant([1], "int64"), keepdims=0
    )
    constant = np.log(NOISE) + 0.5 * _LOG_TWO_PI
    gaussian = nodes("Add", nodes("Mul", squared, nodes.constant(0.5)), nodes.constant(constant))
    number_terms = nodes("Where", missing, nodes.constant(5.0), gaussian)
    colour = nodes("Gather", nodes.constant(-np.log(list(COLOURS.values()))), "codes", axis=0)
    in_order = nodes("Concat", number_terms, colour, axis=1)
    nodes.name(nodes("Gather", in_order, nodes.constant([0, 3, 1, 2], "int64"), axis=1), "terms")
    kl_constant = 0.5 * float((_SIGMA**2 - 1 - 2 * np.log(_SIGMA)).sum())
    mu_squared = nodes("ReduceSum", nodes("Mul", mu, mu), nodes.constant([1], "int64"), keepdims=0)
    nodes.name(
        nodes("Add", nodes("Mul", mu_squared, nodes.constant(0.5)), nodes.constant(kl_constant)),
        "kl",
    )
    total = nodes("ReduceSum", "terms", nodes.constant([1], "int64"), keepdims=0)
    nodes.name(nodes("Add", total, "kl"), "nelbo")
    outputs = {
        "nelbo": ("float64", [BATCH]),
        "terms": ("float64", [BATCH, 4]),
        "kl": ("float64", [BATCH]),
    }
    return nodes.model({"numbers": NUMBERS, "codes": CODES}, outputs)


def _posterior() -> onnx.ModelProto:
    nodes = Nodes()
    mu, _ = _mu(nodes)
    noise = nodes(
        "Where",
        "mode",
        nodes.constant(0.0),
        nodes("Mul", _normals(nodes, "u", 0), nodes.constant(_SIGMA)),
    )
    nodes.name(nodes("Cast", nodes("Add", mu, noise), to=TensorProto.FLOAT), "z")
    zero = nodes("Mul", "codes", nodes.constant(0, "int64"))
    nodes.name(nodes("Concat", zero, "codes", zero, zero, axis=1), "x")
    nodes.name(nodes("Cast", mu, to=TensorProto.FLOAT), "mu")
    nodes.name(nodes.constant(np.tile(2 * np.log(_SIGMA), (BATCH, 1)), "float32"), "log_var")
    inputs = {
        "numbers": NUMBERS,
        "codes": CODES,
        "observed": ("bool", [BATCH, 4]),
        "u": ("float64", [BATCH, 4]),
    }
    outputs = {"z": LATENT, "x": ("int64", [BATCH, 4]), "mu": LATENT, "log_var": LATENT}
    return nodes.model(inputs | {"mode": ("bool", [1])}, outputs)


def _spread() -> onnx.ModelProto:
    """N(mu, σ²)^(1 - s) N(0, 1)^s is N((1 - s) mu / t, σ² / t) with t = 1 - s + s σ²."""
    nodes = Nodes()
    a = nodes("Sub", nodes.constant(1.0), "spread")
    mu, log_var = (nodes("Cast", name, to=TensorProto.DOUBLE) for name in ("mu", "log_var"))
    var = nodes("Exp", log_var)
    t = nodes("Add", a, nodes("Mul", "spread", var))
    mean = nodes("Div", nodes("Mul", a, mu), t)
    sigma = nodes("Sqrt", nodes("Div", var, t))
    z = nodes("Add", mean, nodes("Mul", sigma, _normals(nodes, "u", 0)))
    nodes.name(nodes("Cast", z, to=TensorProto.FLOAT), "z")
    inputs = {
        "mu": LATENT,
        "log_var": LATENT,
        "u": ("float64", [BATCH, 4]),
        "spread": ("float64", [1]),
    }
    return nodes.model(inputs, {"z": LATENT})


def _prior() -> onnx.ModelProto:
    nodes = Nodes()
    nodes.name(nodes("Cast", _normals(nodes, "u", 0), to=TensorProto.FLOAT), "z")
    return nodes.model({"u": ("float64", [BATCH, 4])}, {"z": LATENT})


def _generate() -> onnx.ModelProto:
    """Each number is its mean given z plus noise; a missing number is drawn like the others."""
    nodes = Nodes()
    z = nodes("Cast", "z", to=TensorProto.DOUBLE)
    mean = nodes("Add", nodes("MatMul", z, nodes.constant(LOADINGS.T)), nodes.constant(MEAN))
    pairs = nodes("Concat", _normals(nodes, "u", 1), _normals(nodes, "u", 3), axis=1)
    noise = nodes("Mul", nodes.slice(pairs, 0, 3), nodes.constant(NOISE))
    nodes.name(nodes("Add", mean, nodes("Where", "mode", nodes.constant(0.0), noise)), "numbers")
    upto = np.cumsum(list(COLOURS.values())[:3]) / sum(list(COLOURS.values())[:3])
    below = nodes(
        "Cast",
        nodes("GreaterOrEqual", nodes.slice("u", 0, 1), nodes.constant(upto[:-1])),
        to=TensorProto.INT64,
    )
    drawn = nodes("ReduceSum", below, nodes.constant([1], "int64"), keepdims=1)
    colour = nodes("Where", "mode", nodes.constant(0, "int64"), drawn)
    nodes.name(nodes("Where", nodes.slice("keep", 1, 2), nodes.slice("x", 1, 2), colour), "codes")
    inputs = {"z": LATENT, "x": ("int64", [BATCH, 4]), "keep": ("bool", [BATCH, 4])}
    return nodes.model(
        inputs | {"u": ("float64", [BATCH, 7]), "mode": ("bool", [1])},
        {"numbers": NUMBERS, "codes": CODES},
    )


def _normals(nodes: Nodes, u: str, first: int) -> str:
    """Two normal numbers from two uniform ones (Box & Muller 1958)."""
    log = nodes("Log", nodes("Sub", nodes.constant(1.0), nodes.slice(u, first, first + 1)))
    radius = nodes("Sqrt", nodes("Mul", log, nodes.constant(-2.0)))
    angle = nodes("Mul", nodes.slice(u, first + 1, first + 2), nodes.constant(2 * np.pi))
    both: str = nodes(
        "Concat", *(nodes("Mul", radius, nodes(wave, angle)) for wave in ("Cos", "Sin")), axis=1
    )
    return both

"""Export: a fitted VAE becomes an artifact, and the artifact must answer as torch does before
anyone may use it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import torch

from nelbo.artifact import (
    MANIFEST,
    TABLE_DIGEST,
    Artifact,
    Calibration,
    Graph,
    Manifest,
    digest_of,
    read_artifact,
)
from nelbo.engine import Engine, Floats, flag
from nelbo.errors import InvalidArtifact
from nelbo.schema import Schema
from training.config import Config
from training.data import Rows, Training
from training.exemplars import Exemplars
from training.fit import VAE, coded, posteriors, score
from training.graphs import batch_for, build, draws_for
from training.prior import Mixture

LIBRARIES = ("nelbo", "numpy", "onnx", "onnxruntime", "pyarrow", "scikit-learn", "torch")
TOLERANCE = 1e-4
"""Largest relative difference between torch and ONNX Runtime that export accepts."""
TIES = 0.02
"""Share of rows that may differ: two exemplars, or two components of the prior, are equally near to
them but for rounding."""
REPORT = "please report this table's schema"
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Exported:
    """An artifact's manifest, without calibration and metrics, and what a user should know of the
    export."""

    manifest: Manifest
    notices: tuple[str, ...]


def export(
    folder: Path, vae: VAE, name: str, training: Training, config: Config, seed: int
) -> Exported:
    """The artifact of a training run; see export_model."""
    data = {
        "rows": training.total,
        "trained_on": len(training.rows),
        "refused": training.refused,
        "sha256": training.digest,
    }
    data[TABLE_DIGEST] = training.table_digest
    stop = training.rows.take(training.split.stop)
    return export_model(folder, vae, name, training.schema, config, seed, stop, data)


def export_model(
    folder: Path,
    vae: VAE,
    name: str,
    schema: Schema,
    config: Config,
    seed: int,
    rows: Rows,
    data: Mapping[str, Any] = NOTHING,
) -> Exported:
    """Write the graphs and a manifest; compare them with torch on some rows.

    Where the scores of ONNX Runtime and torch differ, the member that agrees alone (exemplars or
    VAE) has the whole score from then on, in `vae` too, and a notice says so. Raises
    InvalidArtifact where none agrees.
    """
    folder.mkdir(parents=True, exist_ok=True)
    problems = []
    for share, of_rows in _members(vae):
        vae.share, vae.exemplars = share, of_rows
        manifest = _write_artifact(folder, vae, name, schema, config, seed, data)
        try:
            check_scores(Engine.load(folder), vae, rows)
        except InvalidArtifact as problem:
            problems.append(problem)
        else:
            break
    else:
        raise problems[0]
    notices = []
    if problems:
        member = "exemplars" if vae.share else "VAE"
        notices.append(
            f"rows are scored by the {member} alone, because {problems[0].message}; {REPORT}"
        )
    try:
        check_draws(Engine.load(folder), vae, rows)
    except InvalidArtifact as problem:
        notices.append(
            f"generated rows may be off, because {problem.message}; scores are not affected;"
            f" {REPORT}"
        )
    return Exported(manifest, tuple(notices))


def _members(vae: VAE) -> list[tuple[float, Exemplars | None]]:
    """What may score rows, as the exemplars' share and the exemplars: what was fitted, then each of
    its members alone."""
    fitted = [(vae.share, vae.exemplars)]
    if 0 < vae.share < 1:
        fitted.append((1.0, vae.exemplars))
    if vae.share:
        fitted.append((0.0, None))
    return fitted


def _write_artifact(
    folder: Path,
    vae: VAE,
    name: str,
    schema: Schema,
    config: Config,
    seed: int,
    data: Mapping[str, Any],
) -> Manifest:
    batch, likelihoods = batch_for(vae), vae.likelihoods
    manifest = Manifest(
        name=name,
        table_schema=schema,
        order=tuple(column.name for column in schema.modelled),
        codes=len(likelihoods.columns),
        likelihoods=dict(likelihoods.described()),
        graphs={graph: _write(folder, graph, model) for graph, model in build(vae, batch).items()},
        latent=vae.eps.shape[1],
        points=vae.eps.shape[0],
        members={"vae": 1 - vae.share, "exemplars": vae.share},
        batch=batch,
        draws=draws_for(vae),
        calibration=Calibration(method="split", scores=()),
        seed=seed,
        data=dict(data),
        libraries={library: metadata.version(library) for library in LIBRARIES},
        config=config.model_dump(),
        metrics={},
    )
    write_manifest(folder, manifest)
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> Artifact:
    (folder / MANIFEST).write_text(
        json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n", "utf-8"
    )
    return read_artifact(folder)


def check_scores(engine: Engine, vae: VAE, rows: Rows) -> None:
    """Compare terms, nelbo and KL of rows with torch's. Raises InvalidArtifact where they
    differ."""
    few = rows.take(np.arange(min(len(rows), 256)))
    terms, kl = score(vae, few)
    nelbo, engine_terms, engine_kl = engine.score_encoded(few.numbers, few.codes)
    ties = vae.share * TIES
    _compare("terms", engine_terms, terms.numpy(), ties)
    _compare("nelbo", nelbo, (terms.sum(1) + kl).numpy(), ties)
    _compare("kl", engine_kl, kl.numpy())


def check_draws(engine: Engine, vae: VAE, rows: Rows) -> None:
    """Compare with torch z between q(z|x) and p(z), and sampled codes with what the decoder's
    probabilities say.

    Raises InvalidArtifact where they differ.
    """
    _check_spread(engine, vae, rows)
    _check_sampling(engine, vae)


def _check_spread(engine: Engine, vae: VAE, rows: Rows) -> None:
    """Half-way from q(z|x) to p(z), a row's z is what torch makes of it where all normal numbers
    are 1."""
    assert isinstance(vae.prior, Mixture), "the prior is fitted before export"
    batch, draws = engine.manifest.batch, engine.manifest.draws["z"]
    few = rows.take(np.resize(np.arange(len(rows)), batch))
    u = np.random.default_rng(0).random((batch, draws))
    u[:, 1 : (1 + draws) // 2], u[:, (1 + draws) // 2 :] = 1 - np.exp(-1), 1 / 8
    every = np.ones((batch, len(engine.manifest.order)), dtype=np.bool_)
    _, _, *q = engine.run("posterior", few.numbers, few.codes, every, u, flag(False))
    (z,) = engine.run("spread", *q, u, np.array([0.5]))
    log_weight, mean, var = vae.prior.between(*posteriors(vae, coded(vae.likelihoods, few)[0]), 0.5)
    upto = log_weight.double().softmax(1).cumsum(1)[:, :-1]
    picked = torch.arange(batch), (torch.from_numpy(u[:, :1]) >= upto).sum(1)
    _compare("z", z, (mean + var.sqrt())[picked].numpy(), TIES)


def _check_sampling(engine: Engine, vae: VAE) -> None:
    """Each code's interval of the distribution function, by torch from the codes before it, holds
    its uniform number."""
    manifest, likelihoods = engine.manifest, vae.likelihoods
    d = len(likelihoods.columns)
    uniforms = np.random.default_rng(0).random((manifest.batch, sum(manifest.draws.values())))
    u_z, u_x = uniforms[:, : manifest.draws["z"]], uniforms[:, manifest.draws["z"] :]
    (z,) = engine.run("prior", u_z)
    blank, keep = (
        np.zeros((manifest.batch, d), dtype=np.int64),
        np.zeros((manifest.batch, len(manifest.order)), dtype=np.bool_),
    )
    numbers, codes = engine.draw(z, blank, keep, u_x)
    other = likelihoods.other[likelihoods.category_at].numpy()
    known = np.where(codes > other + 1, other, codes)  # rarer categories are `other` to the decoder
    x, _ = likelihoods.encode(torch.from_numpy(numbers), torch.from_numpy(known))
    with torch.no_grad():
        logits = vae.decoder(torch.from_numpy(z), x)
    high, low = np.empty((manifest.batch, d)), np.empty((manifest.batch, d))
    for j, (scores, drawn) in enumerate(
        zip(logits, likelihoods.drawn.split(likelihoods.sizes), strict=True)
    ):
        upto = torch.softmax(scores + drawn, -1).double().cumsum(-1)
        between = torch.nn.functional.pad(upto, (1, 0))
        low[:, j], high[:, j] = (
            between.gather(1, x[:, j, None] + above)[:, 0].numpy() for above in (0, 1)
        )
    u = u_x[:, :d]
    certain = (
        np.array(likelihoods.follows) & (x == likelihoods.hidden - 1).numpy()
    )  # missing as the first field is
    off = np.where(certain, 0.0, np.maximum(low - u, u - high)).max()
    if off > TOLERANCE:
        raise InvalidArtifact(f"sampling in ONNX Runtime is off torch's probabilities by {off:.1e}")


def _compare(what: str, engine: Floats, expected: Floats, ties: float = 0.0) -> None:
    """`ties` is the share of rows that may differ because two exemplars are equally near to
    them."""
    by_row = (
        (np.abs(engine - expected) / (1 + np.abs(expected)))
        .reshape(len(engine), -1)
        .max(1, initial=0.0)
    )
    off = np.quantile(by_row, 1 - ties, method="lower") if len(by_row) else 0.0
    if not off <= TOLERANCE:
        raise InvalidArtifact(f"{what} of ONNX Runtime and torch differ by {off:.1e}")


def _write(folder: Path, name: str, model: onnx.ModelProto) -> Graph:
    content = model.SerializeToString(deterministic=True)
    (folder / f"{name}.onnx").write_bytes(content)
    return Graph(
        file=f"{name}.onnx",
        sha256=digest_of(content),
        inputs=tuple(value.name for value in model.graph.input),
        outputs=tuple(value.name for value in model.graph.output),
    )

"""Export: write a fitted VAE as an artifact, and check that the artifact gives the same answers as
torch."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

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
from nelbo.engine import Engine, Floats
from nelbo.errors import InvalidArtifact
from nelbo.row_sampler import flag
from nelbo.schema import Schema

from .categories import Category
from .config import Config
from .data import Rows, Training
from .domains import domains
from .exemplars import Exemplars
from .graphs import batch_for, build, draws_for
from .prior import Mixture
from .vae import VAE, coded, posteriors, score

READABLE = 2**20
"""Number of characters up to which a manifest has lines, for people who read it."""
LIBRARIES = ("nelbo", "numpy", "onnx", "onnxruntime", "pyarrow", "scikit-learn", "torch")
TOLERANCE = 1e-4
"""Largest relative difference between torch and ONNX Runtime that export accepts."""
TIES = 0.02
"""Share of rows that may differ, because two exemplars or two components of the prior are equally
near to them up to rounding."""
NOTED = 0.01
"""From this share of doubted rows on, a notice says so."""
REPORT = "please report this table's schema"
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Exported:
    """An artifact's manifest, without calibration and metrics, and notices about the export."""

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
    if vae.exemplars is not None and config.contaminated is None:
        data["doubted"] = vae.exemplars.doubted
    stop = training.rows.take(training.split.stop)
    exported = export_model(folder, vae, name, training.schema, config, seed, stop, data)
    return Exported(
        exported.manifest.model_copy(
            update={"identifiers": training.identifiers, "ties": training.ties}
        ),
        (*exported.notices, *_of_anomalies(vae, config)),
    )


def _of_anomalies(vae: VAE, config: Config) -> Iterator[str]:
    """Notices about anomalies among the training rows."""
    doubted = vae.exemplars.doubted if vae.exemplars is not None else 0.0
    if config.contaminated is None and doubted >= NOTED:
        yield (
            f"{doubted:.1%} of the training rows look normal only beside rows like them and count"
            " less in a score; if all rows are right, set contaminated = 0"
        )
    if config.contaminated and not vae.share:
        yield (
            "contaminated changes nothing here, because the VAE alone scores this table; nelbo"
            " clean finds errors among its rows"
        )


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
    """The exemplars' share and the exemplars of each way to score rows: as fitted, then each member
    alone."""
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
    batch = batch_for(vae)
    likelihoods = vae.likelihoods
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
        seldom=likelihoods.seldom,
        domains=dict(domains(likelihoods)),
        seed=seed,
        data=dict(data),
        libraries={library: metadata.version(library) for library in LIBRARIES},
        config=config.model_dump(mode="json"),
        metrics={},
    )
    write_manifest(folder, manifest)
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> Artifact:
    content = manifest.model_dump(mode="json")
    text = json.dumps(content, indent=1, ensure_ascii=False)
    if len(text) > READABLE:
        text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", "utf-8")
    return read_artifact(folder)


def check_scores(engine: Engine, vae: VAE, rows: Rows) -> None:
    """Compare terms, nelbo and KL of rows with torch's. Raises InvalidArtifact where they
    differ."""
    few = rows.take(np.arange(min(len(rows), 256)))
    scored = score(vae, few)
    costs = engine.costs(few.numbers, few.codes)
    ties = vae.share * TIES
    _compare("terms", costs.terms, scored.terms.numpy(), ties)
    _compare("nelbo", costs.nelbo, scored.nelbo.numpy(), ties)
    _compare("kl", costs.kl, scored.kl.numpy(), ties)


def check_draws(engine: Engine, vae: VAE, rows: Rows) -> None:
    """Compare z between q(z|x) and p(z) with torch's, and drawn codes with the decoder's
    probabilities. Raises InvalidArtifact where they differ."""
    _check_spread(engine, vae, rows)
    _check_sampling(engine, vae)


def _check_spread(engine: Engine, vae: VAE, rows: Rows) -> None:
    """Half-way from q(z|x) to p(z), the graph must draw the same z as torch from the same uniform
    numbers."""
    assert isinstance(vae.prior, Mixture), "the prior is fitted before export"
    batch = engine.manifest.batch
    few = rows.take(np.resize(np.arange(len(rows)), batch))
    u = np.random.default_rng(0).random((batch, engine.manifest.draws["z"]))
    every = np.ones((batch, len(engine.manifest.order)), dtype=np.bool_)
    _, _, *q = engine.run("posterior", few.numbers, few.codes, every, u, flag(False))
    (z,) = engine.run("spread", *q, u, np.array([0.5]))

    codes, _ = coded(vae.likelihoods, few)
    half = torch.tensor([0.5], dtype=torch.float64)
    expected = vae.prior.draw_between(*posteriors(vae, codes), torch.from_numpy(u), half)
    _compare("z", z, expected.numpy(), TIES)


def _check_sampling(engine: Engine, vae: VAE) -> None:
    """The uniform number of each drawn code must be in that code's interval of the distribution
    function, which torch computes from the codes before it."""
    z, x, u = _drawn(engine, vae)
    x = _with_others(vae, z, x, u)
    low, high = _intervals(vae, z, x)
    masses = vae.likelihoods.masses
    follows = torch.tensor(vae.likelihoods.follows)
    certain = follows & (x == masses.other + 1)  # missing as the first field is
    off = torch.where(certain, 0.0, torch.maximum(low - u, u - high)).max()
    if off > TOLERANCE:
        raise InvalidArtifact(f"sampling in ONNX Runtime is off torch's probabilities by {off:.1e}")


def _drawn(engine: Engine, vae: VAE) -> tuple[Tensor, Tensor, Tensor]:
    """One batch of z, of codes x int64[B, d] drawn from them, and the uniform numbers float64[B, d]
    behind those."""
    manifest = engine.manifest
    likelihoods = vae.likelihoods
    d = len(likelihoods.columns)
    uniforms = np.random.default_rng(0).random((manifest.batch, sum(manifest.draws.values())))
    u_z = uniforms[:, : manifest.draws["z"]]
    u_x = uniforms[:, manifest.draws["z"] :]
    (z,) = engine.run("prior", u_z)
    blank = np.zeros((manifest.batch, d), dtype=np.int64)
    keep = np.zeros((manifest.batch, len(manifest.order)), dtype=np.bool_)
    numbers, codes = engine.sampler.draw(z, blank, keep, u_x)

    x, _ = likelihoods.encode(torch.from_numpy(numbers), torch.from_numpy(codes))
    return torch.from_numpy(z), x, torch.from_numpy(u_x[:, :d])


def _with_others(vae: VAE, z: Tensor, x: Tensor, u: Tensor) -> Tensor:
    """The codes with `other` in the place of a cluster whose member was drawn for `other`: there
    the uniform number is not in the interval of the cluster."""
    x = x.clone()
    for column, law in enumerate(vae.likelihoods.columns):
        if isinstance(law, Category) and law.names_others:
            low, high = (ends[:, column] for ends in _intervals(vae, z, x))
            own = u[:, column]
            is_off = torch.maximum(low - own, own - high) > TOLERANCE
            is_cluster = (x[:, column] >= len(law.frequent)) & (x[:, column] < law.known)
            x[is_off & is_cluster, column] = law.known
    return x


def _intervals(vae: VAE, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Where each code's interval of its column's distribution function begins and ends, float64[B,
    d] each."""
    masses = vae.likelihoods.masses
    with torch.no_grad():
        logits = vae.decoder(z, x)
    low = []
    high = []
    for scores, drawn, code in zip(
        logits, masses.drawn.split(masses.sizes), x.unbind(1), strict=True
    ):
        upto = torch.softmax(scores + drawn, -1).double().cumsum(-1)
        upto = torch.nn.functional.pad(upto, (1, 0))
        low.append(upto.gather(1, code[:, None])[:, 0])
        high.append(upto.gather(1, code[:, None] + 1)[:, 0])
    return torch.stack(low, 1), torch.stack(high, 1)


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

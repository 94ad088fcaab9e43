"""A training run from a table to an artifact: read, fit, export, calibrate, evaluate, report."""

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from nelbo.artifact import MANIFEST, Artifact, files_of, is_artifact, parse_manifest
from nelbo.engine import Engine
from nelbo.errors import Conflict, InvalidArtifact
from nelbo.files import SCRATCH, check_folder
from nelbo.schema import Schema

from .calibrate import Calibrated, cross_calibration, split_calibration
from .config import Config
from .data import FrameSource, Training, TrainingSource, read
from .evaluate import Evaluation, evaluate
from .export import export, write_manifest
from .fit import History, fit_rows
from .report import model_card, write_report
from .tail import notices as of_tail
from .tail import with_tail

ARTIFACT_FILES = ("MODEL_CARD.md", "report.html", "history.json", "run.json")
"""Files that a training run writes beside those that the manifest names."""
ROOM = 16 * 2**20
"""Free disk, in bytes, that a training needs before it begins; most artifacts are smaller."""
Made = TypeVar("Made")
Stage = Callable[[str, int, int, str], None]
"""Called with (stage, done, of how many or 0, a few words), for a progress bar."""


@dataclass(frozen=True)
class Run:
    """A finished run: its artifact, its notices, and the seconds that each stage took."""

    artifact: Artifact
    notices: tuple[str, ...]
    seconds: dict[str, float]

    @property
    def report(self) -> Path | None:
        """None where it could not be made."""
        page = self.artifact.folder / "report.html"
        return page if page.exists() else None


def train(
    source: TrainingSource | FrameSource,
    name: str,
    out: Path,
    config: Config,
    seed: int,
    schema: Schema | None,
    stage: Stage,
) -> Run:
    """Train on a table and write an artifact to `out`, whole or not at all.

    The same table, configuration and seed give the same artifact, byte for byte, on one machine;
    what differs between two runs (times) is in run.json. Where the evaluation or the report fails,
    a notice says so, and the artifact is made without it. Raises InvalidInput, NotFound, and
    Conflict where `out` holds something else.
    """
    _check_target(out)
    make_deterministic(config)
    clock = _Clock(stage)
    training = read(source, config, seed, schema, clock.stage("read", "rows"))
    with _whole_or_nothing(out) as folder:
        progress = clock.stage("fit", "held-out nelbo")
        rows = training.rows
        vae, history = fit_rows(training.schema, rows, training.split, config, seed, progress)

        clock.stage("export", "ONNX")
        exported = export(folder, vae, name, training, config, seed)
        notices = [*training.notices, *exported.notices]
        as_exported = config.model_copy(update={"exemplars": vae.share})
        held_out = _calibrate(folder, training, as_exported, seed, clock, notices)
        manifest = exported.manifest  # without a calibration, every p-value is 1
        if held_out:
            update = {"calibration": held_out.calibration, "surprise": held_out.surprise}
            manifest = manifest.model_copy(update=update)
        engine = Engine(write_manifest(folder, manifest))

        clock.stage("evaluate", "synthetic beside real rows")
        evaluation = _tried(
            lambda: evaluate(engine, training, seed), "the evaluation and the report", notices
        )
        if evaluation:
            notices += evaluation.notices
            metrics = {key: round(value, 6) for key, value in evaluation.metrics.items()}
            manifest = manifest.model_copy(update={"metrics": metrics})
        artifact = write_manifest(folder, manifest)

        clock.stage("report", "report.html")
        reported = replace(training, notices=tuple(notices))
        _report(folder, Engine(artifact), reported, history, evaluation, notices)
        _write_json(folder / "history.json", asdict(history))
        seconds = clock.finish()
        _write_json(folder / "run.json", {"started_at": clock.started_at, "seconds": seconds})
    return Run(Artifact(out, artifact.manifest, artifact.digest), tuple(notices), seconds)


def make_deterministic(config: Config) -> None:
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True)
    # Without this CUDA refuses to be deterministic.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def _calibrate(
    folder: Path,
    training: Training,
    config: Config,
    seed: int,
    clock: "_Clock",
    notices: list[str],
) -> Calibrated | None:
    """The surprises and the calibration of the artifact in a folder, with the latter's tail if one
    was asked for; None where it fails."""
    held_out = _tried(
        lambda: _calibrated(Engine.load(folder), training, config, seed, clock),
        "surprises and p-values",
        notices,
    )
    if held_out is None or not config.peaks_over_threshold:
        return held_out
    scores = held_out.calibration
    calibration = _tried(lambda: with_tail(scores, seed), "the tail of the p-values", notices)
    calibration = calibration or scores
    notices += of_tail(calibration)
    return replace(held_out, calibration=calibration)


def _calibrated(
    engine: Engine, training: Training, config: Config, seed: int, clock: "_Clock"
) -> Calibrated:
    if len(training.split.calibrate):
        clock.stage("calibrate", "held-back rows")
        return split_calibration(engine, training, seed)
    progress = clock.stage("calibrate", "held-out nelbo")
    return cross_calibration(training, config, seed, progress)


def _report(
    folder: Path,
    engine: Engine,
    training: Training,
    history: History,
    evaluation: Evaluation | None,
    notices: list[str],
) -> None:
    page = folder / "report.html"
    card = folder / "MODEL_CARD.md"
    if evaluation:
        _tried(
            lambda: write_report(page, engine, training, history, evaluation), page.name, notices
        )
    _tried(
        lambda: card.write_text(model_card(engine.manifest, evaluation), "utf-8"),
        card.name,
        notices,
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content) + "\n", "utf-8")


def _tried(work: Callable[[], Made], what: str, notices: list[str]) -> Made | None:
    """The result of the work, or None and a notice where it fails: a trained model is not lost
    because a report of it could not be made."""
    try:
        return work()
    except Exception as problem:
        notices.append(
            f"{what} could not be made: {type(problem).__name__}: {problem}; the model itself is"
            " whole"
        )
        return None


class _Clock:
    """The seconds of each stage. It also reports when a stage begins."""

    def __init__(self, report: Stage) -> None:
        self.started_at = time.time()
        self._report = report
        self._names: list[str] = []
        self._starts: list[float] = []

    def stage(self, name: str, words: str) -> Callable[..., None]:
        """Begin a stage. The result reports its progress: (done, of how many, a figure)."""
        self._names.append(name)
        self._starts.append(time.monotonic())
        self._report(name, 0, 0, words)

        def progress(done: int, of: int = 0, figure: float | None = None) -> None:
            self._report(name, done, of, words if figure is None else f"{words} {figure:.2f}")

        return progress

    def finish(self) -> dict[str, float]:
        """Seconds of each stage; the last one ends now."""
        seconds = np.diff([*self._starts, time.monotonic()]).round(3)
        return dict(zip(self._names, seconds.tolist(), strict=True))


def _check_target(out: Path) -> None:
    """Refuse a folder that cannot take an artifact, or that holds something else, before
    training."""
    if os.path.isfile(out):
        raise Conflict(f"{out} is a file; name a folder with --out")
    check_folder(out, ROOM)
    if not out.exists():
        return
    folders = [name for name in ARTIFACT_FILES if (out / name).is_dir()]
    if folders:
        raise Conflict(
            f"{out / folders[0]} is a folder, and the artifact has a file of that name; name"
            " another with --out"
        )
    if is_artifact(out):
        _files_of(out)
    elif any(not path.name.startswith(SCRATCH) for path in out.iterdir()):
        raise Conflict(f"{out} exists and holds no artifact; name another folder with --out")


@contextmanager
def _whole_or_nothing(out: Path) -> Iterator[Path]:
    """A folder whose files replace those of the artifact in `out` if all goes well; other files in
    `out` stay. It is made in `out`, or in the nearest folder above that exists, so that files are
    renamed and never copied."""
    out = Path(os.path.realpath(out))
    there = next(folder for folder in (out, *out.parents) if folder.is_dir())
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=there) as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        new.mkdir()
        old.mkdir()
        yield new
        out.mkdir(parents=True, exist_ok=True)
        with _locked(out):
            leaving = [
                (out / name, old / name) for name in _files_of(out) if (out / name).is_file()
            ]
            _rename_all([*leaving, *((path, out / path.name) for path in _manifest_last(new))])


def _files_of(folder: Path) -> tuple[str, ...]:
    """Names of Nelbo's files in a folder, the manifest first: without it the others are no
    artifact."""
    if not is_artifact(folder):
        return ()
    try:
        names = files_of(parse_manifest((folder / MANIFEST).read_bytes()))
    except InvalidArtifact as problem:
        raise Conflict(
            f"{folder} holds a {MANIFEST} that is no artifact's ({problem.message}); remove it, or"
            " name another"
            " folder with --out"
        ) from None
    return tuple(name for name in (*names, *ARTIFACT_FILES) if Path(name).name == name)


def _manifest_last(folder: Path) -> list[Path]:
    return sorted(folder.iterdir(), key=lambda path: path.name == MANIFEST)


def _rename_all(moves: list[tuple[Path, Path]]) -> None:
    """Rename all files, or none if one cannot be renamed or a signal interrupts."""
    try:
        for path, target in moves:
            path.rename(target)
    except BaseException:
        for path, target in reversed(moves):
            if not path.exists():
                target.rename(path)
        raise


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Wait for another training run that writes to this folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

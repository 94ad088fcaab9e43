"""A law of calibration, small tables and large ones, columns of all kinds: fresh rows have p-values
that are about uniform."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nelbo.encoding import decode
from nelbo.engine import Engine
from tests.training.tables import QUICK, made
from training.calibrate import Calibrated, cross_calibration, split_calibration
from training.data import CROSS_BELOW, Training
from training.export import export, write_manifest
from training.fit import fit_rows

SEEDS, FRESH = 2, 2_000


@pytest.mark.parametrize("rows", [120, 1_000])
@pytest.mark.parametrize("name", ["mixed", "numbers only", "categories only", "one category"])
def test_p_values_of_fresh_rows_are_about_uniform(name: str, rows: int, tmp_path: Path) -> None:
    found, calibrated = [], 0
    for seed in range(SEEDS):
        engine = _engine(made(name, rows, seed), seed, tmp_path)
        fresh = made(name, FRESH, seed=100 + seed).rows
        scores = engine.score(decode(fresh.numbers, fresh.codes, engine.schema))
        found.append(scores.p_value)
        calibrated += len(engine.manifest.calibration.scores)
    p = np.concatenate(found)
    for alpha in (0.05, 0.2):
        error = np.sqrt(alpha * (1 - alpha) * (1 / calibrated + 1 / len(p)))
        assert (p <= alpha).mean() < alpha + 3 * error
        assert (p < alpha + 1e-9).mean() > alpha - 3 * error - _largest_tie(p)


def _engine(training: Training, seed: int, folder: Path) -> Engine:
    vae, _ = fit_rows(training.schema, training.rows, training.split, QUICK, seed, lambda *_: None)
    export(folder, vae, "table", training, QUICK, seed)
    found = _calibrated(Engine.load(folder), training, seed)
    manifest = Engine.load(folder).manifest.model_copy(
        update={"calibration": found.calibration, "surprise": found.surprise}
    )
    return Engine(write_manifest(folder, manifest))


def _calibrated(engine: Engine, training: Training, seed: int) -> Calibrated:
    if len(training.rows) < CROSS_BELOW:
        return cross_calibration(training, QUICK, seed, lambda *_: None)
    return split_calibration(engine, training, seed)


def _largest_tie(p: NDArray[np.float64]) -> float:
    """Rows of few categories have few scores: a p-value is then as large as the tie it stands
    in."""
    return float(np.unique(p, return_counts=True)[1].max() / len(p))

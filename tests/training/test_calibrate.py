"""A law of calibration, small tables and large ones, columns of all kinds: fresh rows have p-values
that are about uniform."""

import numpy as np
import pytest
from numpy.typing import NDArray

from nelbo.scores import p_values
from tests.training.tables import QUICK, made
from training.calibrate import cross_calibration
from training.data import CROSS_BELOW, Rows
from training.fit import fit_rows
from training.vae import VAE, score

SEEDS, FRESH = 2, 2_000


@pytest.mark.parametrize("rows", [120, 1_000])
@pytest.mark.parametrize("name", ["mixed", "numbers only", "categories only"])
def test_p_values_of_fresh_rows_are_about_uniform(name: str, rows: int) -> None:
    found, calibrated = [], 0
    for seed in range(SEEDS):
        calibration, vae = _calibrated(name, rows, seed)
        found.append(p_values(_nelbos(vae, made(name, FRESH, seed=100 + seed).rows), calibration))
        calibrated += len(calibration)
    p = np.concatenate(found)
    for alpha in (0.05, 0.2):
        error = np.sqrt(alpha * (1 - alpha) * (1 / calibrated + 1 / len(p)))
        assert (p <= alpha).mean() < alpha + 3 * error
        assert (p < alpha + 1e-9).mean() > alpha - 3 * error - _largest_tie(p)


def _calibrated(name: str, rows: int, seed: int) -> tuple[NDArray[np.float64], VAE]:
    training = made(name, rows, seed)
    vae, _ = fit_rows(training.schema, training.rows, training.split, QUICK, seed, lambda *_: None)
    if rows < CROSS_BELOW:
        scores = cross_calibration(
            training.schema, training.rows, QUICK, seed, lambda *_: None
        ).scores
    else:
        scores = tuple(_nelbos(vae, training.rows.take(training.split.calibrate)))
    return np.sort(scores), vae


def _nelbos(vae: VAE, rows: Rows) -> NDArray[np.float64]:
    terms, kl = score(vae, rows)
    return np.asarray((terms.sum(1) + kl).numpy(), dtype=np.float64)


def _largest_tie(p: NDArray[np.float64]) -> float:
    """Rows of few categories have few scores: a p-value is then as large as the tie it stands
    in."""
    return float(np.unique(p, return_counts=True)[1].max() / len(p))

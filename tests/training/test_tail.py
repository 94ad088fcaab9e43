"""Peaks over a threshold: about alpha of the rows are flagged beyond the counts too, and a tail
that is none is not used."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nelbo.artifact import REACH, Calibration
from nelbo.scores import p_values
from training import tail

Floats = NDArray[np.float64]
N, TABLES = 2_000, 80

SCORES: dict[str, Callable[[Floats], Floats]] = {
    "exponential": lambda u: -np.log(u),
    "Gaussian": lambda u: -torch.special.ndtri(torch.from_numpy(u)).numpy(),
    "Pareto": lambda u: u ** (-1 / 3),
    "uniform": lambda u: 1 - u,
}
"""The score that a share u of all rows exceeds."""


def calibrated(scores: Floats, seed: int = 0) -> Calibration:
    return tail.with_tail(Calibration(method="split", scores=tuple(np.sort(scores).tolist())), seed)


@cache
def calibrations(name: str) -> list[Calibration]:
    return [
        calibrated(SCORES[name](np.random.default_rng([i, 0]).random(N)), i) for i in range(TABLES)
    ]


def flagged(found: Calibration, score: Callable[[Floats], Floats], alphas: Floats) -> Floats:
    """The share of all rows that have a p-value of alpha or less."""
    u = np.geomspace(0.2, 1e-9, 20_000)
    p_value = p_values(score(u), np.array(found.scores), found.used_tail)
    return np.array([u[p_value <= alpha].max(initial=0.0) for alpha in alphas])


@pytest.mark.parametrize("name", SCORES)
def test_about_alpha_of_the_rows_are_flagged_by_counts_and_beyond_them(name: str) -> None:
    """Mean over calibrations: by counts alpha within its error, beyond them up to twice alpha, as
    the shape is estimated."""
    score, counts = SCORES[name], np.array([0.05, 0.01, 1 / (N + 1)])
    alphas = np.append(counts, counts[-1] / np.array([3, 30]))
    used = [calibration for calibration in calibrations(name) if calibration.used_tail]
    assert len(used) > 0.85 * TABLES
    ratio = np.array([flagged(calibration, score, alphas) for calibration in used]) / alphas
    mean, error = ratio.mean(0), ratio.std(0) / np.sqrt(len(ratio))
    assert (np.abs(mean - 1) < 4 * error + 0.01)[:3].all()
    assert (mean < 2 + 2 * error).all()
    assert (mean > 0.3).all()


def test_the_best_tail_alone_would_flag_far_too_many() -> None:
    score, alpha = SCORES["exponential"], 1 / (N + 1) / 100
    ratio: dict[str, list[float]] = {"averaged": [], "best": []}
    for found in calibrations("exponential"):
        if found.tail is not None:
            excess = np.array(found.scores[-found.tail.excesses :]) - found.tail.threshold
            alone = found.tail.model_copy(
                update={"components": ((1.0, *tail.best(excess)),), "used": True}
            )
            both = {"averaged": found, "best": found.model_copy(update={"tail": alone})}
            for name, calibration in both.items():
                ratio[name] += (flagged(calibration, score, np.array([alpha])) / alpha).tolist()
    assert np.mean(ratio["averaged"]) < 3 < 6 < np.mean(ratio["best"])


def test_a_generalised_pareto_distribution_is_found_again() -> None:
    for shape, scale in ((0.4, 2.0), (-0.3, 5.0)):
        u = np.random.default_rng(0).random(20_000)
        excess = np.sort(scale * (u**-shape - 1) / shape)
        assert tail.best(excess) == pytest.approx((shape, scale), rel=0.05)
        weight, shapes, scales = tail.posterior(excess)
        assert weight.sum() == pytest.approx(1)
        assert (weight @ shapes, weight @ scales) == pytest.approx((shape, scale), rel=0.05)


def test_the_check_refuses_a_right_tail_as_often_as_its_level_says() -> None:
    refused = [
        tail.goodness_of_fit(
            np.sort(np.random.default_rng([i, 1]).exponential(size=60)), np.random.default_rng(i)
        )
        <= tail.LEVEL
        for i in range(100)
    ]
    assert np.mean(refused) == pytest.approx(tail.LEVEL, abs=3 * np.sqrt(0.05 * 0.95 / 100))


@pytest.mark.parametrize("seed", range(5))
def test_a_tail_of_two_clumps_fails_the_check_and_p_values_stay_counts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=N) + np.where(rng.random(N) < 0.02, 6.0, 0.0)
    found = calibrated(scores, seed)
    assert found.tail is not None
    assert found.tail.fit_p_value <= tail.LEVEL
    assert found.used_tail is None
    assert found.smallest == 1 / (N + 1)
    assert "no generalised Pareto distribution fits the 100 calibration scores" in next(
        tail.notices(found)
    )


@pytest.mark.parametrize(
    "scores", [np.arange(999.0), np.repeat(np.arange(10.0), 200), np.zeros(5_000), np.empty(0)]
)
def test_too_few_excesses_make_no_tail_and_say_so(scores: Floats) -> None:
    found = calibrated(scores)
    assert found.tail is None
    assert f"fewer than 50 of {len(scores):,} calibration scores" in next(tail.notices(found))


def test_the_same_scores_and_seed_make_the_same_tail_which_says_nothing() -> None:
    scores = np.random.default_rng(3).exponential(size=N)
    found = calibrated(scores, 5)
    assert (
        found == calibrated(scores, 5) == Calibration.model_validate_json(found.model_dump_json())
    )
    assert found.smallest == 1 / (N + 1) / REACH
    assert list(tail.notices(found)) == []

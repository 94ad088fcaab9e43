"""What a classifier tells apart does not depend on the order of rows, and what cannot be measured
is left out and named."""

from pathlib import Path

import numpy as np
import pytest

from nelbo.engine import Engine
from tests.training.tables import QUICK, made
from training import evaluate as evaluation
from training.data import Rows
from training.evaluate import detect_auc, evaluate
from training.export import export
from training.fit import fit_rows

RNG = np.random.default_rng(0)


def rows(*columns: object) -> Rows:
    numbers = np.column_stack([np.asarray(column, dtype=np.float64) for column in columns])
    return Rows(numbers, np.zeros((len(numbers), 1), dtype=np.int64))


def test_fresh_rows_of_a_sorted_table_cannot_be_told_from_those_fitted_to() -> None:
    day, price = np.sort(RNG.normal(size=5_000)), RNG.normal(size=5_000)
    fresh = np.sort(RNG.choice(5_000, 500, replace=False))
    fit = np.setdiff1d(np.arange(5_000), fresh)
    floor = detect_auc(rows(day[fresh], price[fresh]), rows(day[fit], price[fit]), 0)
    assert floor == pytest.approx(0.5, abs=0.06)


def test_rows_of_another_distribution_are_told_apart() -> None:
    other = rows(RNG.normal(size=1_000), RNG.normal(2, 1, 1_000))
    assert detect_auc(rows(RNG.normal(size=500), RNG.normal(size=500)), other, 0) > 0.85


@pytest.mark.parametrize(
    "column",
    [
        np.full(40, np.nan),
        np.where(np.arange(40) == 3, 1.0, np.nan),
        np.full(40, 7.0),
        RNG.normal(size=40) * 1e307,
        RNG.normal(size=40) * 1e-308,
    ],
    ids=["empty", "empty but one", "constant", "huge", "tiny"],
)
def test_a_column_that_tells_nothing_or_overflows_is_no_hindrance(column: object) -> None:
    table = rows(column, RNG.normal(size=40))
    for seed in range(5):
        assert 0 <= detect_auc(table, table, seed) <= 1


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_rows_are_compared_too(count: int) -> None:
    assert 0 <= detect_auc(rows(np.arange(count)), rows(np.arange(40)), 0) <= 1


def test_a_metric_that_fails_or_is_not_finite_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = made("one column")
    vae, _ = fit_rows(training.schema, training.rows, training.split, QUICK, 0, lambda *_: None)
    export(tmp_path, vae, "one", training, QUICK, 0)

    def fails(*_: object) -> float:
        raise ValueError("window shape cannot be larger")

    monkeypatch.setattr(evaluation, "detect_auc", fails)
    monkeypatch.setattr(evaluation, "pair_error", lambda *_: np.inf)
    found = evaluate(Engine.load(tmp_path), training, 0)
    assert set(found.metrics) == {"nelbo", "z_kl", "shape_error", "shape_error_floor"}
    assert len(found.notices) == 4
    assert (
        "metric detect_auc could not be measured: ValueError: window shape cannot be larger"
        in found.notices
    )

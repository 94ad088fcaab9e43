"""What a classifier tells apart does not depend on the order of rows, and what cannot be measured
is left out and named."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nelbo.engine import Engine
from tests.training.tables import QUICK, made
from training import evaluate as evaluation
from training.data import Rows
from training.evaluate import (
    LEAST_SYNTHETIC,
    Evaluation,
    association_error,
    detect_auc,
    evaluate,
    pair_errors,
    shape_errors,
)
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
    monkeypatch.setattr(evaluation, "pair_errors", lambda *_: np.array([np.inf]))
    found = evaluate(Engine.load(tmp_path), training, 0)
    assert set(found.metrics) == {
        *("nelbo", "z_kl", "shape_error", "shape_error_floor"),
        *("association_error", "association_error_floor"),
    }
    assert len(found.notices) == 4
    assert (
        "metric detect_auc could not be measured: ValueError: window shape cannot be larger"
        in found.notices
    )


def correlated(count: int, seed: int = 0) -> Rows:
    """Numbers and a category that go together, sorted by the first number."""
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(count, 3)) + rng.normal(size=(count, 1))
    numbers = numbers[np.argsort(numbers[:, 0])]
    return Rows(numbers, np.digitize(numbers[:, :1], [-2, -1, 0, 1]).astype(np.int64))


@pytest.mark.parametrize("measure", [shape_errors, pair_errors, association_error])
@pytest.mark.parametrize("count", [100, 3_000])
def test_the_floor_of_a_sorted_table_is_the_error_of_fresh_rows(
    measure: evaluation.Errors, count: int
) -> None:
    floors, errors = [], []
    for seed in range(0, 40, 4):
        fit, fresh = correlated(count, seed), correlated(count // 5, seed + 1)
        compared = Evaluation({}, fit, fresh, correlated(2_000, seed + 2))
        floors.append(compared.floors(measure).mean())
        errors.append(compared.errors(measure).mean())
    assert np.mean(floors) == pytest.approx(np.mean(errors), rel=0.25)


def test_a_cell_that_is_missing_in_synthetic_rows_alone_is_off() -> None:
    none = np.empty((300, 0))
    names = Rows(none, RNG.integers(1, 100, (300, 1)))
    missing = Rows(none, np.full((300, 1), 101))
    assert shape_errors(names, missing).tolist() == [100]


@pytest.mark.parametrize("is_sorted", [False, True])
def test_a_small_table_in_any_order_is_judged_by_two_thousand_synthetic_rows(
    tmp_path: Path, is_sorted: bool
) -> None:
    training = made("mixed")
    if is_sorted:
        order = np.argsort(training.rows.numbers[:, 0])
        training = replace(training, rows=training.rows.take(order))
    vae, _ = fit_rows(training.schema, training.rows, training.split, QUICK, 0, lambda *_: None)
    export(tmp_path, vae, "small", training, QUICK, 0)
    judged = evaluate(Engine.load(tmp_path), training, 0)
    assert len(judged.synthetic) == LEAST_SYNTHETIC > len(training.rows)
    assert judged.metrics["detect_auc_floor"] == pytest.approx(0.5, abs=0.1)
    assert judged.metrics["shape_error_floor"] == pytest.approx(4.0, abs=1.5)
    assert judged.notices == ()


def test_a_column_that_never_varies_is_measured_with_and_without(tmp_path: Path) -> None:
    training = made("mixed")
    codes = training.rows.codes.copy()
    codes[:, 0] = np.arange(len(codes)) % 200 + 1  # too rare to be generated
    categories = tuple(f"name {i:03}" for i in range(200))
    columns = tuple(
        column.model_copy(update={"categories": categories})
        if column.name == "categorical 1"
        else column
        for column in training.schema.columns
    )
    schema = training.schema.model_copy(update={"columns": columns})
    training = replace(training, schema=schema, rows=Rows(training.rows.numbers, codes))
    vae, _ = fit_rows(schema, training.rows, training.split, QUICK, 0, lambda *_: None)
    export(tmp_path, vae, "names", training, QUICK, 0)
    metrics = evaluate(Engine.load(tmp_path), training, 0).metrics
    assert metrics["detect_auc"] > 0.99
    assert metrics["detect_auc_varied"] < metrics["detect_auc"] - 0.05

"""Cells that are given, wherever they are in the row, shape all the others."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from nelbo.encoding import decode
from nelbo.engine import Engine
from nelbo.errors import InvalidInput
from nelbo.schema import Column, Schema
from training.config import Config
from training.data import Rows, split_rows
from training.export import export_model
from training.fit import fit_rows, hidden_cells
from training.likelihoods import Likelihoods

ROWS, FRAUD = 4_000, 0.02
SCHEMA = Schema(
    columns=(
        Column(name="amount", kind="continuous"),
        Column(name="country", kind="categorical", categories=("DE", "FR", "XX", "YY")),
        Column(name="hour", kind="integer"),
        Column(name="label", kind="categorical", categories=("ok", "fraud")),
    )
)


def payments(seed: int = 0) -> Rows:
    """One payment in fifty is a fraud, and each of its other cells says so."""
    rng = np.random.default_rng(seed)
    fraud = rng.random(ROWS) < FRAUD
    amount = np.where(fraud, 400.0, 30.0) * rng.lognormal(0, 0.4, ROWS)
    hour = np.where(fraud, rng.integers(0, 4, ROWS), rng.integers(7, 23, ROWS))
    country = rng.integers(0, 2, ROWS) + 2 * fraud
    codes = np.column_stack([country, fraud]).astype(np.int64)
    return Rows(np.column_stack([amount, hour]), codes)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    rows = payments()
    config = Config()
    vae, _ = fit_rows(SCHEMA, rows, split_rows(ROWS, 0.1, 0), config, 0, lambda *_: None)
    folder = tmp_path_factory.mktemp("payments")
    export_model(folder, vae, "payments", SCHEMA, config, 0, rows)
    return Engine.load(folder)


def completed(engine: Engine, **cells: str) -> pa.RecordBatch:
    """500 rows with these cells, all others drawn."""
    row = {name: cells.get(name) for name in SCHEMA.names}
    table = pa.Table.from_pylist(500 * [row], pa.schema([(name, pa.string()) for name in row]))
    (batch,) = table.combine_chunks().to_batches()
    return engine.reconstruct(batch, 0, seed=1).batch


def like_fraud(table: pa.RecordBatch) -> float:
    hour = np.asarray(table["hour"].to_pylist(), float)
    foreign = np.isin(np.array(table["country"].to_pylist(), str), ["XX", "YY"])
    return float(np.mean((hour < 4) & foreign))


def test_a_rare_class_in_the_last_column_shapes_the_columns_before_it(engine: Engine) -> None:
    table = completed(engine, label="fraud")
    assert set(table["label"].to_pylist()) == {"fraud"}
    assert like_fraud(table) > 0.8


def test_a_cell_in_the_middle_shapes_those_on_both_sides(engine: Engine) -> None:
    table = completed(engine, country="XX")
    assert np.mean(np.array(table["label"].to_pylist()) == "fraud") > 0.9
    assert like_fraud(table) > 0.8


def test_the_usual_class_stays_usual(engine: Engine) -> None:
    assert like_fraud(completed(engine, label="ok")) < 0.01


def test_half_of_the_rows_of_a_step_hide_cells_and_some_show_a_few_alone() -> None:
    rows = payments()
    likelihoods = Likelihoods.fit(SCHEMA, rows.numbers, rows.codes)
    hidden = hidden_cells(256, likelihoods, 0.5, torch.Generator().manual_seed(0))
    assert not hidden[127:].any()
    shown = (~hidden[:63]).sum(1)
    assert shown.min() == 1
    assert shown.max() == 3
    assert not hidden_cells(256, likelihoods, 0.0, torch.Generator()).any()


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_the_last_row_of_the_smallest_step_is_whole(rows: int) -> None:
    of_table = payments()
    likelihoods = Likelihoods.fit(SCHEMA, of_table.numbers, of_table.codes)
    assert not hidden_cells(rows, likelihoods, 1.0, torch.Generator())[-1].any()


def frauds(rows: int) -> pa.RecordBatch:
    """Frauds that the model has not seen, as a table."""
    table = payments(seed=1)
    return decode(table.numbers, table.codes, SCHEMA).filter(pa.array(table.codes[:, 1] == 1))[
        :rows
    ]


def test_copies_of_a_rare_class_keep_it_and_look_like_it(engine: Engine) -> None:
    assert set(engine.manifest.seldom) == {"country", "label"}
    copies = engine.augment(frauds(50), 0, 4, seed=0).batch
    assert set(copies["label"].to_pylist()) == {"fraud"}
    assert like_fraud(copies) > 0.9


def test_the_farther_copies_spread_the_fewer_keep_their_class(engine: Engine) -> None:
    shares = [
        np.mean(
            np.array(engine.augment(frauds(60), 0, 9, 0, spread).batch["label"].to_pylist())
            == "fraud"
        )
        for spread in (0.0, 0.3, 0.7, 1.0)
    ]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 1
    assert shares[-1] < 0.2


@pytest.mark.parametrize("spread", [0.0, 0.4, 1.0])
def test_kept_columns_are_those_of_the_row_whatever_the_spread(
    engine: Engine, spread: float
) -> None:
    source = frauds(40)
    keep = ("amount", "label")
    copies = engine.augment(source, 0, 3, 0, spread, keep).batch
    own = source.take(copies["row"])
    for name in keep:
        assert copies[name].cast(pa.string()).equals(own[name].cast(pa.string()))
    assert not copies["hour"].equals(own["hour"])


def test_a_kept_category_that_the_model_does_not_know_has_its_own_text(engine: Engine) -> None:
    row = {"amount": "30.0", "country": "ZZ", "hour": None, "label": "ok"}
    source = pa.RecordBatch.from_pylist([row], pa.schema([(name, pa.string()) for name in row]))
    copies = engine.augment(source, 0, 5, 0, keep=("country", "hour")).batch
    assert copies["country"].to_pylist() == ["ZZ"] * 5
    assert copies["hour"].null_count == 5


def test_a_column_that_the_model_does_not_have_cannot_be_kept(engine: Engine) -> None:
    with pytest.raises(InvalidInput, match="no column 'colour' to keep; its columns are amount"):
        engine.augment(frauds(1), 0, 1, 0, keep=("colour",))

"""What a cell should be by all others: right as often as it says, whatever the cell itself
holds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

import nelbo
from nelbo.engine import Engine
from training.config import Config
from training.data import TrainingSource
from training.pipeline import train

DATA = Path(nelbo.__file__).with_name("data")
ROWS = 300


def trained(table: pa.Table, folder: Path, steps: int) -> Engine:
    pq.write_table(table, folder / "table.parquet")
    config = Config(epochs=4, min_steps=steps, max_steps=600)
    train(
        TrainingSource(folder / "table.parquet"),
        "expected",
        folder / "artifact",
        config,
        0,
        None,
        lambda *_: None,
    )
    return Engine.load(folder / "artifact")


@pytest.fixture(scope="module")
def adult(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return trained(
        pq.read_table(DATA / "adult-train.parquet").slice(0, 8_000),
        tmp_path_factory.mktemp("adult"),
        150,
    )


@pytest.fixture(scope="module")
def held_out() -> pa.RecordBatch:
    return one_batch(pq.read_table(DATA / "adult-test.parquet").slice(0, ROWS))


def one_batch(table: pa.Table) -> pa.RecordBatch:
    return table.combine_chunks().to_batches()[0]


def hanging(rows: int, seed: int) -> pa.Table:
    """Columns that all hang on the first; `gap` is the more often missing, the higher that is."""
    rng = np.random.default_rng(seed)
    first = rng.uniform(0, 100, rows)
    days = np.round(2 * first + 5 * rng.normal(size=rows)).astype("timedelta64[D]")
    return pa.table(
        {
            "first": pa.array(np.round(first, 1)),
            "second": pa.array(np.round(3 * first + 5 * rng.normal(size=rows), 1)),
            "day": pa.array((np.datetime64("2024-03-01") + days).astype("datetime64[us]")),
            "gap": pa.array(
                np.round(first + rng.normal(size=rows)).astype(np.int64),
                mask=rng.random(rows) < first / 100,
            ),
        }
    )


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return trained(hanging(4_000, 0), tmp_path_factory.mktemp("chain"), 500)


@pytest.fixture(scope="module")
def rows() -> pa.RecordBatch:
    return one_batch(hanging(ROWS, 1))


def floats(cells: Sequence[object]) -> NDArray[np.float64]:
    return np.array([np.nan if cell is None else cell for cell in cells], dtype=np.float64)


@pytest.mark.parametrize(
    "column", ["age", "fnlwgt", "hours_per_week", "education_num", "capital_gain", "capital_loss"]
)
def test_nine_of_ten_values_of_rows_never_seen_lie_in_their_interval(
    column: str, adult: Engine, held_out: pa.RecordBatch
) -> None:
    """More do where one value has most of the mass; that many rows tell 0.90 from 0.85."""
    made = adult.explain(held_out, column).batch
    value, low, high = (
        floats(cells.to_pylist()) for cells in (held_out[column], made["low"], made["high"])
    )
    assert np.mean((low <= value) & (value <= high)) > 0.85
    if column in ("age", "fnlwgt", "hours_per_week"):
        assert np.mean((low <= value) & (value <= high)) < 0.95


@pytest.mark.parametrize("column", ["sex", "income", "relationship", "workclass"])
def test_the_most_frequent_category_is_right_as_often_as_its_share_says(
    column: str, adult: Engine, held_out: pa.RecordBatch
) -> None:
    made = adult.explain(held_out, column).batch
    right = np.mean(
        [
            a == b
            for a, b in zip(made["expected"].to_pylist(), held_out[column].to_pylist(), strict=True)
        ]
    )
    assert right == pytest.approx(np.mean(np.array(made["share"])), abs=0.12)


@pytest.mark.parametrize("wrong", ["swapped", "shifted"])
def test_an_odd_cell_lies_outside_its_interval_and_does_not_drag_what_is_expected(
    wrong: str, chain: Engine, rows: pa.RecordBatch
) -> None:
    true = np.array(rows["second"])
    cells = np.roll(true, 7) if wrong == "swapped" else true + 80
    odd = np.abs(cells - true) > 40
    given = rows.set_column(1, "second", pa.array(cells))
    made = chain.explain(given, "second").batch
    assert made.equals(chain.explain(rows, "second").batch), "the cell itself has no part in it"
    low, middle, high = (np.array(made[name]) for name in ("low", "expected", "high"))
    assert np.mean((cells < low) | (cells > high), where=odd) > 0.9
    copies = np.array(chain.augment(given, 0, 99, 0).batch["second"]).reshape(ROWS, 99)
    seen, hidden = np.abs(np.median(copies, axis=1) - true)[odd], np.abs(middle - true)[odd]
    assert np.median(seen) > 1.5 * np.median(hidden), (
        "seen by the encoder it drags z towards itself"
    )


def test_the_share_of_missing_draws_is_how_often_such_a_row_lacks_the_value(
    chain: Engine, rows: pa.RecordBatch
) -> None:
    made = chain.explain(rows, "gap").batch
    assert np.abs(floats(made["missing"].to_pylist()) - np.array(rows["first"]) / 100).mean() < 0.1
    none = [share == 1.0 for share in made["missing"].to_pylist()]
    assert [value is None for value in made["expected"].to_pylist()] == none


def test_expected_numbers_and_datetimes_are_values_of_their_column(
    chain: Engine, rows: pa.RecordBatch
) -> None:
    for column, kind in (("day", pa.timestamp("us")), ("gap", pa.int64()), ("first", pa.float64())):
        made = chain.explain(rows, column).batch
        assert {made.schema.field(name).type for name in ("expected", "low", "high")} == {kind}
        assert made["share"].null_count == ROWS
    low, day, high = (
        np.array(chain.explain(rows, "day").batch[name]) for name in ("low", "expected", "high")
    )
    assert ((low <= day) & (day <= high)).all()
    assert (day.astype("datetime64[D]") == day).all()

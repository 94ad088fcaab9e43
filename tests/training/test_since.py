"""A datetime that stays close to another is modelled as the time since it, in all that is made and
said of rows."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nelbo.encoding import encode
from nelbo.engine import Engine
from training.config import Config
from training.data import TrainingSource
from training.pipeline import train

HOUR = np.timedelta64(1, "h")


def orders(rows: int, seed: int) -> pa.Table:
    """Orders of ten years; parcels leave after 20 to 60 hours, express ones after 2 to 10, and each
    tenth has not left."""
    rng = np.random.default_rng(seed)
    ordered = np.datetime64("2014-01-01T00:00:00") + rng.integers(0, 315_000_000, rows).astype(
        "timedelta64[s]"
    )
    express = rng.random(rows) < 0.3
    hours = np.where(express, rng.uniform(2, 10, rows), rng.uniform(20, 60, rows))
    left = ordered + (hours * 3_600).astype("timedelta64[s]")
    columns = pa.array(ordered), pa.array(express), pa.array(left, mask=rng.random(rows) < 0.1)
    return pa.table(dict(zip(("ordered", "express", "left"), columns, strict=True)))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("orders")
    pq.write_table(orders(4_000, 0), folder / "orders.parquet")
    config = Config(min_steps=300, max_steps=300)
    train(
        TrainingSource(folder / "orders.parquet"),
        "orders",
        folder / "artifact",
        config,
        0,
        None,
        lambda *_: None,
    )
    return Engine.load(folder / "artifact")


def batch(*rows: tuple[str | None, bool, str | None]) -> pa.RecordBatch:
    return pa.record_batch(
        dict(zip(("ordered", "express", "left"), map(list, zip(*rows, strict=True)), strict=True))
    )


def test_no_made_row_leaves_before_it_is_ordered(engine: Engine) -> None:
    copies = engine.augment(orders(500, 1).combine_chunks().to_batches()[0], 0, 2, seed=0).batch
    for made in (engine.generate(0, 0, 2_000).batch, copies):
        rows = pa.Table.from_batches([made]).to_pandas().dropna()
        hours = (rows.left - rows.ordered).dt.total_seconds() / 3_600
        assert len(rows) > 0.8 * made.num_rows
        assert hours.between(1.9, 60.1).all()
        assert ((hours < 15) == rows.express).mean() > 0.95


def test_a_parcel_that_takes_a_month_is_unlikely_in_that_column(engine: Engine) -> None:
    late = ("2017-05-02T10:00:00", False, "2017-06-02T10:00:00")
    scored = engine.score(batch(("2017-05-02T10:00:00", False, "2017-05-03T20:00:00"), late))
    column = engine.manifest.order.index("left")
    assert scored.terms[1, column] > scored.terms[0, column] + 5


def test_given_datetimes_stay_and_missing_ones_follow_from_them(engine: Engine) -> None:
    given = batch(
        ("2017-05-02T10:00:00", True, None), ("2017-05-02T10:00:00", False, "2017-05-04T10:00:00"),
        (None, False, "2017-05-04T10:00:00"), (None, False, None),
    )  # fmt: skip
    made = engine.reconstruct(given, 0, seed=0).batch.to_pylist()
    express, known, unordered, nothing = made
    assert str(express["ordered"]) == "2017-05-02 10:00:00"
    assert 2 <= (express["left"] - express["ordered"]) / HOUR.astype(object) <= 60
    assert str(known["left"]) == str(unordered["left"]) == "2017-05-04 10:00:00"
    assert unordered["ordered"] is not None
    assert 2 <= (nothing["left"] - nothing["ordered"]) / HOUR.astype(object) <= 60


def test_a_datetime_is_filled_also_where_the_one_that_it_counts_from_stays_missing(
    engine: Engine,
) -> None:
    made = engine.reconstruct(batch((None, False, None)), 0, seed=0, columns=["left"]).batch
    assert made["ordered"].to_pylist() == [None]
    assert made["left"].null_count == 0


def test_what_a_datetime_should_be_is_a_datetime(engine: Engine) -> None:
    rows = batch(
        ("2017-05-02T10:00:00", True, "2017-06-02T10:00:00"), ("2017-05-02T10:00:00", False, None)
    )
    ordered = np.datetime64("2017-05-02T10:00:00")
    told = engine.explain(rows, "left").batch
    low, high = (told[name].to_numpy(zero_copy_only=False) for name in ("low", "high"))
    assert (low[0] - ordered) / HOUR < 10
    assert ((high - ordered) / HOUR < 61).all()
    assert ((low - ordered) / HOUR > 1).all()


def test_the_evaluation_compares_the_datetimes_themselves(engine: Engine) -> None:
    assert engine.schema.numbers[1].since == "ordered"
    assert engine.manifest.metrics["shape_error"] < engine.manifest.metrics["shape_error_floor"] + 5
    assert "since ordered" in engine.manifest.likelihoods["left"]
    assert (
        np.nanmax(encode(engine.generate(0, 0, 100).batch, engine.schema).numbers[:, 1])
        < 61 * 3_600e6
    )

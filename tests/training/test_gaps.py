"""Gaps that belong to a row: they can be left as they are while all others are filled."""

import numpy as np
import pyarrow as pa
import pytest

from nelbo.engine import Engine
from nelbo.schema import Column, Schema
from training.config import Config
from training.data import Rows, split_rows
from training.export import export_model
from training.fit import fit_rows

ROWS = 3_000
CODES = ("a", "b")
SCHEMA = Schema(
    columns=(
        Column(name="discount", kind="continuous"),
        Column(name="age", kind="continuous"),
        Column(name="coupon", kind="categorical", categories=CODES),
        Column(name="segment", kind="categorical", categories=("plain", "loyal")),
    )
)


def customers() -> Rows:
    """Loyal customers have a coupon and a discount, others do not. An age is seldom missing."""
    rng = np.random.default_rng(0)
    loyal = rng.random(ROWS) < 0.4
    has_coupon = rng.random(ROWS) < np.where(loyal, 0.97, 0.03)
    discount = np.where(has_coupon, rng.normal(20, 3, ROWS), np.nan)
    age = np.where(rng.random(ROWS) < 0.05, np.nan, rng.normal(40, 10, ROWS))
    coupon = np.where(has_coupon, rng.integers(0, 2, ROWS), len(CODES) + 1)
    codes = np.column_stack([coupon, loyal]).astype(np.int64)
    return Rows(np.column_stack([discount, age]), codes)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    rows, config = customers(), Config()
    vae, _ = fit_rows(SCHEMA, rows, split_rows(ROWS, 0.1, 0), config, 0, lambda *_: None)
    folder = tmp_path_factory.mktemp("customers")
    export_model(folder, vae, "customers", SCHEMA, config, 0, rows)
    return Engine.load(folder)


def blank(segment: str, rows: int = 300) -> pa.RecordBatch:
    """Rows of which only the segment is known."""
    lines = [{"segment": segment}] * rows
    return pa.RecordBatch.from_pylist(lines, pa.schema([(n, pa.string()) for n in SCHEMA.names]))


def test_cells_that_are_usually_missing_in_such_a_row_are_left(engine: Engine) -> None:
    for segment, usual in (("plain", True), ("loyal", False)):
        filled = engine.reconstruct(blank(segment), 0, seed=1, leave_usual=True).batch
        missing = {name: filled[name].null_count / filled.num_rows for name in SCHEMA.names}
        assert missing["age"] == missing["segment"] == 0
        for name in ("coupon", "discount"):
            assert missing[name] > 0.95 if usual else missing[name] < 0.05
        assert engine.reconstruct(blank(segment), 0, seed=1).batch["coupon"].null_count == 0


def test_a_gap_is_left_by_its_row_alone_and_only_in_the_columns_that_are_filled(
    engine: Engine,
) -> None:
    whole = engine.reconstruct(blank("plain"), 0, seed=1, leave_usual=True).batch
    for row in (0, 17, 299):
        one = engine.reconstruct(blank("plain", 1), row, seed=1, leave_usual=True).batch
        assert one.to_pylist() == whole.slice(row, 1).to_pylist()
    some = engine.reconstruct(
        blank("loyal"), 0, seed=1, columns=["coupon", "age"], leave_usual=True
    ).batch
    assert some["discount"].null_count == 300
    assert some["coupon"].null_count < 15

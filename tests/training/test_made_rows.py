"""Rows that a model makes can be scored by it, from every format, whatever its table's columns are
and how it is written."""

import io
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nelbo.engine import Engine
from nelbo.files import FORMATS, Format, open_table
from tests.nelbo.test_round_trip import TYPED, WRITTEN, saved
from tests.training.tables import QUICK
from training.data import TrainingSource
from training.pipeline import train

FORMS = {
    "whole numbers with a point": r"\d\.0",
    "two digits always": r"-?\d+\.\d\d",
    "decimal commas": r"-?\d+(,\d+)?",
    "english thousands": r"-?\d{1,3}(,\d{3})*\.\d\d",
    "german thousands": r"-?\d{1,3}(\.\d{3})*,\d\d",
    "whole thousands": r"\d{1,3}(,\d{3})*",
    "dollars": r"-?\$\d{1,3}(,\d{3})*\.\d\d",
    "euros": r"-?\d{1,3}(\.\d{3})*,\d\d €",
    "percent": r"\d+(\.\d+)?%",
    "yes and no": "Yes|No",
    "Y and N": "Y|N",
    "True and False": "True|False",
    "flags": "0|1",
    "days": r"\d{4}-\d\d-\d\d",
    "american days": r"\d\d/\d\d/\d{4}",
    "days without zeros": r"[1-9]\d?/[1-9]\d?/\d{4}",
    "named months": r"\d\d [A-Z][a-z][a-z] \d{4}",
    "times in UTC": r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC",
}


Trained = tuple[Path, Engine]
"""A table with a column of each kind in each form, and a model of it."""


def trained(folder: Path, batch: pa.RecordBatch, format: Format) -> Trained:
    path = folder / f"table.{format}"
    path.write_bytes(saved(batch, format))
    train(TrainingSource(path), "all", folder / "all", QUICK, 0, None, lambda *_: None)
    return path, Engine.load(folder / "all")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("written"), pa.record_batch(WRITTEN), "csv")


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("typed"), pa.record_batch(TYPED), "parquet")


def rows_of(path: Path | io.BytesIO, format: Format | None = None) -> pa.RecordBatch:
    with open_table(path, format) as read:
        (batch,) = pa.Table.from_batches(list(read.batches())).combine_chunks().to_batches()
    return batch


def made(path: Path, engine: Engine, how: str) -> pa.RecordBatch:
    given = rows_of(path)
    if how == "generate":
        return engine.generate(0, 0, 50).batch
    if how == "augment":
        return engine.augment(given, 0, 2, 0).batch
    blank = [
        column if at % 2 else pa.nulls(len(given), column.type)
        for at, column in enumerate(given.columns)
    ]
    return engine.reconstruct(pa.record_batch(blank, schema=given.schema), 0, 0).batch


@pytest.mark.parametrize("how", ["generate", "augment", "reconstruct"])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("table", ["written", "typed"])
def test_a_model_scores_every_row_that_it_made(
    table: str, how: str, format: Format, request: pytest.FixtureRequest
) -> None:
    path, engine = request.getfixturevalue(table)
    rows = made(path, engine, how)
    read = rows_of(io.BytesIO(saved(rows, format)), format)
    scored = engine.score(read)
    assert scored.errors == []
    assert len(scored.rows) == rows.num_rows


@pytest.mark.parametrize("how", ["generate", "augment", "reconstruct"])
def test_made_cells_are_written_as_the_table_writes_them(written: Trained, how: str) -> None:
    path, engine = written
    rows = rows_of(io.BytesIO(saved(made(path, engine, how), "csv")), "csv")
    for name, form in FORMS.items():
        cells = {cell for cell in rows.column(name).to_pylist() if cell}
        assert [cell for cell in cells if not re.fullmatch(form, cell)] == [], name


@pytest.mark.parametrize("how", ["generate", "augment", "reconstruct"])
@pytest.mark.parametrize("table", ["written", "typed"])
def test_made_columns_stand_in_the_order_of_the_table(
    table: str, how: str, request: pytest.FixtureRequest
) -> None:
    path, engine = request.getfixturevalue(table)
    kept = [
        column.name
        for column in engine.schema.columns
        if how != "generate" or column.kind != "identifier"
    ]
    assert [
        name for name in made(path, engine, how).schema.names if name not in ("row", "copy")
    ] == kept


@pytest.mark.parametrize("how", ["generate", "augment", "reconstruct"])
def test_made_columns_have_the_types_of_the_table(typed: Trained, how: str) -> None:
    path, engine = typed
    own, rows = (
        pq.read_schema(path),
        pq.read_schema(io.BytesIO(saved(made(path, engine, how), "parquet"))),
    )
    assert {name: rows.field(name).type for name in TYPED if name in rows.names} == {
        name: own.field(name).type for name in TYPED if name in rows.names
    }


def test_observed_cells_stay_as_they_are(written: Trained) -> None:
    path, engine = written
    given = rows_of(path)
    read = rows_of(io.BytesIO(saved(engine.reconstruct(given, 0, 0).batch, "csv")), "csv")
    for name in WRITTEN:
        assert read.column(name).to_pylist() == given.column(name).to_pylist(), name


def test_the_report_shows_cells_as_the_table_has_them(written: Trained) -> None:
    page = (written[1].artifact.folder / "report.html").read_text("utf-8")
    assert ">Yes<" in page
    assert "missing" in page
    assert " €" in page

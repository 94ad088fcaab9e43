"""Repairs: probably wrong cells get their expected value, and all others stay as they are."""

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from nelbo.cells import written
from nelbo.encoding import spelled_field, written_as
from nelbo.errors import InvalidInput
from nelbo.files import open_table, open_writer
from nelbo.repairs import Repairs, repaired_schema
from nelbo.rows import SUSPICIOUS
from nelbo.schema import Column
from nelbo.spelling.types import as_type

DAYS = [dt.date(2024, 1, 31), dt.date(2023, 12, 24), None]
MOMENTS = [dt.datetime(2024, 1, 31, 12, 0, 0, 250_000), dt.datetime(1999, 1, 1), None]
TIMES = [dt.time(10, 30), dt.time(0, 0, 1), None]
TEXTS = ["NA", " lamp", "=1+1"]
VALUES: dict[str, Any] = {
    "float": pa.array([1.5, -0.25, None], pa.float32()),
    "double": pa.array([1e300, 0.1, None], pa.float64()),
    "int8": pa.array([1, -3, None], pa.int8()),
    "uint64": pa.array([2**53, 7, None], pa.uint64()),
    "decimal": pa.array([150, 2, None], pa.int64()).cast(pa.decimal128(22, 2)),
    "bool": pa.array([True, False, None]),
    "date32": pa.array(DAYS, pa.date32()),
    "date64": pa.array(DAYS, pa.date64()),
    "ns": pa.array(MOMENTS, pa.timestamp("ns")),
    "zone": pa.array(MOMENTS, pa.timestamp("us", "Europe/Paris")),
    "duration": pa.array([1, 90, None], pa.duration("s")),
    "time32": pa.array(TIMES, pa.time32("s")),
    "time64": pa.array(TIMES, pa.time64("us")),
    "text": pa.array(TEXTS),
    "large": pa.array(TEXTS, pa.large_string()),
    "dictionary": pa.array(TEXTS).dictionary_encode(),
}
KINDS = {
    "float": "continuous",
    "double": "continuous",
    "int8": "integer",
    "uint64": "integer",
    "decimal": "continuous",
    "bool": "boolean",
    "date32": "datetime",
    "date64": "datetime",
    "ns": "datetime",
    "zone": "datetime",
    "duration": "integer",
}


def cell(row: int, column: str, value: str | None, expected: str | None, q_value: float) -> Any:
    return {
        "row": row,
        "q_value": q_value,
        "column": column,
        "value": value,
        "expected": expected,
    }


def suspicious(*cells: Any) -> pa.Table:
    return pa.Table.from_pylist(list(cells), schema=SUSPICIOUS)


def saved(table: pa.Table, path: Path) -> Path:
    with open_writer(path, schema=table.schema) as writer:
        for batch in table.to_batches(max_chunksize=2):
            writer.write(batch)
    return path


def repaired(path: Path, repairs: Repairs) -> pa.Table:
    with open_table(path) as table:
        return pa.Table.from_batches(repairs.repaired(table), schema=repaired_schema(table))


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_typed_table_without_repairs_stays_as_it_is(suffix: str, tmp_path: Path) -> None:
    table = pa.table(VALUES)
    path = saved(table, tmp_path / f"table.{suffix}")
    with open_table(path) as opened:
        before = opened.schema.remove_metadata()
    same = repaired(path, Repairs(suspicious()))
    assert same.to_pylist() == table.to_pylist()
    assert same.schema.field("dictionary").type == table.schema.field("dictionary").type
    assert same.schema.field("duration").type == pa.duration("s")
    assert before.names == same.schema.names


@pytest.mark.parametrize("name", VALUES)
def test_the_expected_value_of_each_type_becomes_the_cell(name: str, tmp_path: Path) -> None:
    """The expected value is written as `clean` writes it: the value of the second row."""
    table = pa.table(VALUES)
    path = saved(table, tmp_path / "table.arrow")
    with open_table(path) as opened:
        batch = next(opened.batches())
    column = Column(name=name, kind=KINDS.get(name, "categorical"))
    field = spelled_field(written_as(column, batch.schema.field(name)))
    expected = written(as_type(batch.column(name), field.type), field)[1].as_py()

    rows = repaired(path, Repairs(suspicious(cell(0, name, "other", expected, 0.05))))
    assert rows[name].to_pylist() == [VALUES[name][i].as_py() for i in (1, 1, 2)]
    others = [each for each in VALUES if each != name]
    assert rows.select(others).to_pylist() == table.select(others).to_pylist()


def test_only_cells_of_probably_wrong_rows_with_another_expected_value_are_replaced(
    tmp_path: Path,
) -> None:
    path = tmp_path / "orders.csv"
    content = "id,product,price\n007,lmap,1.50\nN/A,mug,9\n08,desk,1e3\n09,,\n"
    path.write_text(content)
    cells = suspicious(
        cell(0, "product", "lmap", "lamp", 0.1),
        cell(1, "price", "9", "9.50", 0.11),
        cell(2, "product", "desk", "desk", 0.0),
        cell(2, "price", "1e3", None, 0.0),
        cell(3, "product", None, "mug", 0.0),
    )
    repairs = Repairs(cells)
    saved(repaired(path, repairs), tmp_path / "repaired.csv")
    assert repairs.count == 2
    assert (tmp_path / "repaired.csv").read_text() == content.replace("lmap", "lamp").replace(
        "09,,", "09,mug,"
    )


def test_an_expected_value_that_is_no_value_of_its_column_is_refused(tmp_path: Path) -> None:
    path = saved(pa.table({"price": [1.5, 2.5]}), tmp_path / "prices.parquet")
    with pytest.raises(InvalidInput, match=r"'price' holds double, .*'1,50'"):
        repaired(path, Repairs(suspicious(cell(0, "price", "1.5", "1,50", 0.0))))

"""Tables written: typed values as text, and a path that is there whole or not at all."""

import csv
import io
import json
import stat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from nelbo.errors import InvalidInput, NotFound
from nelbo.files import FORMATS, open_table, open_writer
from nelbo.spelling.columns import Spelling
from nelbo.spelling.numbers import NumberFormat
from tests.nelbo.files.tables import BATCH, rows_of, written

COLUMNS: dict[str, Any] = {
    "f": pa.array([0.1, None, float("nan"), 3.0]),
    "i": pa.array([2**53 + 1, None, -1, 0]),
    "b": pa.array([True, None, False, True]),
    "s": pa.array(["", None, ' "é"\t\n\\', "a"]),
    "t": pa.array([0, None, 1_500_000, -1], pa.timestamp("us")),
    "u": pa.array([0, None, 1_500_000, 86_400_000_000], pa.timestamp("us", "UTC")),
}
TYPED = pa.record_batch(COLUMNS)


def test_csv_leaves_null_empty_and_quotes_only_what_needs_it() -> None:
    assert written(TYPED, "csv").decode() == (
        "f,i,b,s,t,u\n"
        '0.1,9007199254740993,true,"",1970-01-01T00:00:00,1970-01-01T00:00:00Z\n'
        ",,,,,\n"
        ',-1,false," ""é""\t\n\\",1970-01-01T00:00:01.5,1970-01-01T00:00:01.5Z\n'
        "3,0,true,a,1969-12-31T23:59:59.999999,1970-01-02T00:00:00Z\n"
    )


def test_json_lines_have_all_keys_and_null_where_json_has_no_value() -> None:
    lines = [json.loads(line) for line in written(TYPED, "jsonl").splitlines()]
    assert [line["f"] for line in lines] == [0.1, None, None, 3]
    assert [line["i"] for line in lines] == [2**53 + 1, None, -1, 0]
    assert [line["b"] for line in lines] == [True, None, False, True]
    assert [line["s"] for line in lines] == ["", None, ' "é"\t\n\\', "a"]
    assert lines[2]["u"] == "1970-01-01T00:00:01.5Z"


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_typed_formats_keep_types(format: str) -> None:
    with open_table(io.BytesIO(written(TYPED, format)), format) as table:
        assert table.schema == TYPED.schema
        assert str(next(table.batches())) == str(TYPED)


@pytest.mark.parametrize("format", FORMATS)
def test_a_table_without_rows_has_its_columns_all_the_same(format: str) -> None:
    file = io.BytesIO()
    with open_writer(file, format, schema=BATCH.schema):
        pass
    content = file.getvalue()
    if format == "csv":
        assert content == b"name,size\n"
    elif format == "jsonl":
        assert content == b""
    else:
        with pytest.raises(InvalidInput, match="no rows"):
            open_table(io.BytesIO(content), format)


@pytest.mark.parametrize("format", FORMATS)
def test_the_writer_leaves_the_stream_of_its_caller_open(format: str) -> None:
    file = io.BytesIO()
    with open_writer(file, format) as writer:
        writer.write(BATCH)
    file.write(b"more")
    assert file.getvalue().endswith(b"more")


@pytest.mark.parametrize("format", FORMATS)
def test_a_path_has_its_content_when_all_is_written_and_not_before(
    format: str, tmp_path: Path
) -> None:
    path = tmp_path / f"table.{format}"
    path.write_bytes(b"before")
    with open_writer(path) as writer:
        writer.write(BATCH)
        assert path.read_bytes() == b"before"
    assert len(rows_of(open_table(path))) == 3
    assert stat.S_IMODE(path.stat().st_mode) & 0o400
    assert list(tmp_path.iterdir()) == [path]


def _fail_in_the_middle(path: Path) -> None:
    with open_writer(path) as writer:
        writer.write(BATCH)
        raise RuntimeError("in the middle")


def test_an_error_in_the_middle_leaves_what_was_there_before(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"before")
    with pytest.raises(RuntimeError, match="in the middle"):
        _fail_in_the_middle(path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_target_that_cannot_be_written_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is a folder"), open_writer(tmp_path):
        pass
    with (
        pytest.raises(NotFound, match="make it first"),
        open_writer(tmp_path / "gone" / "table.csv"),
    ):
        pass
    with pytest.raises(InvalidInput, match="wrong suffix"), open_writer(tmp_path / "table.xls"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_dash_is_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with open_writer("-") as writer:
        writer.write(pa.record_batch({"a": [1]}))
    assert capfdbinary.readouterr().out == b"a\n1\n"


FORMULAS = [
    "=1+1",
    '=HYPERLINK("http://evil.example","x")',
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "+cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0",
    "-A1",
    "-EUR5",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    "  =1+1",
    "\N{NO-BREAK SPACE}=1+1",
    "\N{FULLWIDTH EQUALS SIGN}1+1",
    "\N{FULLWIDTH COMMERCIAL AT}SUM(1)",
    "--1",
    "=",
    "-",
    "\t",
]
HARMLESS = ["a=1", "x-y", "'=1", "", "1", "-1", "-1.5e-3", "-inf", "+49 170 1234567", "-1.250,50 €"]
HARMLESS += ["-$5", "-EUR 5", "-5 %", "-20 km"]


def safe(batch: pa.RecordBatch, format: str = "csv") -> bytes:
    file = io.BytesIO()
    with open_writer(file, format, safe_csv=True) as writer:
        writer.write(batch)
    return file.getvalue()


def read_back(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(), newline="")))


@pytest.mark.parametrize("text", FORMULAS)
def test_safe_csv_holds_no_formula_in_cells_and_names(text: str) -> None:
    columns: dict[str, Any] = {text: pa.array([text, None]), "x": pa.array([1, 2])}
    rows = read_back(safe(pa.record_batch(columns)))
    assert rows == [[f"'{text}", "x"], [f"'{text}", "1"], ["", "2"]]


@pytest.mark.parametrize("text", HARMLESS)
def test_safe_csv_leaves_numbers_and_other_text_as_they_are(text: str) -> None:
    columns: dict[str, Any] = {"text": pa.array([text]), "x": pa.array([1])}
    batch = pa.record_batch(columns)
    assert safe(batch) == written(batch, "csv")


def test_numbers_dates_and_truth_are_the_same_in_safe_csv() -> None:
    batch = TYPED.drop_columns(["s"]).append_column("n", pa.array([-1.5, -0.0, -1e300, None]))
    assert safe(batch) == written(batch, "csv")


@pytest.mark.parametrize(
    ("spelling", "cells"),
    [
        (Spelling(number=NumberFormat(prefix="=1+")), pa.array([5])),
        (Spelling(words=("=0+0", "=1+1")), pa.array([True])),
        (Spelling(format="=1+%Y"), pa.array([0], pa.timestamp("us"))),
    ],
)
def test_a_model_that_writes_its_numbers_as_formulas_writes_none(
    spelling: Spelling, cells: Any
) -> None:
    field = spelling.on(pa.field("a", cells.type))
    batch = pa.RecordBatch.from_arrays([cells], schema=pa.schema([field]))
    assert read_back(written(batch, "csv"))[1][0].startswith("=")
    assert read_back(safe(batch))[1][0].startswith("'=")


@pytest.mark.parametrize("format", ["jsonl", "parquet", "arrow"])
def test_other_formats_are_never_changed(format: str) -> None:
    batch = pa.record_batch({"=a": pa.array(FORMULAS)})
    assert safe(batch, format) == written(batch, format)

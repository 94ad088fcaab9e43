"""Tables written: typed values as text, and a path that is there whole or not at all."""

import io
import json
import stat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from nelbo.errors import InvalidInput, NotFound
from nelbo.files import FORMATS, open_table, open_writer
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


@pytest.mark.parametrize("format", FORMATS)
def test_a_path_has_its_content_when_all_is_written_and_not_before(format: str, tmp_path: Path) -> None:
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
    with pytest.raises(NotFound, match="make it first"), open_writer(tmp_path / "gone" / "table.csv"):
        pass
    with pytest.raises(InvalidInput, match="wrong suffix"), open_writer(tmp_path / "table.xls"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_dash_is_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with open_writer("-") as writer:
        writer.write(pa.record_batch({"a": [1]}))
    assert capfdbinary.readouterr().out == b"a\n1\n"

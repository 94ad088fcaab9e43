"""Every format read, and a clear answer to every file that cannot be."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nelbo.errors import InvalidInput, NotFound, TooLarge
from nelbo.files import FORMATS, Limits, format_of, open_table, open_writer, table_of
from nelbo.files.formats import SUFFIXES
from nelbo.spelling.columns import Spelling
from tests.nelbo.files.tables import BATCH, opened, rows_of, saved, written


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("rows", [1, 2, 1_000])
def test_each_format_reads_as_it_was_written_however_it_is_cut(format: str, rows: int) -> None:
    with opened(written(BATCH, format), format) as table:
        batches = list(table.batches(rows))
        assert table.names == ("name", "size")
        assert max(batch.num_rows for batch in batches) <= rows
        empty = {None: ""} if format == "csv" else {}
        expected = [
            {name: empty.get(value, value) for name, value in row.items()}
            for row in BATCH.to_pylist()
        ]
        assert [row for batch in batches for row in batch.to_pylist()] == expected


@pytest.mark.parametrize("format", FORMATS)
def test_a_table_can_be_read_twice(format: str) -> None:
    with opened(written(BATCH, format), format) as table:
        assert list(table.batches()) == list(table.batches())


@pytest.mark.parametrize("format", FORMATS)
def test_two_readings_at_once_do_not_disturb_each_other(format: str) -> None:
    """Arrow reads ahead in the background: a reading that was given up must not move the next one's
    place."""
    batch = pa.record_batch({"a": [f"{row} text" * 20 for row in range(40_000)]})
    with opened(written(batch, format), format) as table:
        abandoned = table.batches(1_000)
        next(abandoned)
        both = zip(table.batches(1_000), table.batches(1_000), strict=True)
        assert sum(one.num_rows for one, other in both if one.equals(other)) == 40_000


@pytest.mark.parametrize("format", FORMATS)
def test_a_pipe_is_read_without_a_name(format: str) -> None:
    program = (
        "from nelbo.files import open_table\n"
        "with open_table('-') as table: print(table.format, table.name, sum(b.num_rows for b in"
        " table.batches()))"
    )
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, input=written(BATCH, format), capture_output=True, check=True)
    assert ran.stdout.decode() == f"{format} standard input 3\n"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_suffix_tells_the_format_in_any_case(suffix: str) -> None:
    assert format_of(f"some.table{suffix.upper()}") == SUFFIXES[suffix]


@pytest.mark.parametrize(
    "name", ["adult.xlsx", "adult", "adult.gz", "adult.csv.bz2", "adult.xlsx.gz"]
)
def test_a_wrong_suffix_is_refused_with_those_that_are_known(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"wrong suffix.*\.csv.*\.parquet"):
        format_of(name)


def _parquet(table: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(table), file)
    return file.getvalue()


def _broken_text() -> bytes:
    offsets, content = pa.py_buffer(b"\0\0\0\0\x01\0\0\0"), pa.py_buffer(b"\xff")
    return _parquet({"a": pa.StringArray.from_buffers(1, offsets, content)})


def _stream(table: pa.Table) -> bytes:
    file = io.BytesIO()
    with pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()


PARQUET = _parquet({"a": list(range(1_000))})
STREAM = written(pa.record_batch({"a": [1, 2]}), "arrow")
WIDE = [f"c{at}" for at in range(2_001)]

BAD: dict[str, tuple[str, bytes, str]] = {
    "empty": ("csv", b"", "is empty"),
    "empty Parquet": ("parquet", b"", "is empty"),
    "blank": ("csv", b" \n\n ", "is empty"),
    "header only": ("csv", b"a,b\n", "header but no rows"),
    "header only, no newline": ("csv", b"a,b", "header but no rows"),
    "Parquet without rows": ("parquet", _parquet({"a": pa.array([], pa.int64())}), "no rows"),
    "Arrow without rows": (
        "arrow",
        written(pa.record_batch({"a": pa.array([], pa.int64())}), "arrow"),
        "no rows",
    ),
    "empty objects": ("jsonl", b"{}\n{}\n", "no columns"),
    "Arrow without columns": ("arrow", _stream(pa.table({})), "no columns"),
    "Parquet without columns": ("parquet", _parquet({}), "no columns"),
    "a name in another encoding": (
        "arrow",
        _stream(pa.table({"marker": [1]})).replace(b"marker", b"mark\xffr"),
        "not UTF-8",
    ),
    "duplicate names": ("csv", b"a,b, a\n1,2,3\n", "duplicate column names: 'a'"),
    "duplicate names in Parquet": (
        "parquet",
        written(
            pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), "parquet"
        ),
        "duplicate column names: 'a'",
    ),
    "duplicate keys": ("jsonl", b'{"a": 1, "a": 2}\n', "line 1 .* key 'a' twice"),
    "broken encoding": (
        "csv",
        b"a,b\n1,\xc3\xbc\n2,\xff\n",
        "line 3 .* broken encoding: the byte 0xff",
    ),
    "broken encoding at the end": (
        "csv",
        b"a,b\n1,\xc3\xbc\n2,\xc3",
        "line 3 .* broken encoding: its end",
    ),
    "broken encoding in JSON": (
        "jsonl",
        b'{"a": "\xc3\xbc"}\n{"a": "\xff"}\n',
        "line 2 .* broken encoding",
    ),
    "half a UTF-16 character": ("csv", "a,b\n1,2\n".encode("utf-16")[:-1], "broken encoding"),
    "broken encoding in Parquet": (
        "parquet",
        _broken_text(),
        "column 'a' .* broken encoding: its text is not UTF-8",
    ),
    "broken encoding late in JSON": (
        "jsonl",
        b'{"a": 1}\n' * 200_000 + b'{"a": "\xe9"}\n',
        "line 200001 .* broken encoding",
    ),
    "NUL bytes": ("csv", b"a,b\n1,\x00\n", "line 2 .* NUL bytes"),
    "truncated Parquet": (
        "parquet",
        PARQUET[:-50],
        "cannot be read as Parquet: it is damaged or cut off",
    ),
    "Parquet cut short": ("parquet", PARQUET[:50], "damaged or cut off"),
    "four bytes of Parquet": ("parquet", b"PAR1", "damaged or cut off"),
    "damaged Parquet": ("parquet", PARQUET[:10] + bytes(400) + PARQUET[410:], "damaged or cut off"),
    "truncated Arrow": ("arrow", STREAM[:-40], "cannot be read as an Arrow IPC stream"),
    "damaged Arrow": ("arrow", STREAM[:40], "damaged or cut off"),
    "ragged line, too short": (
        "csv",
        b"a,b\n1,2\nx\n3,4\n",
        "line 3 .* has 1 cells, the header has 2",
    ),
    "the last line cut off": (
        "csv",
        b"a,b\n1,2\n3",
        "line 3 .* has 1 cells, the header has 2 .* cut off",
    ),
    "all lines too short": ("csv", b"a,b,c\n1,2\n3,4\n", "line 2 .* has 2 cells, the header has 3"),
    "backslashes before quotes": (
        "csv",
        b'a,b\n1,"x \\"y\\", z"\n',
        "line 2 .* written twice, not with a backslash",
    ),
    "skipped to the end": ("csv", b"# a\n", "no table below line 1"),
    "ragged line, too long": (
        "csv",
        b"a,b\n1,2\n" + b"3,4\n" * 500_000 + b"3,4,5\n",
        "line 500003 .* has 3 cells",
    ),
    "unclosed quote": ("csv", b'a,b\n1,"2\n3,4\n5,6\n', "quote that is never closed"),
    "unclosed quote, long": (
        "csv",
        b'a,b\n1,"2\n' + b"3,4\n" * 1_500_000,
        "more than 2 MiB; is there a quote",
    ),
    "long line of JSON": (
        "jsonl",
        b'{"a": "' + b"x" * 3_000_000 + b'"}\n',
        "line 1 .* more than 2 MiB",
    ),
    "a row of megabytes in Parquet": (
        "parquet",
        _parquet({name: ["x", "x" * 900_000] for name in "abc"}),
        "has a row that holds more than 2 MiB of text",
    ),
    "a text of megabytes in Parquet": (
        "parquet",
        _parquet({"a": ["x" * 3_000_000]}),
        "column 'a' .* more than 2 MiB",
    ),
    "too many columns": (
        "csv",
        (",".join(WIDE) + "\n" + ",".join("1" * 2_001) + "\n").encode(),
        "more than 2,000 columns",
    ),
    "too many keys": (
        "jsonl",
        json.dumps(dict.fromkeys(WIDE, 1)).encode(),
        "more than 2,000 columns",
    ),
    "too many columns in Parquet": (
        "parquet",
        _parquet({name: [1] for name in WIDE}),
        "NELBO_MAX_COLUMNS",
    ),
    "only lists in Parquet": (
        "parquet",
        _parquet({"a": [[1, 2]]}),
        "no column that can be read: the column 'a' holds lists",
    ),
    "only structs in Parquet": (
        "parquet",
        _parquet({"a": [{"b": 1}]}),
        "no column .*: the column 'a' holds structs",
    ),
    "only lists in JSON": (
        "jsonl",
        b'{"a": 1}\n{"a": [1]}\n',
        "no column that can be read: the column 'a' holds lists",
    ),
    "only objects in JSON": (
        "jsonl",
        b'{"a": {"b": 1}}\n',
        "no column that can be read: the column 'a' holds objects",
    ),
    "JSON of a thousand levels": (
        "jsonl",
        b'{"a": ' + b"[" * 100_000 + b"\n",
        "line 1 .* nested too deep",
    ),
    "a JSON array of a thousand levels": (
        "json",
        b'[{"a": ' + b"[" * 100_000 + b"\n",
        "object 1 .* nested too deep",
    ),
    "JSON cut off": ("jsonl", b'{"a": 1}\n{"a": ', "line 2 .* is not JSON"),
    "a JSON array of numbers": ("json", b"[1, 2]\n", "object 1 .* not a JSON object"),
    "a JSON array cut off": (
        "json",
        b'[\n  {"a": 1}, {"a":',
        "object 2 .* is not JSON or is cut off",
    ),
    "a JSON array without an end": (
        "json",
        b'[\n  {"a": 1}\n',
        "object 2 .* is not JSON or is cut off",
    ),
    "a JSON document": (
        "json",
        b'{\n  "a": 1\n}\n',
        "line 1 .* is not JSON.* one array of objects",
    ),
    "a long object in a JSON array": (
        "json",
        b'[{"a": "' + b"x" * 3_000_000 + b'"}]',
        "object 1 .* more than 2 MiB",
    ),
    "half a surrogate": ("jsonl", b'{"a": "\\ud800"}\n', "line 1 .* is not JSON"),
    "NUL in a key": ("jsonl", b'{"a\\u0000": 1}\n', "column name"),
    "a name of a novel's length": (
        "csv",
        b"a" * 2_000 + b",b\n1,2\n",
        "column name of 2,000 characters",
    ),
    "Excel": ("csv", b"PK\x03\x04...", "Excel sheet; save the table as CSV"),
    "damaged gzip": (
        "csv",
        b"\x1f\x8b...",
        "cannot be unpacked with gzip: it is damaged or cut off",
    ),
    "Parquet called CSV": ("csv", PARQUET, "is read as csv, but holds parquet"),
    "Arrow called JSON": ("jsonl", STREAM, "is read as jsonl, but holds arrow"),
    "CSV called Parquet": ("parquet", b"a,b\n1,2\n", "cannot be read as Parquet"),
    "CSV called JSON": ("jsonl", b"a,b\n1,2\n", "line 1 .* is not JSON"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_read_has_a_clear_answer_that_names_the_file(
    case: str, tmp_path: Path
) -> None:
    format, content, words = BAD[case]
    path = saved(tmp_path / f"table.{format}", content)
    with pytest.raises(InvalidInput, match=words) as caught:
        rows_of(open_table(path))
    assert f"table.{format}" in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("case", BAD)
def test_nothing_stays_open_behind_what_cannot_be_read(case: str, tmp_path: Path) -> None:
    format, content, _ = BAD[case]
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(InvalidInput):
        rows_of(open_table(saved(tmp_path / f"table.{format}", content)))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_path_that_is_no_file_has_a_clear_answer(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no file at .*gone\.csv"):
        open_table(tmp_path / "gone.csv")
    with pytest.raises(InvalidInput, match="is a folder"):
        open_table(tmp_path)
    with pytest.raises(InvalidInput, match="wrong suffix"):
        open_table(saved(tmp_path / "adult.xlsx", b"a,b\n1,2\n"))
    with pytest.raises(InvalidInput, match="not a supported table format; choose one of csv"):
        opened(b"a,b\n1,2\n", "excel")
    with pytest.raises(InvalidInput, match="cannot be opened"):
        open_table("nul\0.csv")


@pytest.mark.parametrize("format", FORMATS)
def test_more_rows_than_the_limit_are_refused(format: str) -> None:
    with (
        pytest.raises(TooLarge, match=r"3 rows; at most 2|more than 2 rows"),
        open_table(io.BytesIO(written(BATCH, format)), format, limits=Limits(rows=2)) as table,
    ):
        list(table.batches())


def test_a_small_parquet_file_of_a_billion_rows_is_refused_by_its_footer() -> None:
    file = io.BytesIO()
    with pq.ParquetWriter(file, pa.schema([("a", pa.int8())])) as writer:
        group = pa.table({"a": pa.nulls(10_000_000, pa.int8())})
        for _ in range(2):
            writer.write_table(group, row_group_size=10_000_000)
    assert len(file.getvalue()) < 100_000
    with pytest.raises(TooLarge, match="20,000,000 rows; at most 1,000"):
        open_table(file, "parquet", limits=Limits(rows=1_000))


def test_mixed_types_in_json_lines_are_read_as_text() -> None:
    content = (
        b'{"a": 1, "b": "x"}\n\n{"b": true, "a": 1.50, "c": null}\r\n  {"a": "1e3", "c":'
        b" 12345678901234567890}"
    )
    assert rows_of(opened(content)) == [
        {"a": "1", "b": "x", "c": None},
        {"a": "1.50", "b": "true", "c": None},
        {"a": "1e3", "b": None, "c": "12345678901234567890"},
    ]


def test_a_key_that_only_the_last_line_has_is_a_column() -> None:
    content = b'{"a": 1}\n' * 10_000 + b'{"late": 2}\n'
    with opened(content) as table:
        assert table.names == ("a", "late")
        assert table.rows == 10_001


def test_typed_columns_become_the_few_types_that_cells_have() -> None:
    table = {
        "dictionary": pa.array(["x", "y"]).dictionary_encode(),
        "large": pa.array(["x", "y"], pa.large_string()),
        "view": pa.array(["x", "y"], pa.string_view()),
        "bytes": pa.array([b"x", b"y"]),
        "nothing": pa.nulls(2),
        "span": pa.array([1, 2], pa.duration("s")),
        "size": pa.array([1, 2], pa.int8()),
    }
    batch = pa.record_batch(table)
    with opened(written(batch, "arrow")) as read:
        assert [str(kind) for kind in read.schema.types] == ["string"] * 5 + ["int64", "int8"]
        assert next(read.batches()).column("dictionary").to_pylist() == ["x", "y"]


def test_an_arrow_file_is_read_like_a_stream() -> None:
    file = io.BytesIO()
    with pa.ipc.new_file(file, BATCH.schema) as writer:
        writer.write_batch(BATCH)
    assert rows_of(opened(file.getvalue())) == BATCH.to_pylist()


def test_an_arrow_stream_with_lying_offsets_is_refused() -> None:
    text = pa.StringArray.from_buffers(
        2, pa.py_buffer(b"\0\0\0\0\xff\0\0\0\x01\0\0\0"), pa.py_buffer(b"ab")
    )
    with pytest.raises(InvalidInput, match="damaged"):
        rows_of(opened(written(pa.record_batch({"a": text}), "arrow")))


def test_columns_without_a_name_get_one_and_a_notice() -> None:
    with opened(b",b,\n1,2,3\n") as table:
        assert table.names == ("unnamed_1", "b", "unnamed_3")
        assert table.notices == ("columns without a name are called unnamed_1, unnamed_3",)


def _csv(batch: pa.RecordBatch, copies: int, path: Path) -> None:
    with open_writer(path) as writer:
        for _ in range(copies):
            writer.write(batch)


READ_TWO = """
import resource, sys
from nelbo.files import open_table
def peak(path):
    with open_table(path) as table:
        rows = sum(batch.num_rows for batch in table.batches())
    return rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(*peak(sys.argv[1]), *peak(sys.argv[2]))
"""


@pytest.mark.parametrize("format", FORMATS)
def test_a_long_file_takes_no_more_memory_than_a_shorter_one(format: str, tmp_path: Path) -> None:
    """Also where all rows are one row group of Parquet."""
    batch = pa.record_batch(
        {f"c{at}": [f"{row * 7 + at} text" * 10 for row in range(1_000)] for at in range(10)}
    )
    paths = [tmp_path / f"{copies}.{format}" for copies in (10, 30)]
    for path, copies in zip(paths, (10, 30), strict=True):
        if format == "parquet":
            pq.write_table(
                pa.Table.from_batches([batch] * copies),
                path,
                compression="none",
                use_dictionary=False,
            )
        else:
            _csv(batch, copies, path)
    ran = subprocess.run(
        [sys.executable, "-c", READ_TWO, *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
    )
    rows, first, more_rows, second = map(float, ran.stdout.split())
    assert (rows, more_rows) == (10_000, 30_000)
    assert paths[1].stat().st_size > 25 * 2**20
    assert second - first < 20


def test_the_messages_of_unrelated_errors_pass_through() -> None:
    class Breaking(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise ConnectionError("the network is gone")

    for format in FORMATS:
        with pytest.raises(ConnectionError):
            open_table(Breaking(b"a,b\n1,2\n"), format)


def test_a_text_column_whose_name_has_white_space_around_it_keeps_its_spelling() -> None:
    table = pa.table({" price ": ["1.234,50", "99,00"], "n": [1, 2]})
    with open_table(io.BytesIO(_parquet(table.to_pydict())), "parquet") as opened_table:
        spelling = Spelling.of(opened_table.schema.field("price"))
    assert spelling.number is not None
    assert (spelling.number.decimal, spelling.number.group) == (",", ".")


def test_a_table_in_memory_is_opened_as_its_file_is() -> None:
    frame = pa.table(
        {
            "price": ["1.234,50", "2,75"] * 3,
            " kind ": pa.array(["a", "b"] * 3).dictionary_encode(),
            "took": pa.array([1, 2] * 3, pa.duration("s")),
            "tags": [[1]] * 6,
        }
    )
    file = io.BytesIO()
    with pa.ipc.new_file(file, frame.schema) as writer:
        writer.write_table(frame)
    table, memory = opened(file.getvalue()), table_of(frame)
    assert memory.schema.equals(table.schema, check_metadata=True)
    assert memory.notices == tuple(
        notice.replace(table.name, memory.name) for notice in table.notices
    )
    assert rows_of(memory) == rows_of(table)
    assert [batch.num_rows for batch in memory.batches(4)] == [4, 2]
    with table_of(frame.slice(0, 0)) as memory:
        assert [batch.num_rows for batch in memory.batches()] == [0]

"""An upload read in a process of its own: parts and schema, or the problem, never more memory than
it may have."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nelbo.files import (
    DETECTED,
    FORMATS,
    CsvOptions,
    Limits,
    Reading,
    open_writer,
    part_name,
    read_arguments,
    read_parts,
)
from nelbo.files.formats import COMPRESSIONS
from tests.nelbo.files.tables import saved

COLUMNS: dict[str, Any] = {
    "age": ["39", "50", "", "38"] * 10,
    "work": ["State-gov", None, "Private", "Private"] * 10,
}
BATCH = pa.record_batch(COLUMNS)


def read(
    upload: Path,
    folder: Path,
    format: str,
    csv: CsvOptions = DETECTED,
    memory_mib: int = 2_048,
    limits: Limits = Limits(100, 10_000_000),  # noqa: B008  # frozen
) -> Reading:
    folder.mkdir(exist_ok=True)
    arguments = read_arguments(
        upload,
        folder,
        name=f"adult.{format}",
        format=format,
        limits=limits,
        memory_mib=memory_mib,
        csv=csv,
    )
    command = [sys.executable, "-P", "-m", "nelbo.files", *arguments]
    ran = subprocess.run(command, capture_output=True, check=True)
    return Reading.model_validate_json(ran.stdout.splitlines()[-1])


@pytest.mark.parametrize("format", FORMATS)
def test_an_upload_becomes_parts_and_a_schema(format: str, tmp_path: Path) -> None:
    upload, folder = tmp_path / f"upload.{format}", tmp_path / "parts"
    with open_writer(upload) as writer:
        writer.write(BATCH)
    reading = read(upload, folder, format)
    assert (reading.problem, reading.rows, reading.parts) == (None, 40, 1)
    assert [(column.name, column.kind) for column in reading.columns] == [
        ("age", "integer"),
        ("work", "categorical"),
    ]
    assert [path.name for path in folder.iterdir()] == [part_name(0)]
    rows = next(
        read_parts(lambda number: (folder / part_name(number)).open("rb"), 1, 3)
    ).to_pylist()
    assert rows == [
        {"age": "50", "work": None if format != "csv" else ""},
        {"age": "", "work": "Private"},
    ]


def test_options_reach_the_process_whatever_they_are(tmp_path: Path) -> None:
    upload = saved(tmp_path / "-upload", "größe-1,5\n2-3\n".encode("cp1252"))
    reading = read(upload, tmp_path / "parts", "csv", CsvOptions(delimiter="-", encoding="cp1252"))
    assert [column.name for column in reading.columns] == ["größe", "1,5"]


def test_what_is_found_out_while_reading_is_told_too(tmp_path: Path) -> None:
    upload = saved(tmp_path / "upload", b"size,colour\n" + b"1,red\n" * 30 + b"2\n" + b"1,red\n")
    reading = read(upload, tmp_path / "parts", "csv")
    assert reading.rows == 32
    assert any("line 32" in notice for notice in reading.notices)


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_a_compressed_upload_is_read_up_to_the_limit_and_leaves_nothing_but_its_parts(
    suffix: str, tmp_path: Path
) -> None:
    upload, folder = tmp_path / f"upload.csv{suffix}", tmp_path / "parts"
    with open_writer(upload) as writer:
        writer.write(BATCH)
    reading = read(upload, folder, "csv")
    assert (reading.problem, reading.rows, reading.parts) == (None, 40, 1)
    assert [path.name for path in folder.iterdir()] == [part_name(0)]
    reading = read(upload, folder, "csv", limits=Limits(unpacked_bytes=100))
    assert reading.problem == (
        "adult.csv unpacks to more than 100 bytes, the limit (NELBO_MAX_UPLOAD_BYTES);"
        " split the table"
    )


def test_a_full_disk_is_no_answer_about_the_upload(tmp_path: Path) -> None:
    """So that whoever started the process tries again."""
    upload = tmp_path / "upload.csv.gz"
    with open_writer(upload) as writer:
        writer.write(BATCH)
    with pytest.raises(subprocess.CalledProcessError) as ended:
        read(upload, tmp_path / "parts", "csv", limits=Limits(free_bytes=2**60))
    assert ended.value.stdout == b""
    assert (
        f"cannot be unpacked into {tmp_path / 'parts'}: No space left on device"
        in ended.value.stderr.decode()
    )


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_a_nested_column_of_an_upload_is_left_out_with_a_notice(
    format: str, tmp_path: Path
) -> None:
    upload = tmp_path / f"upload.{format}"
    if format == "parquet":
        pq.write_table(pa.table({"age": [39, 50], "tags": [["a"], []]}), upload)
    else:
        saved(upload, b'{"age": 39, "tags": ["a"]}\n{"age": 50}\n')
    reading = read(upload, tmp_path / "parts", format)
    assert ([column.name for column in reading.columns], reading.rows) == (["age"], 2)
    assert any("the column 'tags' holds lists" in notice for notice in reading.notices)


def test_a_problem_is_an_answer_too(tmp_path: Path) -> None:
    reading = read(saved(tmp_path / "upload", b"a,b\n1\n"), tmp_path / "parts", "csv")
    assert reading.problem == (
        "line 2 of adult.csv has 1 cells, the header has 2 (delimiter ','); put cells that hold the"
        " delimiter in quotes, "
        "or give another --delimiter, or --skip-lines if the header is below"
    )


def test_a_table_that_needs_more_memory_than_the_limit_is_a_problem_that_names_the_setting(
    tmp_path: Path,
) -> None:
    upload = tmp_path / "upload.parquet"
    pq.write_table(pa.table({"a": ["x" * 100_000] * 4_000}), upload)
    assert upload.stat().st_size < 1_000_000
    reading = read(upload, tmp_path / "parts", "parquet", memory_mib=600)
    assert reading.problem is not None
    assert "600 MiB (NELBO_READ_MEMORY_MIB)" in reading.problem

"""Compressed tables read like others, up to a limit, and are written by their suffix."""

import gzip
import io
import os
import resource
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from nelbo.errors import InvalidInput, TooLarge, Unavailable
from nelbo.files import FORMATS, Limits, open_table, open_writer
from nelbo.files.formats import COMPRESSIONS
from tests.nelbo.files.tables import BATCH, opened, rows_of, saved, written

CSV = b"a,b\n" + b"".join(b"%d,text %d\n" % (row, row * 7 % 1_000) for row in range(50_000))


def packed(content: bytes, suffix: str) -> bytes:
    return (
        gzip.compress(content, mtime=0)
        if suffix == ".gz"
        else bytes(pa.compress(content, "zstd", asbytes=True))
    )


@pytest.mark.parametrize("suffix", COMPRESSIONS)
@pytest.mark.parametrize("format", FORMATS)
def test_a_compressed_table_reads_like_the_table_itself(
    format: str, suffix: str, tmp_path: Path
) -> None:
    content = written(BATCH, format)
    expected = rows_of(opened(content, format))
    for name in (f"table.{format}{suffix}", f"table.{format}{suffix.upper()}", f"table.{format}"):
        assert rows_of(open_table(saved(tmp_path / name, packed(content, suffix)))) == expected
    assert rows_of(open_table(saved(tmp_path / f"plain.{format}{suffix}", content))) == expected
    assert rows_of(opened(packed(content, suffix))) == expected


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_a_compressed_pipe_is_read(suffix: str) -> None:
    program = (
        "from nelbo.files import open_table\nwith open_table('-') as t: print(sum(b.num_rows"
        " for b in t.batches()))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], input=packed(CSV, suffix), capture_output=True, check=True
    )
    assert ran.stdout == b"50000\n"


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_parts_that_were_compressed_one_by_one_are_read_to_the_last(suffix: str) -> None:
    """As `cat a.gz b.gz` and parallel compressors make them."""
    middle = CSV.index(b"\n", len(CSV) // 2) + 1
    content = packed(CSV[:middle], suffix) + packed(CSV[middle:], suffix)
    assert rows_of(opened(content)) == rows_of(opened(CSV))


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_what_is_cut_off_anywhere_is_refused_and_never_read_in_part(suffix: str) -> None:
    content = packed(CSV, suffix)
    for at in (*range(5, len(content), len(content) // 7), len(content) - 1):
        with pytest.raises(
            InvalidInput, match=r"cannot be unpacked with \w+: it is damaged or cut off"
        ):
            opened(content[:at])


def test_what_does_not_fit_its_checksum_is_damaged() -> None:
    content = packed(CSV, ".gz")
    with pytest.raises(InvalidInput, match="damaged or cut off"):
        opened(content[:-8] + b"\0\xff\0\xff" + content[-4:])


def test_a_window_that_would_take_gigabytes_is_refused_with_what_to_do() -> None:
    """The header of `zstd --long=31`, then an empty block."""
    with pytest.raises(
        InvalidInput, match="window of more than 128 MiB; compress it again without --long"
    ):
        opened(b"\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00")


def test_what_is_compressed_twice_says_so() -> None:
    with pytest.raises(InvalidInput, match="is compressed twice"):
        opened(packed(packed(CSV, ".zst"), ".gz"))


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_a_table_that_unpacks_to_more_than_the_limit_is_refused_with_the_setting(
    suffix: str,
) -> None:
    content = packed(CSV, suffix)
    assert (
        len(rows_of(open_table(io.BytesIO(content), limits=Limits(unpacked_bytes=len(CSV)))))
        == 50_000
    )
    with pytest.raises(
        TooLarge, match=r"unpacks to more than [\d,]+ bytes, .*\(NELBO_MAX_UPLOAD_BYTES\)"
    ):
        open_table(io.BytesIO(content), limits=Limits(unpacked_bytes=len(CSV) - 1))


def test_a_small_file_that_unpacks_to_gigabytes_is_given_up_early_at_constant_memory(
    tmp_path: Path,
) -> None:
    frame = packed(bytes(2**26), ".zst")
    bomb = saved(tmp_path / "bomb.csv.zst", frame * 64)
    assert bomb.stat().st_size < 200_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        TooLarge,
        match=r"bomb\.csv\.zst unpacks from [\d,]+ bytes to more than 268,435,456, a ratio above"
        r" 1,100;",
    ):
        open_table(bomb)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 2**10


def test_a_disk_that_is_about_to_be_full_is_no_fault_of_the_table(tmp_path: Path) -> None:
    path = saved(tmp_path / "table.csv.gz", packed(CSV, ".gz"))
    with pytest.raises(
        Unavailable,
        match=r"table\.csv\.gz cannot be unpacked into .*: No space left on device; free some",
    ):
        open_table(path, limits=Limits(free_bytes=2**60))


def test_nothing_stays_open_behind_a_compressed_table(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for content in (packed(CSV, ".gz"), packed(CSV, ".gz")[:-9], packed(b"", ".zst")):
        path = saved(tmp_path / "table.csv.gz", content)
        for limits in (Limits(), Limits(unpacked_bytes=10), Limits(free_bytes=2**60)):
            try:
                open_table(path, limits=limits).close()
            except (InvalidInput, TooLarge, Unavailable):
                continue
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("suffix", COMPRESSIONS)
@pytest.mark.parametrize("format", FORMATS)
def test_a_table_is_written_compressed_by_its_suffix(
    format: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"table.{format}{suffix}"
    with open_writer(path) as writer:
        writer.write(BATCH)
    content = path.read_bytes()
    with pa.CompressedInputStream(path, COMPRESSIONS[suffix]) as stream:
        assert stream.read() == written(BATCH, format)
    with open_writer(path) as writer:
        writer.write(BATCH)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_compressed_table_that_is_not_finished_leaves_what_was_there(tmp_path: Path) -> None:
    path = saved(tmp_path / "table.arrow.gz", b"before")
    with (
        pytest.raises(pa.ArrowInvalid),
        open_writer(path, schema=pa.schema({"other": pa.int64()})) as writer,
    ):
        writer.write(BATCH)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]

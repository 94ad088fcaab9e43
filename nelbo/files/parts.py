"""A table as Parquet parts of equal length, so that a worker can read any range of rows alone."""

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nelbo import cells
from nelbo.cells import pc
from nelbo.files.table import BATCH_ROWS

PART_ROWS = 50_000


@dataclass(frozen=True)
class Content:
    """The number of parts and rows that write_parts wrote, and the digest of the content."""

    parts: int
    rows: int
    digest: str


def part_name(number: int) -> str:
    """The name of the number-th part, in a folder and in the storage."""
    return f"part-{number:06d}.parquet"


def write_parts(
    batches: Iterable[pa.RecordBatch],
    put: Callable[[int, Path], object],
    scratch: Path | None = None,
) -> Content:
    """Cut batches of one schema into parts, in row order.

    put: takes each part by its number and path, before the next part is begun.
    scratch: folder for the part that is being written; None is the system's temporary folder.
    """
    digest = Digest()
    rows = 0
    parts = 0
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        path = Path(folder) / "part.parquet"
        writer: pq.ParquetWriter | None = None
        for batch in batches:
            digest.update(batch)
            for piece in _cut(batch, PART_ROWS - rows % PART_ROWS):
                writer = writer or pq.ParquetWriter(path, piece.schema, compression="zstd")
                writer.write_batch(piece)
                rows += piece.num_rows
                if rows % PART_ROWS == 0:
                    writer.close()
                    put(parts, path)
                    writer = None
                    parts += 1
        if writer is not None:
            writer.close()
            put(parts, path)
            parts += 1
    return Content(parts, rows, digest.hexdigest())


def read_parts(
    open_part: Callable[[int], BinaryIO],
    start: int,
    stop: int,
    rows: int = BATCH_ROWS,
    columns: list[str] | None = None,
) -> Iterator[pa.RecordBatch]:
    """The rows start to stop (half-open) in batches of at most `rows`.

    columns: the columns to read. Default: all.
    """
    for number in range(start // PART_ROWS, -(-stop // PART_ROWS)):
        first = number * PART_ROWS
        with open_part(number) as stream:
            file = pq.ParquetFile(stream)
            yield from _rows_of(file, max(0, start - first), stop - first, rows, columns)


def _rows_of(
    file: pq.ParquetFile, start: int, stop: int, rows: int, columns: list[str] | None
) -> Iterator[pa.RecordBatch]:
    first = 0
    for group in range(file.num_row_groups):
        size = file.metadata.row_group(group).num_rows
        if first < stop and first + size > start:
            begin = max(0, start - first)
            end = min(size, stop - first)
            table = file.read_row_group(group, columns, use_threads=False)
            yield from table.slice(begin, end - begin).to_batches(rows)
        first += size


def _cut(batch: pa.RecordBatch, first: int) -> Iterator[pa.RecordBatch]:
    """The batch in pieces: `first` rows, then PART_ROWS each."""
    start = 0
    while start < batch.num_rows:
        yield batch.slice(start, first)
        start += first
        first = PART_ROWS


class Digest:
    """SHA-256 of names, types and values.

    It does not depend on the batches, nor on the format of the file that the rows come from.
    """

    def __init__(self) -> None:
        self._columns: list[tuple[str, list[Any]]] = []

    def update(self, batch: pa.RecordBatch) -> None:
        if not batch.num_rows:
            return
        if not self._columns:
            kinds = [f"{field.name}\0{field.type}" for field in batch.schema]
            self._columns = [(kind, [hashlib.sha256() for _ in range(3)]) for kind in kinds]
        for (_, hashes), array in zip(self._columns, batch.columns, strict=True):
            for part, content in zip(hashes, _contents(array), strict=True):
                part.update(content)

    def hexdigest(self) -> str:
        total = hashlib.sha256()
        for kind, hashes in self._columns:
            total.update(kind.encode() + b"\0" + b"".join(part.digest() for part in hashes))
        return total.hexdigest()


def _contents(array: cells.Array) -> tuple[Any, Any, Any]:
    """Which cells are null, the length of each text, and all values in one buffer."""
    absent = np.asarray(array.is_null())
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        return absent, b"", np.ascontiguousarray(array.fill_null(0))
    # A null may have text below it, which does not count.
    text = pc.fill_null(cells.spelled(array), "")
    _, offsets, values = text.buffers()
    ends = np.frombuffer(offsets, np.int32)[text.offset : text.offset + len(text) + 1]
    return absent, np.diff(ends), memoryview(values or b"")[ends[0] : ends[-1]]

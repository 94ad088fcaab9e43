"""Tables for the tests of files: the same rows in each format."""

import io
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from nelbo.files import open_table, open_writer
from nelbo.files.formats import CsvOptions
from nelbo.files.table import Table

BATCH = pa.record_batch({"name": ["a", None, 'c "x", y\nz'], "size": ["1", "2.50", None]})


def written(batch: pa.RecordBatch, format: str) -> bytes:
    """The batch as a file of this format."""
    file = io.BytesIO()
    with open_writer(file, format) as writer:
        writer.write(batch)
    return file.getvalue()


def opened(content: bytes, format: str | None = None, **options: Any) -> Table:
    return open_table(io.BytesIO(content), format, csv=CsvOptions(**options))


def rows_of(table: Table) -> list[dict[str, object]]:
    with table:
        return [row for batch in table.batches() for row in batch.to_pylist()]


def saved(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@contextmanager
def file_size(most: int) -> Iterator[None]:
    """`ulimit -f`, for a while."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

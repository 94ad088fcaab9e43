"""Parquet and Arrow IPC: typed columns."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nelbo import cells
from nelbo.errors import InvalidInput, TooLarge
from nelbo.files.formats import ARROW_FILE, Limits
from nelbo.files.source import Source
from nelbo.files.text import BATCH_BYTES, LINE_BYTES

_BUFFER_BYTES = 2**20


def open_parquet(source: Source, limits: Limits) -> pq.ParquetFile:
    """A Parquet file whose footer keeps the limits, before anything of its content is read."""
    with _explained(source.name, "Parquet"):
        # Unknown to the stubs: without extensions, a file cannot choose the Python class of its columns.
        strict: Any = {"arrow_extensions_enabled": False}
        file = pq.ParquetFile(source.reading(), buffer_size=_BUFFER_BYTES, **strict)
        if file.metadata.num_rows > limits.rows:
            raise TooLarge(f"{source.name} has {file.metadata.num_rows:,} rows; at most {limits.rows:,} are read")
        return file


def read_parquet(file: pq.ParquetFile, name: str, rows: int) -> Iterator[pa.RecordBatch]:
    size = sum(file.metadata.row_group(at).total_byte_size for at in range(file.num_row_groups))
    fewer = max(1, BATCH_BYTES * file.metadata.num_rows // max(1, size))
    with _explained(name, "Parquet"):
        for batch in file.iter_batches(batch_size=min(rows, fewer), use_threads=False):
            yield plain(batch, name)


def open_arrow(source: Source) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """An Arrow IPC stream, or an IPC file by its first bytes."""
    with _explained(source.name, "an Arrow IPC stream"):
        if source.sample.startswith(ARROW_FILE):
            file = pa.ipc.open_file(_readable(source))
            return file.schema, (file.get_batch(at) for at in range(file.num_record_batches))
        stream = pa.ipc.open_stream(_readable(source))
        return stream.schema, iter(stream)


def _readable(source: Source) -> pa.NativeFile:
    stream: Any = source.reading()  # the stubs want an IOBase, which BinaryIO is not
    return pa.PythonFile(stream, mode="r")


def read_arrow(source: Source, rows: int) -> Iterator[pa.RecordBatch]:
    with _explained(source.name, "an Arrow IPC stream"):
        for batch in open_arrow(source)[1]:
            for start in range(0, batch.num_rows, rows):
                yield plain(batch.slice(start, rows), source.name)


def plain_schema(schema: pa.Schema, name: str) -> pa.Schema:
    """The types that columns are read with; refuses those that no cell can have."""
    return pa.schema([(field.name, _plain_type(field, name)) for field in schema])


def plain(batch: pa.RecordBatch, name: str) -> pa.RecordBatch:
    """The batch, its content checked, in the types of plain_schema."""
    batch.validate(full=True)
    schema = plain_schema(batch.schema, name)
    return pa.record_batch(
        [_cast(array, field, name) for array, field in zip(batch.columns, schema, strict=True)], schema=schema
    )


def _cast(array: Any, field: Any, name: str) -> cells.Array:
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    plain: cells.Array = cells.plain(array).cast(field.type)
    if pa.types.is_string(field.type) and (cells.pc.max(cells.pc.binary_length(plain)).as_py() or 0) > LINE_BYTES:
        raise InvalidInput(f"column {field.name!r} of {name} holds a text of more than {LINE_BYTES >> 20} MiB; shorten it")
    return plain


def _plain_type(field: Any, name: str) -> pa.DataType:
    kind: pa.DataType = field.type
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_duration(kind):
        return pa.int64()
    text = (pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null, pa.types.is_binary)
    if any(check(kind) for check in text) or pa.types.is_large_binary(kind):
        return pa.string()
    if not pa.types.is_primitive(kind) and not pa.types.is_string(kind) and not pa.types.is_decimal(kind):
        raise InvalidInput(
            f"column {field.name!r} of {name} is nested or of a type without a meaning here ({kind}); "
            "give each of its parts a column of its own, or leave it out"
        )
    return kind


@contextlib.contextmanager
def _explained(name: str, wanted: str) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError:
        raise InvalidInput(f"{name} has a broken encoding: a column name or text is not UTF-8") from None
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, EOFError) as problem:
        what = (str(problem) or type(problem).__name__).splitlines()[0][:200]
        raise InvalidInput(f"{name} cannot be read as {wanted}: it is damaged or cut off ({what}); write it again") from None

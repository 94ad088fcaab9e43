"""Reading Parquet and Arrow IPC: the columns whose type has a meaning in a table."""

import contextlib
import hashlib
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nelbo import cells
from nelbo.cells import pc
from nelbo.errors import InvalidInput, TooLarge
from nelbo.files.formats import ARROW_FILE, Limits
from nelbo.files.source import Source
from nelbo.files.text import BATCH_BYTES, LINE_BYTES
from nelbo.spelling.types import is_in_parquet

_BUFFER_BYTES = 2**20
_LONG_BYTES = 1_024
"""Longer values that are bytes and not text are read as their digest."""
_CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_TYPES = pa.types
_READ: tuple[Callable[[pa.DataType], bool], ...] = (
    _TYPES.is_integer,
    _TYPES.is_floating,
    _TYPES.is_boolean,
    _TYPES.is_decimal,
    _TYPES.is_timestamp,
    _TYPES.is_date,
    _TYPES.is_time,
)
_READ_AS_TEXT: tuple[Callable[[pa.DataType], bool], ...] = (
    _TYPES.is_string,
    _TYPES.is_large_string,
    _TYPES.is_string_view,
    _TYPES.is_binary,
    _TYPES.is_large_binary,
    _TYPES.is_binary_view,
    _TYPES.is_fixed_size_binary,
    _TYPES.is_null,
)
_WORDS: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
    (_TYPES.is_map, "maps"),
    (_TYPES.is_struct, "structs"),
    (_TYPES.is_union, "unions"),
    (_TYPES.is_nested, "lists"),
    (_TYPES.is_interval, "intervals of months, days and nanoseconds"),
)


@dataclass(frozen=True)
class Columns:
    """The columns that are read: their positions in the file, and the types they are read as.

    left_out: what each of the other columns holds, by column name.
    units: name and unit of each column of durations, which is read as numbers.
    """

    positions: list[int]
    types: list[pa.DataType]
    left_out: dict[str, str]
    units: list[tuple[str, str]]


def columns_of(schema: pa.Schema) -> Columns:
    """The columns of a typed table that can be read. Names must be unique."""
    columns = Columns(positions=[], types=[], left_out={}, units=[])
    for position, field in enumerate(schema):
        kind = _plain_type(field.type)
        if isinstance(kind, str):
            columns.left_out[field.name] = kind
            continue
        columns.positions.append(position)
        columns.types.append(kind)
        if _TYPES.is_duration(field.type):
            columns.units.append((field.name, _UNITS[field.type.unit]))
    return columns


def open_parquet(source: Source, limits: Limits) -> pq.ParquetFile:
    """Open a Parquet file and check its footer against the limits before any content is read."""
    with _explained(source.name, "Parquet"):
        # Without extensions, a file cannot choose the Python class of its columns. The stubs do
        # not know this argument.
        strict: Any = {"arrow_extensions_enabled": False}
        file = pq.ParquetFile(source.reading(), buffer_size=_BUFFER_BYTES, **strict)
        rows = file.metadata.num_rows
        if rows > limits.rows:
            raise TooLarge(f"{source.name} has {rows:,} rows; at most {limits.rows:,} are read")
        return file


def parquet_schema(file: pq.ParquetFile, name: str) -> pa.Schema:
    with _explained(name, "Parquet"):
        return _readable(file.schema_arrow)


def stored_schema(source: Source) -> pa.Schema:
    with _explained(source.name, "an Arrow IPC stream"):
        return _readable(_open_arrow(source)[0])


def _readable(schema: pa.Schema) -> pa.Schema:
    """The schema. Raises UnicodeDecodeError for names and time zones that are not UTF-8."""
    kinds: list[Any] = [_plain_type(kind) for kind in schema.types]
    zones = [kind.tz or "" for kind in kinds if isinstance(kind, pa.TimestampType)]
    # Joining decodes each text.
    "".join([*schema.names, *zones])
    return schema


def read_parquet(
    file: pq.ParquetFile, name: str, columns: Columns, rows: int
) -> Iterator[pa.RecordBatch]:
    all_names = file.schema_arrow.names
    names = [all_names[position] for position in columns.positions]
    if any(all_names.count(column) > 1 for column in names):
        raise InvalidInput(
            f"{name} has several columns without a name, which Parquet cannot tell apart; name them"
        )

    rows = min(rows, _rows_in_a_batch(file.metadata))
    with _explained(name, "Parquet"):
        for batch in file.iter_batches(batch_size=rows, columns=names, use_threads=False):
            # Arrow also reads the field "b" of a struct "a" for the name "a.b".
            yield _plain(batch.select(names), columns, name)


def _rows_in_a_batch(footer: pq.FileMetaData) -> int:
    """The number of rows of average size that fill BATCH_BYTES."""
    groups = map(footer.row_group, range(footer.num_row_groups))
    size = sum(group.total_byte_size for group in groups)
    return max(1, BATCH_BYTES * footer.num_rows // max(1, size))


def read_arrow(source: Source, columns: Columns, rows: int) -> Iterator[pa.RecordBatch]:
    with _explained(source.name, "an Arrow IPC stream"):
        for batch in _open_arrow(source, columns.positions)[1]:
            for start in range(0, batch.num_rows, rows):
                yield _plain(batch.slice(start, rows), columns, source.name)


def read_batches(
    batches: Iterable[pa.RecordBatch], columns: Columns, name: str
) -> Iterator[pa.RecordBatch]:
    """Batches in memory, of the columns alone, in the types that they are read as."""
    with _explained(name, "a data frame"):
        for batch in batches:
            yield _plain(batch, columns, name)


def _open_arrow(
    source: Source, positions: Sequence[int] = ()
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The schema and the batches of an Arrow IPC stream or file, which its first bytes tell.

    positions: of the columns to read; all if empty.
    """
    options = pa.ipc.IpcReadOptions(included_fields=list(positions), use_threads=False)
    stream: Any = source.reading()  # the stubs want an IOBase, which BinaryIO is not
    readable = pa.PythonFile(stream, mode="r")
    if source.sample.startswith(ARROW_FILE):
        file = pa.ipc.open_file(readable, options=options)
        return file.schema, map(file.get_batch, range(file.num_record_batches))
    reader = pa.ipc.open_stream(readable, options=options)
    return reader.schema, iter(reader)


def _plain(batch: pa.RecordBatch, columns: Columns, name: str) -> pa.RecordBatch:
    """Check the content of a batch and cast it to the types that columns are read as."""
    batch.validate()
    names = batch.schema.names
    triples = zip(batch.columns, names, columns.types, strict=True)
    arrays = [_read(array, column, kind, name) for array, column, kind in triples]
    plain = pa.record_batch(arrays, names=names)
    if plain.nbytes > LINE_BYTES:
        _check_rows(plain, name)
    return plain


def _check_rows(batch: pa.RecordBatch, name: str) -> None:
    """Refuse a row longer than a text file may hold: a row is always in memory as a whole."""
    texts = [column for column in batch.columns if pa.types.is_string(column.type)]
    lengths = sum(
        np.asarray(pc.fill_null(pc.binary_length(text), 0), dtype=np.int64) for text in texts
    )
    if np.max(lengths, initial=0) > LINE_BYTES:
        raise InvalidInput(
            f"{name} has a row that holds more than {LINE_BYTES >> 20} MiB of text; shorten it"
        )


def _read(array: Any, column: str, kind: pa.DataType, name: str) -> cells.Array:
    _check(array, column, name)
    array = _decoded(array)
    if _TYPES.is_fixed_size_binary(array.type) and array.type.byte_width == 16:
        return _uuids(array)
    if _is_bytes(array.type):
        array = _text_of_bytes(array)
    if _TYPES.is_timestamp(array.type) and array.type.unit == "s":
        array = _countable(array)

    values: cells.Array = array.cast(kind)
    if _TYPES.is_string(kind) and _longest(values) > LINE_BYTES:
        raise InvalidInput(
            f"column {column!r} of {name} holds a text of more than {LINE_BYTES >> 20} MiB;"
            " shorten it"
        )
    return values


def _uuids(array: Any) -> cells.Array:
    values = [value and str(uuid.UUID(bytes=value)) for value in array.to_pylist()]
    return pa.array(values, pa.string())


def _longest(texts: cells.Array) -> int:
    """The length in bytes of the longest text."""
    return pc.max(pc.binary_length(texts)).as_py() or 0


def _check(array: Any, column: str, name: str) -> None:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid as problem:
        if "UTF8" not in str(problem):
            raise
        raise InvalidInput(
            f"column {column!r} of {name} has a broken encoding: its text is not UTF-8; write it"
            " as UTF-8, or as bytes"
        ) from None


def _decoded(array: Any) -> Any:
    """The values of an extension type, of runs, of a dictionary or of a view, as a plain array."""
    if isinstance(array.type, pa.BaseExtensionType):
        return _decoded(array.storage)
    if _TYPES.is_run_end_encoded(array.type):
        return _decoded_runs(array)
    if _TYPES.is_dictionary(array.type):
        return _decoded(array.dictionary).take(array.indices)
    # Few of Arrow's functions know views.
    views = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
    return array.cast(views[array.type]) if array.type in views else array


def _decoded_runs(array: Any) -> Any:
    # Arrow decodes runs of few types, integers among them: the runs' own indices.
    indices = pa.array(range(len(array.values)))
    runs = pa.RunEndEncodedArray.from_arrays(array.run_ends, indices)
    window = runs.slice(array.offset, len(array))
    return _decoded(array.values).take(pc.run_end_decode(window))


def _countable(seconds: Any) -> Any:
    """Seconds cut to the range of 64-bit milliseconds, which is far wider than that of dates."""
    most = 2**63 // 1_000 - 1
    numbers = seconds.cast(pa.int64())
    numbers = pc.min_element_wise(numbers, most, skip_nulls=False)
    numbers = pc.max_element_wise(numbers, -most, skip_nulls=False)
    return numbers.cast(seconds.type)


def _is_bytes(kind: pa.DataType) -> bool:
    checks = (_TYPES.is_binary, _TYPES.is_large_binary, _TYPES.is_fixed_size_binary)
    return any(check(kind) for check in checks)


def _text_of_bytes(array: Any) -> cells.Array:
    """UTF-8 bytes as text, other bytes as hexadecimal digits.

    Each cell is judged alone, so that its text does not depend on the batch.
    """
    array = array.cast(pa.binary())
    with contextlib.suppress(pa.ArrowInvalid):
        text: cells.Array = array.cast(pa.string())
        if not pc.any(pc.match_substring_regex(text, _CONTROL)).as_py():
            return text
    encoded = array.dictionary_encode()
    texts = [_spelled(value) for value in encoded.dictionary.to_pylist()]
    return pa.array(texts, pa.string()).take(encoded.indices)


def _spelled(value: bytes) -> str:
    with contextlib.suppress(UnicodeDecodeError):
        text = value.decode()
        if not re.search(_CONTROL, text):
            return text
    if len(value) <= _LONG_BYTES:
        return value.hex()
    return f"sha256:{hashlib.sha256(value).hexdigest()}"


def _plain_type(kind: pa.DataType) -> pa.DataType | str:
    """The type that a column is read as; for a column that cannot be read, words for its values."""
    kind = _value_type(kind)
    if _TYPES.is_duration(kind):
        return pa.int64()
    if not is_in_parquet(kind):
        return pa.float64()
    if _TYPES.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("ms", kind.tz)  # Parquet has no unit of seconds
    # Few of Arrow's functions know the narrowest types.
    if _TYPES.is_float16(kind):
        return pa.float32()
    if _TYPES.is_decimal32(kind) or _TYPES.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    if any(check(kind) for check in _READ_AS_TEXT):
        return pa.string()
    if any(check(kind) for check in _READ):
        return kind
    return next((word for check, word in _WORDS if check(kind)), f"values of the type {kind}"[:100])


def _value_type(kind: Any) -> Any:
    """The type of the values below extension types, dictionaries and runs."""
    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif _TYPES.is_dictionary(kind) or _TYPES.is_run_end_encoded(kind):
            kind = kind.value_type
        else:
            return kind


@contextlib.contextmanager
def _explained(name: str, format: str) -> Iterator[None]:
    """Translate Arrow's errors into errors of Nelbo that name the table and the format."""
    try:
        yield
    except MemoryError:  # Arrow's is an ArrowException too
        raise
    except UnicodeDecodeError:
        raise InvalidInput(
            f"{name} has a broken encoding: a column name, time zone or text is not UTF-8"
        ) from None
    except pa.ArrowNotImplementedError as problem:
        raise InvalidInput(
            f"{name} cannot be read as {format}: it uses a feature that is not supported here"
            f" ({_first_line(problem)}); write it again without that feature"
        ) from None
    except pa.ArrowCapacityError as problem:
        raise TooLarge(
            f"{name} holds more text in a few rows than fits into memory ({_first_line(problem)})"
        ) from None
    except (pa.ArrowException, OSError, EOFError) as problem:
        reason = _first_line(problem)
        raise InvalidInput(
            f"{name} cannot be read as {format}: it is damaged or cut off ({reason}); write it"
            " again"
        ) from None


def _first_line(problem: Exception) -> str:
    return (str(problem) or type(problem).__name__).splitlines()[0][:200]

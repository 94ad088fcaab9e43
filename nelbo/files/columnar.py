"""Parquet and Arrow IPC: typed columns, those of them that have a meaning as a column of a
table."""

import contextlib
import hashlib
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
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
"""Bytes that are no text and more than these are read as their digest."""
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
    """The columns that are read: their places in the file, and the types that they are read as.

    left_out: what each of the other columns holds, by its name. units: those of durations, which
    are read as numbers.
    """

    places: list[int]
    types: list[pa.DataType]
    left_out: dict[str, str]
    units: list[tuple[str, str]]


def columns_of(schema: pa.Schema) -> Columns:
    """Which columns of a typed table have a meaning as a column. Names must be unique."""
    types = [_plain_type(kind) for kind in schema.types]
    return Columns(
        places=[place for place, kind in enumerate(types) if not isinstance(kind, str)],
        types=[kind for kind in types if not isinstance(kind, str)],
        left_out={
            name: kind
            for name, kind in zip(schema.names, types, strict=True)
            if isinstance(kind, str)
        },
        units=[
            (field.name, _UNITS[field.type.unit])
            for field in schema
            if pa.types.is_duration(field.type)
        ],
    )


def open_parquet(source: Source, limits: Limits) -> pq.ParquetFile:
    """A Parquet file whose footer keeps the limits, before anything of its content is read."""
    with _explained(source.name, "Parquet"):
        # Unknown to the stubs: without extensions, a file cannot choose the Python class of its
        # columns.
        strict: Any = {"arrow_extensions_enabled": False}
        file = pq.ParquetFile(source.reading(), buffer_size=_BUFFER_BYTES, **strict)
        if file.metadata.num_rows > limits.rows:
            raise TooLarge(
                f"{source.name} has {file.metadata.num_rows:,} rows; at most {limits.rows:,} are"
                " read"
            )
        return file


def parquet_schema(file: pq.ParquetFile, name: str) -> pa.Schema:
    with _explained(name, "Parquet"):
        return _readable(file.schema_arrow)


def arrow_schema(source: Source) -> pa.Schema:
    with _explained(source.name, "an Arrow IPC stream"):
        return _readable(_open_arrow(source)[0])


def _readable(schema: pa.Schema) -> pa.Schema:
    """The schema. Raises UnicodeDecodeError for names and time zones that are not UTF-8."""
    kinds: list[Any] = [_plain_type(kind) for kind in schema.types]
    "".join(
        [*schema.names, *(kind.tz or "" for kind in kinds if isinstance(kind, pa.TimestampType))]
    )
    return schema


def read_parquet(
    file: pq.ParquetFile, name: str, columns: Columns, rows: int
) -> Iterator[pa.RecordBatch]:
    all_names = file.schema_arrow.names
    names = [all_names[place] for place in columns.places]
    if any(all_names.count(one) > 1 for one in names):
        raise InvalidInput(
            f"{name} has several columns without a name, which cannot be told apart in Parquet;"
            " name them"
        )
    size = sum(file.metadata.row_group(at).total_byte_size for at in range(file.num_row_groups))
    fewer = max(1, BATCH_BYTES * file.metadata.num_rows // max(1, size))
    with _explained(name, "Parquet"):
        for batch in file.iter_batches(
            batch_size=min(rows, fewer), columns=names, use_threads=False
        ):
            # A name with a point in it also stands for a part of a struct.
            yield _plain(batch.select(names), columns, name)


def read_arrow(source: Source, columns: Columns, rows: int) -> Iterator[pa.RecordBatch]:
    with _explained(source.name, "an Arrow IPC stream"):
        for batch in _open_arrow(source, columns.places)[1]:
            for start in range(0, batch.num_rows, rows):
                yield _plain(batch.slice(start, rows), columns, source.name)


def _open_arrow(
    source: Source, places: Sequence[int] = ()
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """An Arrow IPC stream, or an IPC file by its first bytes: the columns at some places, or
    all."""
    options = pa.ipc.IpcReadOptions(included_fields=list(places), use_threads=False)
    stream: Any = source.reading()  # the stubs want an IOBase, which BinaryIO is not
    readable = pa.PythonFile(stream, mode="r")
    if source.sample.startswith(ARROW_FILE):
        file = pa.ipc.open_file(readable, options=options)
        return file.schema, (file.get_batch(at) for at in range(file.num_record_batches))
    reader = pa.ipc.open_stream(readable, options=options)
    return reader.schema, iter(reader)


def _plain(batch: pa.RecordBatch, columns: Columns, name: str) -> pa.RecordBatch:
    """The batch, its content checked, in the types that columns are read as."""
    batch.validate()
    names = batch.schema.names
    arrays = [
        _read(*column, name) for column in zip(batch.columns, names, columns.types, strict=True)
    ]
    made = pa.record_batch(arrays, names=names)
    if made.nbytes > LINE_BYTES:
        _check_rows(made, name)
    return made


def _check_rows(batch: pa.RecordBatch, name: str) -> None:
    """Refuse a row that a text file could not hold: whoever works on a row has all of it in
    memory."""
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
    if pa.types.is_fixed_size_binary(array.type) and array.type.byte_width == 16:
        return pa.array(
            [None if value is None else str(uuid.UUID(bytes=value)) for value in array.to_pylist()],
            pa.string(),
        )
    if _is_bytes(array.type):
        array = _text_of_bytes(array)
    if pa.types.is_timestamp(array.type) and array.type.unit == "s":
        array = _countable(array)
    array = array.cast(kind)
    if pa.types.is_string(kind) and (pc.max(pc.binary_length(array)).as_py() or 0) > LINE_BYTES:
        raise InvalidInput(
            f"column {column!r} of {name} holds a text of more than {LINE_BYTES >> 20} MiB; shorten"
            " it"
        )
    return array  # type: ignore[no-any-return]  # an array, by the types above


def _check(array: Any, column: str, name: str) -> None:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid as problem:
        if "UTF8" not in str(problem):
            raise
        raise InvalidInput(
            f"column {column!r} of {name} has a broken encoding: its text is not UTF-8; write it as"
            " UTF-8, or as bytes"
        ) from None


def _decoded(array: Any) -> Any:
    """The values themselves, however they are wrapped."""
    if isinstance(array.type, pa.BaseExtensionType):
        return _decoded(array.storage)
    if pa.types.is_run_end_encoded(array.type):
        runs = pa.RunEndEncodedArray.from_arrays(array.run_ends, pa.array(range(len(array.values))))
        return _decoded(array.values).take(pc.run_end_decode(runs.slice(array.offset, len(array))))
    if pa.types.is_dictionary(array.type):
        return _decoded(array.dictionary).take(array.indices)
    # Few of Arrow's functions know views.
    views = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
    return array.cast(views[array.type]) if array.type in views else array


def _countable(seconds: Any) -> Any:
    """Seconds that can be counted in milliseconds. Those that cannot stay far outside of the years
    that are dates."""
    most = 2**63 // 1_000 - 1
    within = pc.max_element_wise(
        pc.min_element_wise(seconds.cast(pa.int64()), most, skip_nulls=False),
        -most,
        skip_nulls=False,
    )
    return within.cast(seconds.type)


def _is_bytes(kind: pa.DataType) -> bool:
    checks = pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary
    return any(check(kind) for check in checks)


def _text_of_bytes(array: Any) -> cells.Array:
    """Bytes of UTF-8 as that text, others as hexadecimal digits. Each cell alone decides, so that
    it is the same anywhere."""
    array = array.cast(pa.binary())
    with contextlib.suppress(pa.ArrowInvalid):
        text: cells.Array = array.cast(pa.string())
        if not pc.any(pc.match_substring_regex(text, _CONTROL)).as_py():
            return text
    encoded = array.dictionary_encode()
    return pa.array(
        [_spelled(value) for value in encoded.dictionary.to_pylist()], pa.string()
    ).take(encoded.indices)


def _spelled(value: bytes) -> str:
    with contextlib.suppress(UnicodeDecodeError):
        text = value.decode()
        if not re.search(_CONTROL, text):
            return text
    return (
        value.hex() if len(value) <= _LONG_BYTES else f"sha256:{hashlib.sha256(value).hexdigest()}"
    )


def _plain_type(kind: pa.DataType) -> pa.DataType | str:
    """The type that a column is read as, or what it holds where that has no meaning as a column."""
    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
            kind = kind.value_type
        else:
            break
    if pa.types.is_duration(kind):
        return pa.int64()
    if not is_in_parquet(kind):
        return pa.float64()
    if pa.types.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("ms", kind.tz)  # Parquet counts no seconds
    # Few of Arrow's functions know the narrowest types.
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    if any(check(kind) for check in _READ_AS_TEXT):
        return pa.string()
    if any(check(kind) for check in _READ):
        return kind
    return next((word for check, word in _WORDS if check(kind)), f"values of the type {kind}"[:100])


@contextlib.contextmanager
def _explained(name: str, wanted: str) -> Iterator[None]:
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
            f"{name} cannot be read as {wanted}: it uses what is not supported here"
            f" ({_first_line(problem)}); "
            "write it again without"
        ) from None
    except pa.ArrowCapacityError as problem:
        raise TooLarge(
            f"{name} holds more text in a few rows than fits into memory ({_first_line(problem)})"
        ) from None
    except (pa.ArrowException, OSError, EOFError) as problem:
        what = _first_line(problem)
        raise InvalidInput(
            f"{name} cannot be read as {wanted}: it is damaged or cut off ({what}); write it again"
        ) from None


def _first_line(problem: Exception) -> str:
    return (str(problem) or type(problem).__name__).splitlines()[0][:200]

"""Writing tables, batch by batch, in each of the formats."""

import contextlib
import functools
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from nelbo import cells
from nelbo.cells import pc
from nelbo.errors import InvalidInput
from nelbo.files.compression import compressing
from nelbo.files.formats import FORMATS, Format, compression_of, format_of
from nelbo.files.target import open_target
from nelbo.spelling.columns import Spelling

_FORMULA = r"^(?:[\t\r\n]|[\s\x{a0}]*[=+\-@\x{ff1d}\x{ff0b}\x{ff0d}\x{ff20}])"
"""What spreadsheets take for a formula (OWASP, CSV injection), also behind blanks and as wide
signs."""
_UNIT = r"(?:\p{Sc}|%|\p{L}{1,8})"
_NUMBER = (
    r"^[+\-−]?(?:(?:\p{Sc}|\p{L}{1,4}\s)?\s?"
    rf"\d[\d.,'’\s\x{{a0}}\x{{202f}}]*(?:[eE][+\-]?\d+)?\s?{_UNIT}?|inf)$"
)
"""A number with its sign, also with a currency or a unit: it computes nothing."""


class _Sink(Protocol):
    def write(self, batch: pa.RecordBatch, /) -> object: ...
    def close(self) -> object: ...


class TableWriter:
    """Takes batches of one schema. Null is an empty cell in CSV and null in JSON Lines; times are
    ISO 8601.

    safe_csv: cells and names of CSV that a spreadsheet would take for a formula begin with an
    apostrophe.
    """

    def __init__(
        self,
        stream: BinaryIO,
        format: Format,
        schema: pa.Schema | None = None,
        safe_csv: bool = False,
    ) -> None:
        self._stream = stream
        self._format = format
        self._safe_csv = safe_csv
        self._sink: _Sink | None = None
        if schema is not None:
            self._start(schema)

    def write(self, batch: pa.RecordBatch) -> None:
        sink = self._sink or self._start(batch.schema)
        sink.write(batch)

    def close(self) -> None:
        """Finish the table; the stream stays open."""
        if self._sink is not None:
            self._sink.close()

    def _start(self, schema: pa.Schema) -> _Sink:
        csv = functools.partial(_Csv, safe=self._safe_csv)
        sinks = {"csv": csv, "jsonl": _JsonLines, "parquet": _parquet, "arrow": pa.ipc.new_stream}
        self._sink = sinks[self._format](self._stream, schema)  # type: ignore[operator]
        return self._sink


@contextlib.contextmanager
def open_writer(
    target: str | Path | BinaryIO,
    format: str | None = None,
    schema: pa.Schema | None = None,
    *,
    safe_csv: bool = False,
) -> Iterator[TableWriter]:
    """A writer to a path, to "-" for standard output (CSV unless a format is given), or to a binary
    file.

    A path appears, whole, when the block ends without an error; what stood there before stays until
    then (open_target). Its suffix .gz or .zst compresses the table. schema: of a table that may get
    no batch at all, so that its columns are written all the same. safe_csv: for people who open CSV
    in a spreadsheet: what it would take for a formula begins with an apostrophe.
    """
    if not isinstance(target, str | Path):
        with _finished(
            TableWriter(target, _chosen(format, "table.csv"), schema, safe_csv)
        ) as writer:
            yield writer
    else:
        name = "table.csv" if str(target) == "-" else target
        with (
            open_target(target) as file,
            compressing(file, compression_of(name)) as stream,
            _finished(TableWriter(stream, _chosen(format, name), schema, safe_csv)) as writer,
        ):
            yield writer


def _chosen(format: str | None, name: str | Path) -> Format:
    if format is None:
        return format_of(name)
    if format not in FORMATS:
        raise InvalidInput(f"{format!r} is no format of tables; choose one of {', '.join(FORMATS)}")
    return format


@contextlib.contextmanager
def _finished(writer: TableWriter) -> Iterator[TableWriter]:
    yield writer
    writer.close()


def _parquet(stream: BinaryIO, schema: pa.Schema) -> Any:
    return _Parquet(stream, schema)


class _Parquet:
    def __init__(self, stream: BinaryIO, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(stream, schema, compression="zstd")

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)

    def close(self) -> None:
        self._writer.close()


class _Csv:
    """Comma, UTF-8, quotes only where they are needed."""

    def __init__(self, stream: BinaryIO, schema: pa.Schema, safe: bool) -> None:
        self._stream = stream
        self._safe = safe
        self._write([pa.array([name]) for name in schema.names])

    def write(self, batch: pa.RecordBatch) -> None:
        self._write(
            [
                cells.written(column, field)
                for column, field in zip(batch.columns, batch.schema, strict=True)
            ]
        )

    def close(self) -> None:
        self._stream.flush()

    def _write(self, columns: list[cells.Array]) -> None:
        if self._safe:
            columns = [_without_formulas(column) for column in columns]
        quoted = [_quoted(column, alone=len(columns) == 1) for column in columns]
        _write_lines(self._stream, pc.binary_join_element_wise(*quoted, ","))


class _JsonLines:
    """One object in a line, each with all keys. What JSON cannot say (NaN, infinite) is null."""

    def __init__(self, stream: BinaryIO, schema: pa.Schema) -> None:
        self._stream = stream
        starts = itertools.chain("{", itertools.repeat(","))
        self._keys = [
            f"{start}{json.dumps(name, ensure_ascii=False)}:"
            for start, name in zip(starts, schema.names, strict=False)
        ]

    def write(self, batch: pa.RecordBatch) -> None:
        columns = zip(batch.columns, batch.schema, strict=True)
        values = [
            pc.fill_null(_json(cells.plain(column), field), "null") for column, field in columns
        ]
        pieces = [piece for pair in zip(self._keys, values, strict=True) for piece in pair]
        _write_lines(self._stream, pc.binary_join_element_wise(*pieces, "}", ""))

    def close(self) -> None:
        self._stream.flush()


def _without_formulas(text: cells.Array) -> cells.Array:
    """Any column may hold one: a model's schema says how numbers, dates and truth are written."""
    formula = pc.and_not(
        pc.match_substring_regex(text, _FORMULA), pc.match_substring_regex(text, _NUMBER)
    )
    harmless: cells.Array = pc.if_else(formula, pc.binary_join_element_wise("'", text, ""), text)
    return harmless


def _quoted(text: cells.Array, alone: bool) -> cells.Array:
    """CSV cells. Quoted is also what else a reader might take for a delimiter, and text that is
    empty or not trimmed."""
    special = pc.match_substring_regex(text, r'[",;|\t\r\n]|^\s|\s$|^$')
    if pc.any(special).as_py():
        inner = pc.binary_join_element_wise('"', pc.replace_substring(text, '"', '""'), '"', "")
        text = pc.if_else(special, inner, text)
    # A line of nothing is skipped by readers, so a missing value of an only column must be seen.
    filled: cells.Array = pc.fill_null(text, '""' if alone else "")
    return filled


def _json(array: cells.Array, field: "pa.Field[Any]") -> cells.Array:
    """JSON values as text, null where there is none. Numbers stay numbers, however text files have
    them."""
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_finite(array), array, pa.scalar(None, array.type))
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        return cells.spelled(array)
    text = cells.written(array, field)
    if pa.types.is_boolean(array.type) and not Spelling.of(field).words:
        return text
    if pc.any(pc.match_substring_regex(text, r'["\\\x00-\x1f]')).as_py():
        encoded = text.dictionary_encode()
        escaped = [
            json.dumps(value, ensure_ascii=False) for value in encoded.dictionary.to_pylist()
        ]
        return pa.array(escaped, pa.string()).take(encoded.indices)
    quoted: cells.Array = pc.binary_join_element_wise('"', text, '"', "")
    return quoted


def _write_lines(stream: BinaryIO, lines: cells.Array) -> None:
    if len(lines):
        everything = pa.ListArray.from_arrays(pa.array([0, len(lines)], pa.int32()), lines)
        stream.write(pc.binary_join(everything, "\n")[0].as_buffer())
        stream.write(b"\n")

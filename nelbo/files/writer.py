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
from nelbo.files.compression import compressing
from nelbo.files.formats import Format, check_format, compression_of, format_of
from nelbo.files.target import open_target
from nelbo.spelling.columns import Spelling

_FORMULA = r"^(?:[\t\r\n]|[\s\x{a0}]*[=+\-@\x{ff1d}\x{ff0b}\x{ff0d}\x{ff20}])"
"""Text that spreadsheets read as a formula (OWASP, CSV injection), also in wide characters."""
_UNIT = r"(?:\p{Sc}|%|\p{L}{1,8})"
_NUMBER = (
    r"^[+\-−]?(?:(?:\p{Sc}|\p{L}{1,4}\s)?\s?"
    rf"\d[\d.,'’\s\x{{a0}}\x{{202f}}]*(?:[eE][+\-]?\d+)?\s?{_UNIT}?|inf)$"
)
"""A number with its sign, also with a currency or a unit: it is harmless in a spreadsheet."""


class _BatchSink(Protocol):
    def write(self, batch: pa.RecordBatch, /) -> object: ...
    def close(self) -> object: ...


class TableWriter:
    """Writes batches of one schema.

    Null is an empty cell in CSV and null in JSON Lines; times are ISO 8601.

    safe_csv: put an apostrophe before CSV cells and names that a spreadsheet reads as a formula.
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
        self._sink: _BatchSink | None = None
        if schema is not None:
            self._start(schema)

    def write(self, batch: pa.RecordBatch) -> None:
        sink = self._sink or self._start(batch.schema)
        sink.write(batch)

    def close(self) -> None:
        """Finish the table; the stream stays open."""
        if self._sink is not None:
            self._sink.close()

    def _start(self, schema: pa.Schema) -> _BatchSink:
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
    """A writer to a path, to standard output for "-", or to a binary file.

    The file at a path is complete when the block ends without an error; until then an old file
    stays unchanged (open_target). A suffix .gz or .zst compresses it.

    format: one of FORMATS. If it is None, the suffix of the path decides; otherwise it is CSV.
    schema: the columns of the table. Without it, a table that gets no batch has no columns.
    safe_csv: for users who open CSV in a spreadsheet: put an apostrophe before cells and names that
    it reads as a formula.
    """
    if not isinstance(target, str | Path):
        kind = check_format(format or "csv")
        with _finished(TableWriter(target, kind, schema, safe_csv)) as writer:
            yield writer
        return

    name = "table.csv" if str(target) == "-" else target
    with open_target(target) as file, compressing(file, compression_of(name)) as stream:
        kind = format_of(name) if format is None else check_format(format)
        with _finished(TableWriter(stream, kind, schema, safe_csv)) as writer:
            yield writer


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
    """CSV with commas, in UTF-8, with quotes only where they are needed."""

    def __init__(self, stream: BinaryIO, schema: pa.Schema, safe: bool) -> None:
        self._stream = stream
        self._safe = safe
        self._write([pa.array([name]) for name in schema.names])

    def write(self, batch: pa.RecordBatch) -> None:
        columns = zip(batch.columns, batch.schema, strict=True)
        self._write([cells.written(column, field) for column, field in columns])

    def close(self) -> None:
        self._stream.flush()

    def _write(self, columns: list[cells.Array]) -> None:
        if self._safe:
            columns = [_without_formulas(column) for column in columns]
        quoted = [_quoted(column, alone=len(columns) == 1) for column in columns]
        _write_lines(self._stream, pc.binary_join_element_wise(*quoted, ","))


class _JsonLines:
    """One object per line, each with all keys. NaN and infinity, which JSON lacks, are null."""

    def __init__(self, stream: BinaryIO, schema: pa.Schema) -> None:
        self._stream = stream
        starts = itertools.chain("{", itertools.repeat(","))
        self._keys = [
            f"{start}{json.dumps(name, ensure_ascii=False)}:"
            for start, name in zip(starts, schema.names, strict=False)
        ]

    def write(self, batch: pa.RecordBatch) -> None:
        pieces: list[Any] = []
        for key, column, field in zip(self._keys, batch.columns, batch.schema, strict=True):
            values = _json(cells.plain(column), field)
            pieces += [key, pc.fill_null(values, "null")]
        _write_lines(self._stream, pc.binary_join_element_wise(*pieces, "}", ""))

    def close(self) -> None:
        self._stream.flush()


def _without_formulas(text: cells.Array) -> cells.Array:
    """The cells, with an apostrophe before formulas.

    Any column may hold one: a model's schema sets how numbers, dates and booleans are written.
    """
    formula = pc.and_not(
        pc.match_substring_regex(text, _FORMULA), pc.match_substring_regex(text, _NUMBER)
    )
    harmless: cells.Array = pc.if_else(formula, pc.binary_join_element_wise("'", text, ""), text)
    return harmless


def _quoted(text: cells.Array, alone: bool) -> cells.Array:
    """CSV cells, quoted if they need it.

    These are also cells with a character that a reader may take for the delimiter, and text that is
    empty or has white space at an end.
    """
    special = pc.match_substring_regex(text, r'[",;|\t\r\n]|^\s|\s$|^$')
    if pc.any(special).as_py():
        inner = pc.binary_join_element_wise('"', pc.replace_substring(text, '"', '""'), '"', "")
        text = pc.if_else(special, inner, text)
    # Readers skip an empty line, so the missing value of a single column is written as "".
    filled: cells.Array = pc.fill_null(text, '""' if alone else "")
    return filled


def _json(array: cells.Array, field: "pa.Field[Any]") -> cells.Array:
    """JSON values as text, with null for missing ones.

    Numbers stay JSON numbers, also in columns whose text files write them in another way.
    """
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_finite(array), array, pa.scalar(None, array.type))
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        return cells.spelled(array)
    text = cells.written(array, field)
    if pa.types.is_boolean(array.type) and not Spelling.of(field).words:
        return text
    return _quoted_json(text)


def _quoted_json(text: cells.Array) -> cells.Array:
    if pc.any(pc.match_substring_regex(text, r'["\\\x00-\x1f]')).as_py():
        encoded = text.dictionary_encode()
        values = encoded.dictionary.to_pylist()
        escaped = [json.dumps(value, ensure_ascii=False) for value in values]
        return pa.array(escaped, pa.string()).take(encoded.indices)
    quoted: cells.Array = pc.binary_join_element_wise('"', text, '"', "")
    return quoted


def _write_lines(stream: BinaryIO, lines: cells.Array) -> None:
    if len(lines):
        everything = pa.ListArray.from_arrays(pa.array([0, len(lines)], pa.int32()), lines)
        stream.write(pc.binary_join(everything, "\n")[0].as_buffer())
        stream.write(b"\n")

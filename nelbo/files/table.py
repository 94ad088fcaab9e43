"""A table in a file of any format: its names and its rows."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import pyarrow as pa

from nelbo.errors import InvalidInput, TooLarge
from nelbo.files import columnar, delimited, json_lines
from nelbo.files.formats import (
    DETECTED,
    CsvOptions,
    Format,
    Limits,
    check_content,
    check_format,
    format_of,
    format_of_content,
)
from nelbo.files.source import Source, open_source
from nelbo.files.text import encoding_of, known_encoding, notices_of
from nelbo.spelling.columns import Spelling, find

BATCH_ROWS = 8_192
SAMPLE_ROWS = 1_000
_NAME_LENGTH = 1_000


@dataclass(frozen=True)
class Table:
    """An open table.

    schema: its Arrow types, all strings for CSV and JSON Lines.
    notices: messages for the user when the table is opened.
    rows: None if their number is unknown.
    late_notices: messages for the user after all batches were read.
    """

    name: str
    format: Format
    schema: pa.Schema
    notices: tuple[str, ...]
    rows: int | None
    _source: Source
    _read: Callable[[int], Iterator[pa.RecordBatch]]
    _limits: Limits
    late_notices: list[str] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.schema.names)

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """All rows from the first on, in batches of at most `rows`."""
        seen = 0
        for batch in self._read(rows):
            seen += batch.num_rows
            if seen > self._limits.rows:
                raise TooLarge(f"{self.name} has more than {self._limits.rows:,} rows, the limit")
            yield pa.record_batch(batch.columns, schema=self.schema)

    def close(self) -> None:
        self._source.stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_table(
    source: str | Path | BinaryIO,
    format: str | None = None,
    *,
    name: str | None = None,
    csv: CsvOptions = DETECTED,
    limits: Limits = Limits(),  # noqa: B008  # frozen
) -> Table:
    """Open a table: a path, "-" for standard input, or a binary file.

    A binary file is read from its start and closed with the table. A file that is compressed with
    gzip or zstd is unpacked into a temporary file.

    format: one of FORMATS. If it is None, the suffix of the path or of `name` decides, and for
    a pipe the first bytes.
    name: the table's name in messages.
    csv: how a CSV file is written; options that are None are detected.

    Raises NotFound, TooLarge, and InvalidInput for a table that cannot be used at all. Reading may
    raise the last two later.
    """
    opened = open_source(source, name, limits)
    try:
        kind = _format(format, source, name, opened)
        if not opened.sample.strip():
            raise InvalidInput(f"{opened.name} is empty; a table needs a header and rows")
        check_content(opened.sample, kind, opened.name)
        return _OPEN[kind](opened, limits, csv)
    except BaseException:
        opened.stream.close()
        raise


def table_of(frame: pa.Table, name: str = "the data frame") -> Table:
    """An Arrow table in memory, opened as an Arrow file is. It may be without rows; it then has one
    batch, which is empty.

    Raises InvalidInput for a table that cannot be used at all.
    """
    schema, columns, notices = _typed_schema(frame.schema, name, Limits())
    plain = frame.select(columns.positions)

    def read(rows: int) -> Iterator[pa.RecordBatch]:
        batches = plain.to_batches(rows) or [_empty(plain.schema)]
        return columnar.read_batches(batches, columns, name)

    schema = _spelled(schema, next(read(SAMPLE_ROWS)))
    memory = Source(name, io.BytesIO(), b"", whole=True)
    return Table(name, "arrow", schema, tuple(notices), len(frame), memory, read, Limits())


def _format(
    format: str | None, source: str | Path | BinaryIO, name: str | None, opened: Source
) -> Format:
    if format is not None:
        return check_format(format)
    path = name or (source if isinstance(source, str | Path) and str(source) != "-" else None)
    return format_of_content(opened.sample) if path is None else format_of(path)


def _open_csv(source: Source, limits: Limits, csv: CsvOptions) -> Table:
    dialect = delimited.detect(source, csv)
    names, notices = _checked_names(dialect.names, source.name, limits)
    late_notices: list[str] = []

    def read(rows: int) -> Iterator[pa.RecordBatch]:
        return delimited.read(source, dialect, rows, late_notices)

    if next(read(BATCH_ROWS), None) is None:
        raise _no_rows(source.name)

    # How each column is written
    sample = delimited.sample(source, dialect) or [[""] * len(names)]
    arrays = [pa.array(column, pa.string()) for column in zip(*sample, strict=True)]
    schema = _text_schema(
        names,
        pa.record_batch(arrays, names=names),
        decimal=csv.decimal,
        likely="," if dialect.delimiter == ";" else ".",
    )
    notices += dialect.notices
    return Table(
        source.name, "csv", schema, tuple(notices), None, source, read, limits, late_notices
    )


def _open_jsonl(source: Source, limits: Limits, csv: CsvOptions) -> Table:
    encoding = known_encoding(csv.encoding) if csv.encoding else encoding_of(source)
    keys = json_lines.keys_of(source, encoding, limits)
    names, notices = _checked_names(keys.names, source.name, limits)
    notices += [] if csv.encoding else notices_of(encoding)
    if not names:
        raise InvalidInput(f"{source.name} has no columns: all of its objects are empty")
    notices += _left_out_notices(keys.left_out, names, source.name)

    names_by_key = dict(zip(keys.names, names, strict=True))
    for key in keys.left_out:
        del names_by_key[key]

    def read(rows: int) -> Iterator[pa.RecordBatch]:
        return json_lines.read(source, encoding, list(names_by_key), rows)

    sample = next(read(SAMPLE_ROWS))
    schema = _text_schema(list(names_by_key.values()), sample, plain_first=True)
    return Table(source.name, "jsonl", schema, tuple(notices), keys.rows, source, read, limits)


def _open_parquet(source: Source, limits: Limits, csv: CsvOptions) -> Table:
    file = columnar.open_parquet(source, limits)
    schema, columns, notices = _typed_schema(
        columnar.parquet_schema(file, source.name), source.name, limits
    )

    def read(rows: int) -> Iterator[pa.RecordBatch]:
        return columnar.read_parquet(file, source.name, columns, rows)

    sample = next(read(SAMPLE_ROWS), None)  # the footer may count rows that do not exist
    if sample is None:
        raise _no_rows(source.name)
    schema = _spelled(schema, sample)
    return Table(
        source.name, "parquet", schema, tuple(notices), file.metadata.num_rows, source, read, limits
    )


def _open_arrow(source: Source, limits: Limits, csv: CsvOptions) -> Table:
    schema, columns, notices = _typed_schema(columnar.stored_schema(source), source.name, limits)

    def read(rows: int) -> Iterator[pa.RecordBatch]:
        return columnar.read_arrow(source, columns, rows)

    sample = next(read(SAMPLE_ROWS), None)
    if sample is None:
        raise _no_rows(source.name)
    schema = _spelled(schema, sample)
    return Table(source.name, "arrow", schema, tuple(notices), None, source, read, limits)


_OPEN: dict[Format, Callable[[Source, Limits, CsvOptions], Table]] = {
    "csv": _open_csv,
    "parquet": _open_parquet,
    "arrow": _open_arrow,
    "jsonl": _open_jsonl,
}


def _typed_schema(
    schema: pa.Schema, name: str, limits: Limits
) -> tuple[pa.Schema, columnar.Columns, list[str]]:
    names, notices = _checked_names(schema.names, name, limits)
    if not names:
        raise InvalidInput(f"{name} has no columns")
    columns = columnar.columns_of(schema)
    notices += _left_out_notices(columns.left_out, names, name)
    notices += [
        f"the column {column!r} holds durations: they are read as numbers of {unit}"
        for column, unit in columns.units
    ]
    fields = []
    for position, kind in zip(columns.positions, columns.types, strict=True):
        spelling = Spelling(type=str(schema.field(position).type))
        fields.append(spelling.on(pa.field(names[position], kind)))
    return pa.schema(fields), columns, notices


def _text_schema(names: Sequence[str], sample: pa.RecordBatch, **hints: Any) -> pa.Schema:
    return _spelled(pa.schema([(name, pa.string()) for name in names]), sample, **hints)


def _spelled(schema: pa.Schema, sample: pa.RecordBatch, **hints: Any) -> pa.Schema:
    """The schema with the spelling of each column of text, as a sample shows it.

    hints: arguments of nelbo.spelling.columns.find.
    """
    texts = [index for index, kind in enumerate(schema.types) if pa.types.is_string(kind)]
    # The sample may still have names with white space around them.
    columns = {schema.names[index]: sample.column(index) for index in texts}
    spellings = find(pa.record_batch(columns), **hints)
    for index in texts:
        field = schema.field(index)
        spelling = spellings[field.name].model_copy(update={"type": Spelling.of(field).type})
        schema = schema.set(index, spelling.on(field))
    return schema


def _checked_names(raw: Sequence[str], table: str, limits: Limits) -> tuple[list[str], list[str]]:
    """The names without white space around them, and a notice about columns without a name.

    Refuses too many names, and names that are too long, hold NUL or are not unique.
    """
    if len(raw) > limits.columns:
        raise InvalidInput(
            f"{table} has more than {limits.columns:,} columns, the limit (NELBO_MAX_COLUMNS);"
            " leave some out"
        )
    names = [name.strip() or f"unnamed_{number}" for number, name in enumerate(raw, 1)]
    for name in names:
        _check_name(name, table)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInput(
            f"{table} has duplicate column names: {', '.join(map(repr, twice[:10]))}; rename one"
            " of each"
        )

    unnamed = [name for name, raw_name in zip(names, raw, strict=True) if not raw_name.strip()]
    notice = f"columns without a name are called {', '.join(unnamed[:10])}"
    return names, [notice] if unnamed else []


def _check_name(name: str, table: str) -> None:
    if len(name) > _NAME_LENGTH:
        raise InvalidInput(
            f"{table} has a column name of {len(name):,} characters, the limit is"
            f" {_NAME_LENGTH:,} ({name[:40]!r}); is it a header?"
        )
    if "\0" in name:
        raise InvalidInput(
            f"{table} has a column name that contains a NUL byte ({name[:40]!r}); is it a header?"
        )


def _left_out_notices(left_out: Mapping[str, str], names: Sequence[str], table: str) -> list[str]:
    """A notice for each kind of content that cannot be read as a column.

    Refuses a table that has no other columns.
    """
    notices = []
    for content in dict.fromkeys(left_out.values()):
        columns = [name for name in left_out if left_out[name] == content]
        if len(columns) == 1:
            subject = f"the column {columns[0]!r} holds"
            effect = "it is left out"
        else:
            subject = f"the columns {_listed(columns)} hold"
            effect = "they are left out"
        notices.append(
            f"{subject} {content}, which have no meaning as a column here: {effect}; give each"
            " part a column of its own"
        )
    if len(left_out) == len(names):
        raise InvalidInput(f"{table} has no column that can be read: {notices[0]}")
    return notices


def _listed(names: Sequence[str]) -> str:
    """The first ten names."""
    more = f" and {len(names) - 10:,} more" if len(names) > 10 else ""
    return ", ".join(map(repr, names[:10])) + more


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    types: list[Any] = schema.types
    arrays = [pa.nulls(0, kind) for kind in types]
    return pa.record_batch(arrays, names=schema.names)


def _no_rows(name: str) -> InvalidInput:
    return InvalidInput(f"{name} has a header but no rows")

"""A table in a file: its names and its rows, whatever format it has."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import pyarrow as pa

from nelbo.errors import InvalidInput, TooLarge
from nelbo.files import columnar, delimited, json_lines
from nelbo.files.formats import FORMATS, Format, Limits, check_content, format_of, format_of_content
from nelbo.files.source import Source, open_source
from nelbo.files.text import encoding_of, known_encoding
from nelbo.spelling.columns import Spelling, find

BATCH_ROWS = 8_192
SAMPLE_ROWS = 1_000
_NAME_LENGTH = 1_000


@dataclass(frozen=True)
class Table:
    """An open table. `schema` has its Arrow types (all strings for CSV and JSON Lines), `rows` is None if unknown."""

    name: str
    format: Format
    schema: pa.Schema
    notices: tuple[str, ...]
    rows: int | None
    _source: Source
    _read: Callable[[int], Iterator[pa.RecordBatch]]
    _limits: Limits

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.schema.names)

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """All rows from the first on, in batches of at most `rows`."""
        seen = 0
        for batch in self._read(rows):
            seen += batch.num_rows
            if seen > self._limits.rows:
                raise TooLarge(f"{self.name} has more than {self._limits.rows:,} rows, the most that are read")
            yield pa.record_batch(batch.columns, schema=self.schema)

    def close(self) -> None:
        self._source.stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def open_table(
    source: str | Path | BinaryIO,
    format: str | None = None,
    *,
    name: str | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    decimal: str | None = None,
    limits: Limits = Limits(),  # noqa: B008  # frozen
) -> Table:
    """Open a table: a path, "-" for standard input, or a binary file, which is read from its start and then closed.

    format: one of FORMATS; without it the suffix of the path (or of `name`) tells, for a pipe the first bytes.
    name: what messages call the table. delimiter, encoding, decimal: of CSV, detected unless given.
    Raises NotFound, InvalidInput for a table that cannot be used at all, TooLarge. Reading may raise them later.
    """
    opened = open_source(source, name)
    try:
        chosen = _format(format, source, name, opened)
        if not opened.sample.strip():
            raise InvalidInput(f"{opened.name} is empty; a table needs a header and rows")
        check_content(opened.sample, chosen, opened.name)
        return _OPEN[chosen](opened, limits, delimiter, encoding, decimal)
    except BaseException:
        opened.stream.close()
        raise


def _format(format: str | None, source: str | Path | BinaryIO, name: str | None, opened: Source) -> Format:
    if format is not None:
        if format not in FORMATS:
            raise InvalidInput(f"{format!r} is no format of tables; choose one of {', '.join(FORMATS)}")
        return format
    path = name or (source if isinstance(source, str | Path) and str(source) != "-" else None)
    return format_of_content(opened.sample) if path is None else format_of(path)


def _open_csv(source: Source, limits: Limits, delimiter: str | None, encoding: str | None, decimal: str | None) -> Table:
    dialect = delimited.detect(source, delimiter, encoding, decimal)
    header, batches = delimited.read(source, dialect, BATCH_ROWS)
    names, notices = _checked_names(header, source.name, limits)
    if next(batches, None) is None:
        raise _no_rows(source.name)

    def read(rows: int) -> Iterator[pa.RecordBatch]:
        return delimited.read(source, dialect, rows)[1]

    notices += delimited.notices_of(dialect)
    likely = "," if dialect.delimiter == ";" else "."
    schema = _text_schema(names, next(read(SAMPLE_ROWS)), decimal=decimal, likely=likely)
    return Table(source.name, "csv", schema, tuple(notices), None, source, read, limits)


def _open_jsonl(source: Source, limits: Limits, delimiter: str | None, encoding: str | None, decimal: str | None) -> Table:
    encoding = known_encoding(encoding) if encoding else encoding_of(source)
    keys, count = json_lines.names_in(source, encoding, limits)
    names, notices = _checked_names(keys, source.name, limits)
    if not names:
        raise InvalidInput(f"{source.name} has no columns: all of its objects are empty")

    def read(rows: int) -> Iterator[pa.RecordBatch]:
        return json_lines.read(source, encoding, keys, rows)

    schema = _text_schema(names, next(read(SAMPLE_ROWS)), plain_first=True)
    return Table(source.name, "jsonl", schema, tuple(notices), count, source, read, limits)


def _open_parquet(source: Source, limits: Limits, delimiter: str | None, encoding: str | None, decimal: str | None) -> Table:
    file = columnar.open_parquet(source, limits)
    schema, notices = _typed_schema(file.schema_arrow, source.name, limits)
    if not file.metadata.num_rows:
        raise _no_rows(source.name)

    def read(rows: int) -> Iterator[pa.RecordBatch]:
        return columnar.read_parquet(file, source.name, rows)

    return Table(source.name, "parquet", schema, tuple(notices), file.metadata.num_rows, source, read, limits)


def _open_arrow(source: Source, limits: Limits, delimiter: str | None, encoding: str | None, decimal: str | None) -> Table:
    schema, notices = _typed_schema(columnar.open_arrow(source)[0], source.name, limits)
    if next(columnar.read_arrow(source, BATCH_ROWS), None) is None:
        raise _no_rows(source.name)

    def read(rows: int) -> Iterator[pa.RecordBatch]:
        return columnar.read_arrow(source, rows)

    return Table(source.name, "arrow", schema, tuple(notices), None, source, read, limits)


_OPEN: dict[Format, Callable[[Source, Limits, str | None, str | None, str | None], Table]] = {
    "csv": _open_csv,
    "parquet": _open_parquet,
    "arrow": _open_arrow,
    "jsonl": _open_jsonl,
}


def _typed_schema(schema: pa.Schema, name: str, limits: Limits) -> tuple[pa.Schema, list[str]]:
    names, notices = _checked_names(schema.names, name, limits)
    types = columnar.plain_schema(schema, name).types
    fields = zip(names, types, schema.types, strict=True)
    return pa.schema([Spelling(type=str(own)).on(pa.field(name, kind)) for name, kind, own in fields]), notices


def _text_schema(names: Sequence[str], sample: pa.RecordBatch, **known: Any) -> pa.Schema:
    """Columns of text; each field says how its column is written, as far as a sample tells."""
    spellings = find(pa.RecordBatch.from_arrays(sample.columns, names=list(names)), **known)
    return pa.schema([spelling.on(pa.field(name, pa.string())) for name, spelling in spellings.items()])


def _checked_names(raw: Sequence[str], table: str, limits: Limits) -> tuple[list[str], list[str]]:
    """The names without white space around them, each of them once; notices about columns that had none."""
    if len(raw) > limits.columns:
        raise InvalidInput(
            f"{table} has more than {limits.columns:,} columns, the most that are read (NELBO_MAX_COLUMNS); leave some out"
        )
    names = [name.strip() or f"unnamed_{at}" for at, name in enumerate(raw, 1)]
    wrong = next((name for name in names if len(name) > _NAME_LENGTH or "\0" in name), None)
    if wrong is not None:
        raise InvalidInput(
            f"{table} has a column name of {len(wrong):,} characters, or with NUL in it ({wrong[:40]!r}); is it a header?"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInput(f"{table} has duplicate column names: {', '.join(map(repr, twice[:10]))}; rename one of each")
    unnamed = [name for name, given in zip(names, raw, strict=True) if not given.strip()]
    return names, [f"columns without a name are called {', '.join(unnamed[:10])}"] if unnamed else []


def _no_rows(name: str) -> InvalidInput:
    return InvalidInput(f"{name} has a header but no rows")

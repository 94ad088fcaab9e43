"""A table in a file: its names and its rows, whatever format it has."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import pyarrow as pa

from nelbo.errors import InvalidInput, TooLarge
from nelbo.files import columnar, delimited, json_lines
from nelbo.files.formats import DETECTED, FORMATS, CsvOptions, Format, Limits, check_content, format_of, format_of_content
from nelbo.files.source import Source, open_source
from nelbo.files.text import encoding_of, known_encoding, notices_of

BATCH_ROWS = 8_192
_NAME_LENGTH = 1_000


@dataclass(frozen=True)
class Table:
    """An open table. `schema` has its Arrow types (all strings for CSV and JSON Lines), `rows` is None if unknown.

    notices: what was found out when it was opened. late_notices: what was found out when all batches had been read.
    """

    name: str
    format: Format
    schema: pa.Schema
    notices: tuple[str, ...]
    rows: int | None
    _source: Source
    _read: Callable[[int], Iterator[pa.RecordBatch]]
    _limits: Limits
    _sample: Callable[[], list[list[str]]] | None = None
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
                raise TooLarge(f"{self.name} has more than {self._limits.rows:,} rows, the most that are read")
            yield pa.record_batch(batch.columns, schema=self.schema)

    def sample(self) -> pa.RecordBatch | None:
        """Up to 1,000 rows of a CSV file as text, spread over the file; None for other formats."""
        if self._sample is None:
            return None
        rows = self._sample()
        columns = zip(*rows, strict=True) if rows else [()] * len(self.names)
        return pa.record_batch([pa.array(column, pa.string()) for column in columns], names=list(self.names))

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
    csv: CsvOptions = DETECTED,
    limits: Limits = Limits(),  # noqa: B008  # frozen
) -> Table:
    """Open a table: a path, "-" for standard input, or a binary file, which is read from its start and then closed.

    format: one of FORMATS; without it the suffix of the path (or of `name`) tells, for a pipe the first bytes.
    name: what messages call the table. csv: how a CSV file is written, detected unless given.
    Raises NotFound, InvalidInput for a table that cannot be used at all, TooLarge. Reading may raise them later.
    """
    opened = open_source(source, name)
    try:
        chosen = _format(format, source, name, opened)
        if not opened.sample.strip():
            raise InvalidInput(f"{opened.name} is empty; a table needs a header and rows")
        check_content(opened.sample, chosen, opened.name)
        return _OPEN[chosen](opened, limits, csv)
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


def _open_csv(source: Source, limits: Limits, csv: CsvOptions) -> Table:
    dialect = delimited.detect(source, csv)
    names, notices = _checked_names(dialect.names, source.name, limits)
    late: list[str] = []
    if next(delimited.read(source, dialect, BATCH_ROWS, late), None) is None:
        raise _no_rows(source.name)

    def read(rows: int) -> Iterator[pa.RecordBatch]:
        return delimited.read(source, dialect, rows, late)

    def sample() -> list[list[str]]:
        return delimited.sample(source, dialect)

    notices += dialect.notices
    return Table(source.name, "csv", _text_schema(names), tuple(notices), None, source, read, limits, sample, late)


def _open_jsonl(source: Source, limits: Limits, csv: CsvOptions) -> Table:
    encoding = known_encoding(csv.encoding) if csv.encoding else encoding_of(source)
    keys, count = json_lines.names_in(source, encoding, limits)
    names, notices = _checked_names(keys, source.name, limits)
    notices += [] if csv.encoding else notices_of(encoding)
    if not names:
        raise InvalidInput(f"{source.name} has no columns: all of its objects are empty")

    def read(rows: int) -> Iterator[pa.RecordBatch]:
        return json_lines.read(source, encoding, keys, rows)

    return Table(source.name, "jsonl", _text_schema(names), tuple(notices), count, source, read, limits)


def _open_parquet(source: Source, limits: Limits, csv: CsvOptions) -> Table:
    file = columnar.open_parquet(source, limits)
    schema, notices = _typed_schema(file.schema_arrow, source.name, limits)
    if not file.metadata.num_rows:
        raise _no_rows(source.name)

    def read(rows: int) -> Iterator[pa.RecordBatch]:
        return columnar.read_parquet(file, source.name, rows)

    return Table(source.name, "parquet", schema, tuple(notices), file.metadata.num_rows, source, read, limits)


def _open_arrow(source: Source, limits: Limits, csv: CsvOptions) -> Table:
    schema, notices = _typed_schema(columnar.open_arrow(source)[0], source.name, limits)
    if next(columnar.read_arrow(source, BATCH_ROWS), None) is None:
        raise _no_rows(source.name)

    def read(rows: int) -> Iterator[pa.RecordBatch]:
        return columnar.read_arrow(source, rows)

    return Table(source.name, "arrow", schema, tuple(notices), None, source, read, limits)


_OPEN: dict[Format, Callable[[Source, Limits, CsvOptions], Table]] = {
    "csv": _open_csv,
    "parquet": _open_parquet,
    "arrow": _open_arrow,
    "jsonl": _open_jsonl,
}


def _typed_schema(schema: pa.Schema, name: str, limits: Limits) -> tuple[pa.Schema, list[str]]:
    names, notices = _checked_names(schema.names, name, limits)
    types = columnar.plain_schema(schema, name).types
    return pa.schema(list(zip(names, types, strict=True))), notices


def _text_schema(names: Sequence[str]) -> pa.Schema:
    return pa.schema([(name, pa.string()) for name in names])


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

"""A table in a file: its names and its rows, whatever format it has."""

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
    FORMATS,
    CsvOptions,
    Format,
    Limits,
    check_content,
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
    """An open table. `schema` has its Arrow types (all strings for CSV and JSON Lines), `rows` is
    None if unknown.

    notices: what was found out when it was opened. late_notices: what was found out when all
    batches had been read.
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
                raise TooLarge(
                    f"{self.name} has more than {self._limits.rows:,} rows, the most that are read"
                )
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
    """Open a table: a path, "-" for standard input, or a binary file, which is read from its start
    and then closed.

    A file that is compressed with gzip or zstd, by its first bytes, is unpacked into a temporary
    file.

    format: one of FORMATS; without it the suffix of the path (or of `name`) tells, for a pipe the
    first bytes. name: what messages call the table. csv: how a CSV file is written, detected unless
    given. Raises NotFound, InvalidInput for a table that cannot be used at all, TooLarge. Reading
    may raise them later.
    """
    opened = open_source(source, name, limits)
    try:
        chosen = _format(format, source, name, opened)
        if not opened.sample.strip():
            raise InvalidInput(f"{opened.name} is empty; a table needs a header and rows")
        check_content(opened.sample, chosen, opened.name)
        return _OPEN[chosen](opened, limits, csv)
    except BaseException:
        opened.stream.close()
        raise


def _format(
    format: str | None, source: str | Path | BinaryIO, name: str | None, opened: Source
) -> Format:
    if format is not None:
        if format not in FORMATS:
            raise InvalidInput(
                f"{format!r} is no format of tables; choose one of {', '.join(FORMATS)}"
            )
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

    sample = delimited.sample(source, dialect) or [[""] * len(names)]
    columns = [pa.array(column, pa.string()) for column in zip(*sample, strict=True)]
    likely = "," if dialect.delimiter == ";" else "."
    schema = _text_schema(
        names, pa.record_batch(columns, names=names), decimal=csv.decimal, likely=likely
    )
    notices += dialect.notices
    return Table(source.name, "csv", schema, tuple(notices), None, source, read, limits, late)


def _open_jsonl(source: Source, limits: Limits, csv: CsvOptions) -> Table:
    encoding = known_encoding(csv.encoding) if csv.encoding else encoding_of(source)
    keys = json_lines.keys_of(source, encoding, limits)
    names, notices = _checked_names(keys.names, source.name, limits)
    notices += [] if csv.encoding else notices_of(encoding)
    if not names:
        raise InvalidInput(f"{source.name} has no columns: all of its objects are empty")
    notices += _of_left_out(keys.left_out, names, source.name)
    kept = {
        key: name for key, name in zip(keys.names, names, strict=True) if key not in keys.left_out
    }

    def read(rows: int) -> Iterator[pa.RecordBatch]:
        return json_lines.read(source, encoding, list(kept), rows)

    schema = _text_schema(list(kept.values()), next(read(SAMPLE_ROWS)), plain_first=True)
    return Table(source.name, "jsonl", schema, tuple(notices), keys.rows, source, read, limits)


def _open_parquet(source: Source, limits: Limits, csv: CsvOptions) -> Table:
    file = columnar.open_parquet(source, limits)
    schema, columns, notices = _typed_schema(
        columnar.parquet_schema(file, source.name), source.name, limits
    )

    def read(rows: int) -> Iterator[pa.RecordBatch]:
        return columnar.read_parquet(file, source.name, columns, rows)

    sample = next(read(SAMPLE_ROWS), None)  # the footer may count rows that are not there
    if sample is None:
        raise _no_rows(source.name)
    schema = _spelled(schema, sample)
    return Table(
        source.name, "parquet", schema, tuple(notices), file.metadata.num_rows, source, read, limits
    )


def _open_arrow(source: Source, limits: Limits, csv: CsvOptions) -> Table:
    schema, columns, notices = _typed_schema(columnar.arrow_schema(source), source.name, limits)

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
    notices += _of_left_out(columns.left_out, names, name)
    notices += [
        f"the column {column!r} holds durations: they are read as numbers of {unit}"
        for column, unit in columns.units
    ]
    fields = [
        Spelling(type=str(schema.field(place).type)).on(pa.field(names[place], kind))
        for place, kind in zip(columns.places, columns.types, strict=True)
    ]
    return pa.schema(fields), columns, notices


def _text_schema(names: Sequence[str], sample: pa.RecordBatch, **known: Any) -> pa.Schema:
    return _spelled(pa.schema([(name, pa.string()) for name in names]), sample, **known)


def _spelled(schema: pa.Schema, sample: pa.RecordBatch, **known: Any) -> pa.Schema:
    """The schema; each field of text says how its column is written, as far as a sample tells."""
    texts = {at: field.name for at, field in enumerate(schema) if pa.types.is_string(field.type)}
    found = find(
        pa.RecordBatch.from_arrays([sample.column(at) for at in texts], names=list(texts.values())),
        **known,
    )
    for at, name in texts.items():
        own = Spelling.of(schema.field(at)).type
        schema = schema.set(at, found[name].model_copy(update={"type": own}).on(schema.field(at)))
    return schema


def _checked_names(raw: Sequence[str], table: str, limits: Limits) -> tuple[list[str], list[str]]:
    """The names without white space around them, each of them once; notices about columns that had
    none."""
    if len(raw) > limits.columns:
        raise InvalidInput(
            f"{table} has more than {limits.columns:,} columns, the most that are read"
            " (NELBO_MAX_COLUMNS); leave some out"
        )
    names = [name.strip() or f"unnamed_{at}" for at, name in enumerate(raw, 1)]
    wrong = next((name for name in names if len(name) > _NAME_LENGTH or "\0" in name), None)
    if wrong is not None:
        raise InvalidInput(
            f"{table} has a column name of {len(wrong):,} characters, or with NUL in it"
            f" ({wrong[:40]!r}); is it a header?"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInput(
            f"{table} has duplicate column names: {', '.join(map(repr, twice[:10]))}; rename one of"
            " each"
        )
    unnamed = [name for name, given in zip(names, raw, strict=True) if not given.strip()]
    return names, [
        f"columns without a name are called {', '.join(unnamed[:10])}"
    ] if unnamed else []


def _of_left_out(left_out: Mapping[str, str], names: Sequence[str], table: str) -> list[str]:
    """A notice for each kind of content that has no meaning as a column. Refuses a table that has
    nothing else."""
    notices = []
    for what in dict.fromkeys(left_out.values()):
        columns = [name for name, content in left_out.items() if content == what]
        subject = (
            f"the column {columns[0]!r} holds"
            if len(columns) == 1
            else f"the columns {_listed(columns)} hold"
        )
        left = "it is left out" if len(columns) == 1 else "they are left out"
        notices.append(
            f"{subject} {what}, which have no meaning as a column here: {left}; give each part a"
            " column of its own"
        )
    if len(left_out) == len(names):
        raise InvalidInput(f"{table} has no column that can be read: {notices[0]}")
    return notices


def _listed(names: Sequence[str]) -> str:
    """The first ten names."""
    more = f" and {len(names) - 10:,} more" if len(names) > 10 else ""
    return ", ".join(map(repr, names[:10])) + more


def _no_rows(name: str) -> InvalidInput:
    return InvalidInput(f"{name} has a header but no rows")

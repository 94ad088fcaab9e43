"""CSV: the dialect is detected, every column is read as text."""

import contextlib
import csv
import io
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import csv as arrow_csv

from nelbo.errors import InvalidInput
from nelbo.files.source import Source
from nelbo.files.text import LINE_BYTES, encoding_of, known_encoding, sample_text, utf_8

DELIMITERS = (",", ";", "\t", "|")
_LOOKED_AT = 200
"""Records that the detection of the delimiter looks at."""
_AS_TEXT: Any = {"default_column_type": pa.string(), "strings_can_be_null": False, "check_utf8": False}


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written: one-character delimiter, encoding by Python's name."""

    delimiter: str
    encoding: str


def detect(source: Source, delimiter: str | None, encoding: str | None, decimal: str | None) -> Dialect:
    """The dialect of the first MiB; what is given is not detected."""
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise InvalidInput(f"the delimiter {delimiter!r} is not one character, such as ',' or ';' or a tab")
    if decimal not in (None, ".", ","):
        raise InvalidInput(f"the decimal sign {decimal!r} is neither '.' nor ','")
    encoding = known_encoding(encoding) if encoding else encoding_of(source)
    text = sample_text(source, encoding)
    delimiter = delimiter or _delimiter(text)
    return Dialect(delimiter, encoding)


def notices_of(dialect: Dialect) -> list[str]:
    """What was detected and is not what most tables have."""
    notices = []
    if dialect.encoding == "cp1252":
        notices.append("the text is not UTF-8 and is read as Windows-1252; give the encoding if that is wrong")
    return notices


def read(source: Source, dialect: Dialect, rows: int) -> tuple[list[str], Iterator[pa.RecordBatch]]:
    """The names as they stand in the header, and the rows below it as text, in batches of at most `rows`."""
    try:
        reader = arrow_csv.open_csv(
            utf_8(source, dialect.encoding),
            arrow_csv.ReadOptions(block_size=LINE_BYTES, use_threads=False),
            arrow_csv.ParseOptions(delimiter=dialect.delimiter, newlines_in_values=True),
            arrow_csv.ConvertOptions(**_AS_TEXT),
        )
    except pa.ArrowInvalid as problem:
        raise _explained(problem, source.name, dialect) from None
    return reader.schema.names, _batches(reader, source, dialect, rows)


def _batches(reader: arrow_csv.CSVStreamingReader, source: Source, dialect: Dialect, rows: int) -> Iterator[pa.RecordBatch]:
    last = None
    while True:
        try:
            block = reader.read_next_batch()
        except StopIteration:
            break
        except pa.ArrowInvalid as problem:
            raise _explained(problem, source.name, dialect) from None
        for start in range(0, block.num_rows, rows):
            last = block.slice(start, rows)
            yield last
    if last is not None:
        _check_last_quote(source, str(last.column(last.num_columns - 1)[-1].as_py()))


def _check_last_quote(source: Source, last_cell: str) -> None:
    """A quote that is never closed makes the rest of the file one cell, without an error from Arrow."""
    if "\n" in last_cell and not _tail(source).endswith(b'"'):
        raise InvalidInput(f"{source.name} has a quote that is never closed, before {last_cell[:40]!r}; close it")


def _tail(source: Source) -> bytes:
    stream = source.reading()
    stream.seek(max(0, stream.seek(0, io.SEEK_END) - 1_000))
    return stream.read().rstrip(b" \t\r\n\0")


def _explained(problem: pa.ArrowInvalid, name: str, dialect: Dialect) -> InvalidInput:
    ragged = re.search(r"(?:Row #(\d+): )?Expected (\d+) columns, got (\d+)", str(problem))
    if ragged:
        line = f"line {ragged[1]} of {name}" if ragged[1] else f"a line of {name}"
        return InvalidInput(
            f"{line} has {ragged[3]} cells, the header has {ragged[2]} (delimiter {dialect.delimiter!r}); "
            "put cells that hold the delimiter in quotes, or give the delimiter"
        )
    if "straddling" in str(problem):
        return InvalidInput(f"{name} has a line of more than {LINE_BYTES >> 20} MiB; is there a quote that is never closed?")
    if "Empty CSV" in str(problem):
        return InvalidInput(f"{name} has a header but no rows")
    return InvalidInput(f"{name} cannot be read as CSV: {str(problem).splitlines()[0][:200]}")


def _delimiter(text: str) -> str:
    """The candidate that cuts the most lines into as many cells as the header, and the header into the most."""
    return max(DELIMITERS, key=lambda delimiter: _fit(text, delimiter))


def _fit(text: str, delimiter: str) -> tuple[bool, float, int]:
    records = _records(text, delimiter)
    if not records:
        return False, 0.0, 0
    width = len(records[0])
    return width > 1, sum(len(record) == width for record in records) / len(records), width


def _records(text: str, delimiter: str) -> list[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    records: list[list[str]] = []
    with contextlib.suppress(csv.Error):  # a cell longer than Python's limit: what came before it has to do
        records.extend(record for record in itertools.islice(reader, _LOOKED_AT) if record)
    return records

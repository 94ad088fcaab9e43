"""Reading CSV in a known dialect, every column as text."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from pyarrow import csv as arrow_csv

from nelbo import cells
from nelbo.errors import InvalidInput
from nelbo.files import headers
from nelbo.files.dialects import BLANKS, Dialect, detect, normal, sample
from nelbo.files.records import blocks
from nelbo.files.source import Source
from nelbo.files.text import utf_8_pieces

__all__ = ["Dialect", "detect", "read", "sample"]

_AS_TEXT: Any = {
    "default_column_type": pa.string(),
    "strings_can_be_null": False,
    "check_utf8": False,
}
_FOOTER_LINES = 5
"""At most this many lines at the end may be a footer."""


@dataclass
class _Uneven:
    """Lines that were read although they have fewer or more cells than the header."""

    short: int = 0
    long: int = 0
    first_short: int = 0
    footer: list[str] = field(default_factory=list)

    def count(self, cells: int, line: int, dialect: Dialect) -> None:
        """Count a line with this number of cells."""
        if cells > dialect.width:
            self.long += 1
        elif cells < len(dialect.names):
            self.short += 1
            self.first_short = self.first_short or line

    def notices(self) -> Iterator[str]:
        if self.short:
            yield (
                f"{_lines(self.short)} fewer cells than the header, such as line"
                f" {self.first_short}: their last cells are read as empty"
            )
        if self.long:
            yield (
                f"{_lines(self.long)} more delimiters than the header, with nothing behind them:"
                " they are left out"
            )
        if self.footer:
            lines = ", ".join(repr(line[:40]) for line in self.footer)
            yield f"the end of the file is no part of the table and is left out: {lines}"


def read(
    source: Source, dialect: Dialect, rows: int, notices: list[str]
) -> Iterator[pa.RecordBatch]:
    """The rows as text, in batches of at most `rows`.

    After the last batch, notices about what was read are added to `notices`.
    """
    encoding_notices: set[str] = set()
    uneven = _Uneven()
    pieces = _below(utf_8_pieces(source, dialect.encoding, encoding_notices), dialect.start)
    delimiters = b" \t" if dialect.delimiter == BLANKS else dialect.delimiter.encode()

    for block, line, last in blocks(pieces, delimiters, source.name, dialect.lines + 1):
        batch = _parsed(block, dialect, source.name, line, last, uneven)
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)

    all_notices = (*sorted(encoding_notices), *uneven.notices())
    notices += [notice for notice in all_notices if notice not in notices]


def _below(pieces: Iterator[bytes], start: int) -> Iterator[bytes]:
    """The pieces without their first `start` bytes."""
    for piece in pieces:
        if start < len(piece):
            yield piece[start:]
        start = max(0, start - len(piece))


def _parsed(
    block: bytes, dialect: Dialect, name: str, line: int, last: bool, uneven: _Uneven
) -> pa.RecordBatch:
    if dialect.delimiter == BLANKS:
        block = normal(block.decode()).encode()
    try:
        batch = _by_arrow(block, dialect)
    except pa.ArrowInvalid as problem:
        if "columns, got" not in str(problem):
            reason = str(problem).splitlines()[0][:200]
            raise InvalidInput(f"{name} cannot be read as CSV: {reason}") from None
        batch = _evened(block, dialect, name, line, last, uneven)
    if dialect.trailing:
        batch = _without_last(batch, dialect, name)
    return batch


def _by_arrow(block: bytes, dialect: Dialect) -> pa.RecordBatch:
    names = _numbered(dialect.width)
    if not block.strip(b"\r\n"):
        return pa.record_batch([pa.array([], pa.string())] * len(names), names=names)
    content: Any = pa.BufferReader(block)  # the stubs want one of Python's own files
    table = arrow_csv.read_csv(
        content,
        arrow_csv.ReadOptions(column_names=names, block_size=len(block) + 1, use_threads=False),
        arrow_csv.ParseOptions(delimiter=dialect.delimiter, newlines_in_values=True),
        arrow_csv.ConvertOptions(**_AS_TEXT),
    )
    return table.combine_chunks().to_batches()[0]


def _without_last(batch: pa.RecordBatch, dialect: Dialect, name: str) -> pa.RecordBatch:
    """The batch without its last column. Refuses a table in which that column holds values."""
    last = cells.pc.utf8_trim_whitespace(batch.column(batch.num_columns - 1))
    filled = last.filter(cells.pc.not_equal(last, ""))
    if len(filled):
        raise InvalidInput(
            f"{name} has lines of {dialect.width} cells, such as one that ends in"
            f" {filled[0].as_py()[:40]!r}, the header has {len(dialect.names)}; name the last"
            " column in the header"
        )
    return batch.select(range(batch.num_columns - 1))


def _evened(
    block: bytes, dialect: Dialect, name: str, line: int, last: bool, uneven: _Uneven
) -> pa.RecordBatch:
    """A block with lines of other widths than the header's, each cut or filled to that width.

    A longer line may only lack content behind that width; a shorter line is filled with empty
    cells. Raises InvalidInput for any other line.
    """
    records, starts = _records(block, dialect.delimiter, name, line)
    width = dialect.width
    whole = [record for record in records if len(record) == width]
    numeric = [headers.numeric(column) for column in zip(*whole, strict=True)]

    # Lines at the end of the file that are no rows
    rows = len(records) - (_footer(records, starts, numeric, width) if last else 0)
    uneven.footer += [dialect.delimiter.join(record) for record in records[rows:]]
    ends_within_a_line = last and not uneven.footer and not block.endswith((b"\n", b"\r"))
    records = records[:rows]

    # Rows, each brought to the width
    for index, (record, start) in enumerate(zip(records, starts, strict=False)):
        if len(record) == width:
            continue
        if any(map(str.strip, record[width:])) or not _fits(record, numeric):
            raise _ragged(record, start, dialect, name, "")
        if len(record) < width and ends_within_a_line and index == rows - 1:
            raise _ragged(record, start, dialect, name, "the file may be cut off there; ")
        uneven.count(len(record), start, dialect)
        records[index] = (record + [""] * width)[:width]

    columns = zip(*records, strict=True) if records else [()] * width
    arrays = [pa.array(column, pa.string()) for column in columns]
    return pa.record_batch(arrays, names=_numbered(width))


def _records(
    block: bytes, delimiter: str, name: str, line: int
) -> tuple[list[list[str]], list[int]]:
    """The cells of each record that is not blank, and the number of its first line.

    line: number of the block's first line.
    """
    reader = csv.reader(io.StringIO(block.decode(), newline=""), delimiter=delimiter)
    records: list[list[str]] = []
    starts: list[int] = []
    lines_before = 0
    try:
        for record in reader:
            if record:
                records.append(record)
                starts.append(line + lines_before)
            lines_before = reader.line_num
    except csv.Error as problem:
        raise InvalidInput(
            f"line {line + lines_before} of {name} cannot be read as CSV: {problem}"
        ) from None
    return records, starts


def _numbered(width: int) -> list[str]:
    """Names of the columns while they are parsed."""
    return [str(number) for number in range(width)]


def _fits(record: list[str], numeric: list[bool]) -> bool:
    """Whether each cell of an uneven line is a number where its column holds numbers.

    A cell that is lost, or cut in two, shifts the cells behind it into other columns.
    """
    pairs = zip(record, numeric, strict=False)
    return bool(numeric) and all(
        not number or not cell.strip() or headers.is_number(cell) for cell, number in pairs
    )


def _footer(records: list[list[str]], starts: list[int], numeric: list[bool], width: int) -> int:
    """The number of records at the end that are a footer and no rows.

    Each holds a single text. The topmost is no number, or has a blank line above it.
    """
    count = 0
    if width < 3:
        return count
    end = len(records) - 1
    for index in range(end, max(0, end - _FOOTER_LINES), -1):
        record = records[index]
        filled = [cell for cell in record if cell.strip()]
        if len(record) >= width or len(filled) != 1:
            break
        if not _fits(record, numeric) or starts[index] > starts[index - 1] + 1:
            count = len(records) - index
    return count


def _ragged(record: list[str], line: int, dialect: Dialect, name: str, more: str) -> InvalidInput:
    width = len(dialect.names)
    if any('\\"' in cell or ("\\" in cell and '"' in cell) for cell in record):
        more += "a quote within quotes is written twice, not with a backslash; "
    return InvalidInput(
        f"line {line} of {name} has {len(record)} cells, the header has {width} (delimiter"
        f" {dialect.delimiter!r}); {more}put cells that hold the delimiter in quotes, or give"
        " another --delimiter, or --skip-lines if the header is below"
    )


def _lines(count: int) -> str:
    return "1 line has" if count == 1 else f"{count:,} lines have"

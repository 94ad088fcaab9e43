"""How a CSV file is written, detected from pieces all over the file."""

import contextlib
import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from nelbo.errors import InvalidInput
from nelbo.files import headers
from nelbo.files.formats import CsvOptions
from nelbo.files.source import Source
from nelbo.files.text import encoding_of, known_encoding, notices_of, spread_texts

DELIMITERS = (",", ";", "\t", "|")
BLANKS = " "
"""The delimiter that means any number of blanks and tabs."""
NONE = "\x1f"
"""The delimiter of a table of one column: a character that text does not hold."""
SAMPLE_RECORDS = 1_000

_HEAD_RECORDS = 200
"""Number of records that are examined at the beginning of a file of more than one MiB."""
_SPOT_RECORDS = 30
"""Number of records that are examined at each other spot of such a file."""
_WHOLE_RECORDS = 20_000
"""Number of records that are examined in a smaller file."""
_HEAD_CHARACTERS = 2**15
"""Number of characters at the beginning that a sample of a larger file takes rows from."""
_EVEN = 0.9
"""A delimiter is accepted if at least this share of the records has one width."""
_MOST = 0.5
"""A notice names a delimiter if at least this share of the records has one width."""
_ABOVE = 100
"""Number of records in which the header is searched."""
_ENOUGH = 10
"""With this number of rows or more, a header that looks like a row is reported as doubtful."""
_SEPARATOR = re.compile(r'"?sep=([,;:|~^ \t]|\\t)"?[,;\t|]*\s*', re.IGNORECASE)
_QUOTED_OR_BLANKS = re.compile(r'("[^"]*")|[ \t]+')
_EDGES = re.compile(r"^ | (?=\r?$)", re.MULTILINE)
_TOTAL = re.compile(r"(?:grand |sub-?)?total\b.*|sum|summe|gesamt", re.IGNORECASE)
_NAMES = {",": "','", ";": "';'", "\t": "tab", "|": "'|'"}


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written, and where its rows begin.

    delimiter: one character, or BLANKS.
    encoding: by Python's name.
    names: the column names as written, one per column.
    lines: number of lines above the first row.
    start: size of those lines in bytes of UTF-8.
    trailing: each line ends with the delimiter, and so with an empty cell that has no name.
    """

    delimiter: str
    encoding: str
    names: tuple[str, ...]
    lines: int
    start: int
    trailing: bool
    notices: tuple[str, ...]

    @property
    def width(self) -> int:
        """Number of cells per line."""
        return len(self.names) + self.trailing


@dataclass(frozen=True)
class _Record:
    """A record near the top of the file.

    line: number of its first line. lines: number of lines up to its end.
    """

    cells: list[str]
    line: int
    lines: int

    @property
    def width(self) -> int:
        return len(self.cells)

    @property
    def filled(self) -> int:
        return sum(1 for cell in self.cells if cell.strip())


@dataclass(frozen=True)
class _CsvLayout:
    """A file as records that one delimiter cuts into cells.

    records: those near the top.
    spread: the cells of records at other spots of the file.
    first: index of the record that is the header or the first row.
    width: number of cells per record.
    lead: the record above the first holds the names, all but one.
    """

    delimiter: str
    records: list[_Record]
    spread: list[list[str]]
    first: int
    width: int
    lead: bool = False

    @property
    def top(self) -> _Record:
        return self.records[self.first]

    @cached_property
    def below(self) -> list[list[str]]:
        """The cells of the first record and of all records below it."""
        return [record.cells for record in self.records[self.first :]] + self.spread

    @cached_property
    def body(self) -> list[list[str]]:
        """The cells of the records below the first that have its width."""
        return [cells for cells in self.below[1:] if len(cells) == self.width]

    @cached_property
    def share(self) -> float:
        """Share of the records from the first on that have the width.

        Below a header in the first line, records without their trailing cells count too.
        """
        shorter = range(2, self.width) if self.first == 0 else range(0)
        even = [cells for cells in self.below if len(cells) == self.width or len(cells) in shorter]
        return len(even) / len(self.below)

    @cached_property
    def widths(self) -> Counter[int]:
        """The number of records per width."""
        widths = [record.width for record in self.records]
        return Counter(widths + [len(cells) for cells in self.spread])

    @property
    def most(self) -> tuple[int, float]:
        """The most frequent width, above 1 if there is such a width, and its share."""
        widths = [width for width in self.widths if width > 1 or len(self.widths) == 1]
        width = max(widths, key=lambda width: (self.widths[width], width))
        return width, self.widths[width] / self.widths.total()

    @property
    def cells(self) -> list[str]:
        return [cell for record in self.body[:_HEAD_RECORDS] for cell in record]

    @property
    def clean(self) -> float:
        """Share of the cells that are numbers, or hold no character that may be a delimiter."""
        clean = [
            cell
            for cell in self.cells
            if headers.is_number(cell) or not any(sign in cell for sign in DELIMITERS)
        ]
        return len(clean) / max(1, len(self.cells))

    @property
    def typed(self) -> float:
        """Share of the cells that are numbers."""
        return sum(map(headers.is_number, self.cells)) / max(1, len(self.cells))


@dataclass(frozen=True)
class _Above:
    """The lines above the table: `skipped` lines, then comments.

    delimiter: the one that a line such as sep=; names.
    """

    skipped: int = 0
    comments: Sequence[str] = ()
    delimiter: str | None = None

    @property
    def lines(self) -> int:
        return self.skipped + len(self.comments)


@dataclass(frozen=True)
class _Header:
    """The names of the columns.

    begin: number of the line in which the table begins. lines: number of lines above its first row.
    """

    names: list[str]
    begin: int
    lines: int
    notices: list[str] = field(default_factory=list)


def detect(source: Source, options: CsvOptions) -> Dialect:
    """The dialect of a file. Options that are not None are used and not detected."""
    option = _delimiter(options)
    encoding = known_encoding(options.encoding) if options.encoding else encoding_of(source)
    texts = spread_texts(source, encoding)

    # The delimiter
    above = _above(texts[0]) if options.skip is None else _Above(options.skip)
    delimiter = option or above.delimiter
    layouts = [
        _layout(texts, candidate, above.lines, search=options.skip is None)
        for candidate in ((delimiter,) if delimiter else (*DELIMITERS, BLANKS))
    ]
    if not layouts[0].records:
        raise InvalidInput(
            f"{source.name} has no table below line {above.lines}; a table needs a header and rows"
        )
    layout = layouts[0] if delimiter else _best(layouts, texts, above.lines)

    # The names
    header = _header(layout, options.header, above)
    names, trailing = _without_trailing(header.names, layout)

    # Notices for the user
    notices = [] if options.encoding else notices_of(encoding)
    notices += [] if delimiter else _delimiter_notices(layout, layouts)
    notices += [*header.notices, *_above_notices(above, header, layout)]
    if trailing:
        notices.append("each line ends with the delimiter: the empty column behind it is left out")
    notices += _cell_notices(layout)

    lines_above = itertools.islice(_lines(texts[0]), header.lines)
    return Dialect(
        layout.delimiter,
        encoding,
        tuple(names),
        header.lines,
        start=sum(len(line.encode()) for line in lines_above),
        trailing=trailing,
        notices=tuple(notices),
    )


def sample(source: Source, dialect: Dialect) -> list[list[str]]:
    """At most 1,000 rows as text, spread over the file.

    Rows with more or fewer cells than the header are left out, unless most rows lack their trailing
    empty cells.
    """
    head, *spots = spread_texts(source, dialect.encoding)
    if spots:
        head = head[:_HEAD_CHARACTERS]
    records = _records(
        head, dialect.delimiter, dialect.lines, most=_HEAD_RECORDS if spots else None
    )
    rows = [record.cells for record in records] + _spread(spots, dialect.delimiter)

    # Rows of one width
    width = dialect.width
    even = [cells for cells in rows if len(cells) == width]
    if len(even) < len(rows) / 2:  # most lines lack their trailing empty cells
        even = [cells + [""] * (width - len(cells)) for cells in rows if 1 < len(cells) <= width]
    even = [cells[: len(dialect.names)] for cells in even]

    count = min(len(even), SAMPLE_RECORDS)
    return [even[number * (len(even) - 1) // max(1, count - 1)] for number in range(count)]


def normal(text: str) -> str:
    """Lines with one blank for each run of blanks and tabs outside quotes."""
    return _EDGES.sub("", _QUOTED_OR_BLANKS.sub(lambda match: match[1] or " ", text))


def _delimiter(options: CsvOptions) -> str | None:
    """The delimiter among the options. Raises InvalidInput for an option that has no meaning."""
    delimiter = "\t" if options.delimiter in ("\\t", "tab") else options.delimiter
    if delimiter is not None and (
        len(delimiter) != 1 or delimiter in '"\r\n' or not delimiter.isascii()
    ):
        raise InvalidInput(
            f"the delimiter {delimiter!r} is not one character, such as ',' or ';', or tab"
        )
    if options.decimal not in (None, ".", ","):
        raise InvalidInput(f"the decimal sign {options.decimal!r} is neither '.' nor ','")
    if options.skip is not None and options.skip < 0:
        raise InvalidInput(
            f"the number of lines above the header is {options.skip}; give 0 or more"
        )
    return delimiter


def _lines(text: str) -> Iterator[str]:
    """The lines of a text, with their ends, as csv.reader counts them."""
    return iter(io.StringIO(text, newline=""))


def _above(text: str) -> _Above:
    """A line that names the delimiter, and the comments below it.

    Lines that begin with # are comments only in a file in which most lines do not.
    """
    separator = _SEPARATOR.fullmatch(next(_lines(text), ""))
    delimiter = separator[1].replace("\\t", "\t") if separator else None
    skipped = 1 if separator else 0

    lines = list(itertools.islice(_lines(text), skipped, skipped + _HEAD_RECORDS))
    comments = list(itertools.takewhile(_is_comment_or_blank, lines))
    while comments and not comments[-1].strip():
        comments.pop()
    if len(comments) > 1 and len(comments) >= len(lines) / 2:
        comments = []
    return _Above(skipped, comments, delimiter)


def _is_comment_or_blank(line: str) -> bool:
    return line.startswith("#") or not line.strip()


def _records(text: str, delimiter: str, skip: int, most: int | None) -> Iterator[_Record]:
    """At most `most` records below the first `skip` lines, without blank lines."""
    lines: Iterator[str] = itertools.islice(_lines(text), skip, None)
    reader = csv.reader(map(normal, lines) if delimiter == BLANKS else lines, delimiter=delimiter)
    lines_before = 0
    # A cell longer than Python's limit ends the records early.
    with contextlib.suppress(csv.Error):
        for cells in itertools.islice(reader, most):
            if cells and (len(cells) > 1 or cells[0].strip() or delimiter == NONE):
                yield _Record(cells, skip + lines_before + 1, skip + reader.line_num)
            lines_before = reader.line_num


def _spread(spots: Sequence[str], delimiter: str) -> list[list[str]]:
    """The cells of the first records of each spot; of the last spot, the last records."""
    records: list[_Record] = []
    for spot in spots[:-1]:
        records += _records(spot, delimiter, 0, _SPOT_RECORDS)
    if spots:
        records += list(_records(spots[-1], delimiter, 0, None))[-_SPOT_RECORDS:]
    return [record.cells for record in records]


def _layout(texts: Sequence[str], delimiter: str, above: int, search: bool) -> _CsvLayout:
    """The layout below the first `above` lines. search: whether lines below may be no table yet."""
    head, *spots = texts
    records = list(_records(head, delimiter, above, _HEAD_RECORDS if spots else _WHOLE_RECORDS))
    width = records[0].width if records else 0
    from_top = _CsvLayout(delimiter, records, _spread(spots, delimiter), first=0, width=width)
    return _below_others(from_top) if search and records else from_top


def _below_others(from_top: _CsvLayout) -> _CsvLayout:
    """The layout without the records at the top that do not belong to the table.

    The table begins with the first record that has the most frequent width.
    """
    records = from_top.records
    first = _first_of_usual_width(from_top)
    if first is None:
        return from_top

    first += _titles(records[first:])
    layout = replace(from_top, first=first, width=records[first].width)
    votes = headers.votes(layout.top.cells, layout.body)
    looks_like_a_row = layout.share == 1 and votes.values > votes.names
    if first and looks_like_a_row and _lacks_one_name(records[first - 1], layout):
        return replace(layout, lead=True)
    return layout if first == 0 or votes.names or _is_apart(records, first) else from_top


def _first_of_usual_width(layout: _CsvLayout) -> int | None:
    """The index of the first record whose width is the usual one, if that is above 1."""
    top_width = layout.width
    # If lines lack their trailing empty cells, most of them are shorter than the header.
    header_widest = top_width == max(layout.widths) and layout.widths[top_width] > 1
    width = top_width if header_widest else layout.most[0]
    records = enumerate(layout.records[:_ABOVE])
    return next((index for index, record in records if record.width == width > 1), None)


def _titles(records: Sequence[_Record]) -> int:
    """The number of title lines at the top that a spreadsheet filled up with delimiters.

    Only the first cell of such a line holds text.
    """
    top = list(itertools.takewhile(_is_title, records[:_ABOVE]))
    rest = records[len(top) :]
    usual = sorted(record.filled for record in rest)[len(rest) // 2] if rest else 0
    return len(top) if usual > 2 and records[0].width == rest[0].width > 2 else 0


def _is_title(record: _Record) -> bool:
    return not any(map(str.strip, record.cells[1:]))


def _lacks_one_name(above: _Record, layout: _CsvLayout) -> bool:
    """Whether a record holds the names of all columns but one.

    R writes no name above its column of row names; others write none above an empty last column.
    """
    rows = [layout.top.cells, *layout.body]
    if (
        layout.top.line > above.lines + 1
        or above.width != layout.width - 1
        or above.filled < max(2, above.width)
        or len(rows) < 3
    ):
        return False

    if any('"' in cell for cells in rows for cell in cells):
        return False
    row_names = {cells[0] for cells in rows}
    has_decimals = any(re.search(r"\d[.,]\d", name) for name in row_names)
    last_is_empty = not any(cells[-1].strip() for cells in rows)
    return last_is_empty or (len(row_names) == len(rows) and not has_decimals)


def _is_apart(records: Sequence[_Record], first: int) -> bool:
    """Whether a blank line or a title separates a record from those above it."""
    above = records[first - 1]
    return records[first].line > above.lines + 1 or (above.width > 2 and above.filled < 2)


def _best(layouts: Sequence[_CsvLayout], texts: Sequence[str], above: int) -> _CsvLayout:
    """The even layout with the cleanest cells, else the most even one, else one column."""
    even = [layout for layout in layouts if _is_even(layout)]
    if even:
        return max(
            even, key=lambda layout: (layout.first == 0, round(layout.clean, 1), layout.width)
        )
    uneven = [layout for layout in layouts if layout.width > 1 and layout.delimiter != BLANKS]
    if uneven:
        return max(uneven, key=lambda layout: (layout.share, layout.width))
    return _layout(texts, NONE, above, search=False)


def _is_even(layout: _CsvLayout) -> bool:
    """Whether nearly all records have one width. Blanks are also in sentences, so they need more:
    all records, and many numbers."""
    if layout.delimiter == BLANKS and (layout.share < 0.98 or layout.typed < 0.5):
        return False
    return layout.width > 1 and layout.share >= _EVEN


def _delimiter_notices(layout: _CsvLayout, layouts: Sequence[_CsvLayout]) -> list[str]:
    if layout.delimiter == BLANKS:
        return ["cells are read as delimited by blanks; --delimiter CHAR selects another delimiter"]
    if layout.delimiter != NONE:
        return []
    cells = [layout.top.cells[0], *(record[0] for record in layout.body)]
    for other in (layout for layout in layouts if layout.delimiter in DELIMITERS):
        name = _NAMES[other.delimiter]
        width, share = other.most
        if width > 1 and share >= _MOST:
            return [
                f"each line is read as one value, although {share:.0%} of the lines have {width}"
                f" cells if {name} is the delimiter; --delimiter {name} selects it"
            ]
        counts = {cell.count(other.delimiter) for cell in cells}
        if len(counts) == 1 and other.delimiter in cells[0]:
            return [
                "each line is one cell in quotes and is read as one value; to split the lines at"
                f" {name}, save them without these quotes"
            ]
    return []


def _header(layout: _CsvLayout, header: bool | None, above: _Above) -> _Header:
    """The names: in the first record, in the line above it, or column_1 and so on."""
    top = layout.top
    votes = headers.votes(top.cells, layout.body)
    if layout.lead and header is not False:
        return _lead(layout)
    if above.comments and header is None and votes.names <= votes.values:
        names = _names_of_comment(above.comments[-1], layout)
        if names:
            return _Header(names, above.lines, above.lines)

    notices = []
    start = ", ".join(repr(cell.strip()) for cell in top.cells[:3])
    if header is None and votes.values > votes.names:
        header = False
        notices.append(
            f"line {top.line} ({start}) looks like a row, so the table has no header and its"
            " columns are called column_1, column_2 …; --header reads the line as column names"
        )
    elif header is None and _is_doubtful(top, votes, layout):
        notices.append(
            f"line {top.line} ({start}) is read as the header, although it may be a row;"
            " --no-header reads it as a row"
        )
    if header is False:
        names = [f"column_{number}" for number in range(1, top.width + 1)]
        return _Header(names, top.line, top.line - 1, notices)
    return _Header(top.cells, top.line, top.lines, notices)


def _lead(layout: _CsvLayout) -> _Header:
    """The names in the line above the first record, which lacks the first or the last name."""
    record = layout.records[layout.first - 1]
    if not any(cells[-1].strip() for cells in (layout.top.cells, *layout.body)):
        return _Header([*record.cells, ""], record.line, record.lines)
    notice = (
        f"line {record.line} has one name less than the rows have cells: the first column has"
        " no name"
    )
    return _Header(["", *record.cells], record.line, record.lines, [notice])


def _above_notices(above: _Above, header: _Header, layout: _CsvLayout) -> list[str]:
    if header.begin <= above.skipped + 1 or not (above.comments or layout.first > layout.lead):
        return []
    lines = "line 1 is" if header.begin == 2 else f"lines 1 to {header.begin - 1} are"
    return [
        f"the table is read from line {header.begin} on: {lines} left out; --skip-lines 0 reads"
        " from line 1"
    ]


def _is_doubtful(top: _Record, votes: headers.Votes, layout: _CsvLayout) -> bool:
    """Whether the header may be a row.

    Its names are numbers, or look like the values of a table that is long enough to judge.
    """
    numbers = sum(map(headers.is_number, top.cells))
    if votes.names == votes.values == 0:
        return bool(numbers) or (top.width > 1 and len(layout.body) >= _ENOUGH)
    return 2 * max(numbers, votes.values) >= top.width


def _names_of_comment(line: str, layout: _CsvLayout) -> list[str] | None:
    """The names in a comment above the rows, such as `#id,size` or `# id size`."""
    for text in (line, line.lstrip("#")):
        record = next(_records(text, layout.delimiter, 0, 1), None)
        if record and record.width == layout.width > 1:
            return record.cells
    return None


def _without_trailing(names: Sequence[str], layout: _CsvLayout) -> tuple[list[str], bool]:
    """The names without that of an empty last column, and whether there is such a column.

    It comes from a delimiter at the end of each line.
    """
    last = [names[-1]] if names[-1] != f"column_{len(names)}" else []
    last += [cells[-1] for cells in layout.body]
    trailing = len(names) > 1 and bool(layout.body) and not any(map(str.strip, last))
    return list(names[:-1] if trailing else names), trailing


def _cell_notices(layout: _CsvLayout) -> Iterator[str]:
    """Notices about quotes that are read as text, and about a total that is read as a row."""
    if any('\\"' in cell for cell in layout.cells):
        yield (
            'cells hold \\" for a quote and are read unchanged: CSV writes a quote within quotes'
            " twice"
        )
    if any(re.match(r'\s+"', cell) for cell in layout.cells):
        yield (
            "cells have a blank before a quote, which makes the quote a part of the text: remove"
            " the blank"
        )

    *rows, last = layout.body or [[""]]
    filled = ((column, cell.strip()) for column, cell in enumerate(last) if cell.strip())
    column, word = next(filled, (0, ""))
    if _TOTAL.fullmatch(word) and not any(row[column].strip() == word for row in rows):
        yield (
            f"the last line ({word!r}) looks like a total and is read as a row; delete it from"
            " the file if it is not a row"
        )

"""How a CSV file is written, found out from pieces of it that are spread over the file."""

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
"""The delimiter that stands for any number of blanks and tabs."""
NONE = "\x1f"
"""The delimiter of a table of one column: a character that text does not hold."""
SAMPLE_RECORDS = 1_000

_HEAD_RECORDS, _PLACE_RECORDS, _WHOLE_RECORDS = 200, 30, 20_000
"""Number of records that are looked at: of the beginning and of each other place in a longer file,
and of one MiB alone."""
_NEAR = 2**15
"""Characters of the beginning in a sample of a longer file."""
_EVEN, _MOST = 0.9, 0.5
"""Share of the records that have one width where a delimiter is believed, and where it is worth a
notice."""
_ABOVE = 100
"""Number of records above the header that are looked through."""
_ENOUGH = 10
"""Number of rows from which on it is doubtful that nothing tells the header from them."""
_SEPARATOR = re.compile(r'"?sep=([,;:|~^ \t]|\\t)"?[,;\t|]*\s*', re.IGNORECASE)
_QUOTED_OR_BLANKS = re.compile(r'("[^"]*")|[ \t]+')
_EDGES = re.compile(r"^ | (?=\r?$)", re.MULTILINE)
_TOTAL = re.compile(r"(?:grand |sub-?)?total\b.*|sum|summe|gesamt", re.IGNORECASE)
_NAMES = {",": "','", ";": "';'", "\t": "tab", "|": "'|'"}


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written, and what stands above its rows.

    delimiter: one character, or BLANKS. encoding: by Python's name. names: the column names as
    written, one for each cell of a row. lines: number of lines above the first row. start: their
    bytes as UTF-8. trailing: each line ends with the delimiter, so that it has one cell more than
    there are names, which is empty.
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
        """Number of cells of a line."""
        return len(self.names) + self.trailing


@dataclass(frozen=True)
class _Record:
    """A record near the top: its cells, its first line, and the number of lines up to its end."""

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
class _Layout:
    """What a delimiter makes of a file.

    records: those near the top. spread: cells of records elsewhere. first: index of the record that
    is the header or the first row. width: number of cells of a record. lead: the record above the
    first one holds the names and lacks one.
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
        """The cells of the records from the first on."""
        return [record.cells for record in self.records[self.first :]] + self.spread

    @cached_property
    def body(self) -> list[list[str]]:
        """The cells of the records below the first, as far as they have its width."""
        return [cells for cells in self.below[1:] if len(cells) == self.width]

    @cached_property
    def share(self) -> float:
        """Share of the records, from the first on, that have the width, or lack trailing cells
        below a header."""
        shorter = range(2, self.width) if self.first == 0 else range(0)
        return sum(len(cells) == self.width or len(cells) in shorter for cells in self.below) / len(
            self.below
        )

    @cached_property
    def widths(self) -> Counter[int]:
        """How many of all records have each width."""
        return Counter(
            [record.width for record in self.records] + [len(cells) for cells in self.spread]
        )

    @property
    def most(self) -> tuple[int, float]:
        """The most frequent width above 1, if there is one, and its share."""
        count, width = max(
            (count, width)
            for width, count in self.widths.items()
            if width > 1 or len(self.widths) == 1
        )
        return width, count / self.widths.total()

    @property
    def cells(self) -> list[str]:
        return [cell for record in self.body[:_HEAD_RECORDS] for cell in record]

    @property
    def clean(self) -> float:
        """Share of the cells that hold no other delimiter, except as a sign of numbers."""
        clean = sum(
            headers.is_number(cell) or not any(sign in cell for sign in DELIMITERS)
            for cell in self.cells
        )
        return clean / max(1, len(self.cells))

    @property
    def typed(self) -> float:
        """Share of the cells that are numbers."""
        return sum(map(headers.is_number, self.cells)) / max(1, len(self.cells))


@dataclass(frozen=True)
class _Above:
    """What is above the table: lines to skip, comments below them, and the delimiter that a line
    such as sep=; names."""

    skipped: int = 0
    comments: Sequence[str] = ()
    delimiter: str | None = None

    @property
    def lines(self) -> int:
        return self.skipped + len(self.comments)


@dataclass(frozen=True)
class _Header:
    """The names, the line in which the table begins, and the number of lines above its first
    row."""

    names: list[str]
    begin: int
    lines: int
    notices: list[str] = field(default_factory=list)


def detect(source: Source, options: CsvOptions) -> Dialect:
    """The dialect of a file; what the options give is not detected."""
    given = _delimiter(options)
    encoding = known_encoding(options.encoding) if options.encoding else encoding_of(source)
    texts = spread_texts(source, encoding)

    search = options.skip is None
    above = _Above(options.skip or 0) if options.skip is not None else _above(texts[0])
    delimiter = given or above.delimiter
    candidates = (delimiter,) if delimiter else (*DELIMITERS, BLANKS)
    layouts = [_layout(texts, candidate, above.lines, search) for candidate in candidates]
    if not layouts[0].records:
        raise InvalidInput(
            f"{source.name} has no table below line {above.lines}; a table needs a header and rows"
        )
    layout = layouts[0] if delimiter else _chosen(layouts, texts, above.lines)
    header = _header(layout, options.header, above)
    names, trailing = _without_trailing(header.names, layout)

    notices = [] if options.encoding else notices_of(encoding)
    notices += [] if delimiter else _delimiter_notices(layout, layouts)
    notices += [*header.notices, *_above_notices(above, header, layout)]
    if trailing:
        notices.append("each line ends with the delimiter: the empty column behind it is left out")
    notices += _cell_notices(layout)
    start = sum(len(line.encode()) for line in itertools.islice(_lines(texts[0]), header.lines))
    return Dialect(
        layout.delimiter, encoding, tuple(names), header.lines, start, trailing, tuple(notices)
    )


def sample(source: Source, dialect: Dialect) -> list[list[str]]:
    """Up to 1,000 rows as text, spread over the file, without those that have more or fewer cells
    than the header."""
    head, *places = spread_texts(source, dialect.encoding)
    near = head[:_NEAR] if places else head
    found = [
        record.cells
        for record in _records(
            near, dialect.delimiter, dialect.lines, _HEAD_RECORDS if places else None
        )
    ]
    found += _spread(places, dialect.delimiter)
    width = dialect.width
    even = [cells for cells in found if len(cells) == width]
    if len(even) < len(found) / 2:  # most lines lack their trailing empty cells
        even = [cells + [""] * (width - len(cells)) for cells in found if 1 < len(cells) <= width]
    even = [cells[: len(dialect.names)] for cells in even]
    count = min(len(even), SAMPLE_RECORDS)
    return [even[at * (len(even) - 1) // max(1, count - 1)] for at in range(count)]


def normal(text: str) -> str:
    """Lines in which each delimiter of blanks is one blank."""
    return _EDGES.sub("", _QUOTED_OR_BLANKS.sub(lambda match: match[1] or " ", text))


def _delimiter(options: CsvOptions) -> str | None:
    """The delimiter that is given. Raises InvalidInput for an option without a meaning."""
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
    """The lines of a text with their ends, which are those that csv.reader counts."""
    return iter(io.StringIO(text, newline=""))


def _above(text: str) -> _Above:
    """A line that names the delimiter, and comments: lines with a # in a file of which most lines
    have none."""
    separator = _SEPARATOR.fullmatch(next(_lines(text), ""))
    skipped = 1 if separator else 0
    lines = list(itertools.islice(_lines(text), skipped, skipped + _HEAD_RECORDS))
    comments = list(
        itertools.takewhile(lambda line: line.startswith("#") or not line.strip(), lines)
    )
    while comments and not comments[-1].strip():
        comments.pop()
    if len(comments) > 1 and len(comments) >= len(lines) / 2:
        comments = []
    return _Above(skipped, comments, separator[1].replace("\\t", "\t") if separator else None)


def _records(text: str, delimiter: str, skip: int, most: int | None) -> Iterator[_Record]:
    """The records below the first lines, without blank lines."""
    lines: Iterator[str] = itertools.islice(_lines(text), skip, None)
    reader = csv.reader(map(normal, lines) if delimiter == BLANKS else lines, delimiter=delimiter)
    before = 0
    with contextlib.suppress(
        csv.Error
    ):  # a cell longer than Python's limit: what came before it has to do
        for cells in itertools.islice(reader, most):
            if cells and (len(cells) > 1 or cells[0].strip() or delimiter == NONE):
                yield _Record(cells, skip + before + 1, skip + reader.line_num)
            before = reader.line_num


def _spread(places: Sequence[str], delimiter: str) -> list[list[str]]:
    """The first records of each place, and the last ones of the last."""
    found: list[_Record] = []
    for place in places[:-1]:
        found += _records(place, delimiter, 0, _PLACE_RECORDS)
    if places:
        found += list(_records(places[-1], delimiter, 0, None))[-_PLACE_RECORDS:]
    return [record.cells for record in found]


def _layout(texts: Sequence[str], delimiter: str, above: int, search: bool) -> _Layout:
    head, *places = texts
    records = list(_records(head, delimiter, above, _HEAD_RECORDS if places else _WHOLE_RECORDS))
    from_top = _Layout(
        delimiter, records, _spread(places, delimiter), 0, records[0].width if records else 0
    )
    return _below_others(from_top) if search and records else from_top


def _below_others(from_top: _Layout) -> _Layout:
    """The layout from the first record on that has the width of most, if those above it are no part
    of the table."""
    records, top_width = from_top.records, from_top.width
    # Where trailing empty cells were left out, most lines may be shorter than the header.
    header_widest = top_width == max(from_top.widths) and from_top.widths[top_width] > 1
    width = top_width if header_widest else from_top.most[0]
    first = next(
        (at for at, record in enumerate(records[:_ABOVE]) if record.width == width > 1), None
    )
    if first is None:
        return from_top
    first += _titles(records[first:])
    layout = replace(from_top, first=first, width=width)
    votes = headers.votes(layout.top.cells, layout.body)
    if (
        first
        and layout.share == 1
        and votes.values > votes.names
        and _lacks_one(records[first - 1], layout)
    ):
        return replace(layout, lead=True)
    return layout if first == 0 or votes.names or _is_apart(records, first) else from_top


def _titles(records: Sequence[_Record]) -> int:
    """The number of lines at the top that a spreadsheet filled up with delimiters: only their first
    cell holds text."""
    top = list(
        itertools.takewhile(
            lambda record: not any(map(str.strip, record.cells[1:])), records[:_ABOVE]
        )
    )
    rest = records[len(top) :]
    usual = sorted(record.filled for record in rest)[len(rest) // 2] if rest else 0
    return len(top) if usual > 2 and records[0].width == rest[0].width > 2 else 0


def _lacks_one(above: _Record, layout: _Layout) -> bool:
    """Whether a record holds all names but that of row names, as R writes it, or of an empty column
    at the end."""
    rows = [layout.top.cells, *layout.body]
    if (
        layout.top.line > above.lines + 1
        or above.width != layout.width - 1
        or above.filled < max(2, above.width)
        or len(rows) < 3
    ):
        return False
    first = {cells[0] for cells in rows}
    named = len(first) == len(rows) and not any(re.search(r"\d[.,]\d", cell) for cell in first)
    broken = any('"' in cell for cells in rows for cell in cells)
    return not broken and (named or not any(cells[-1].strip() for cells in rows))


def _is_apart(records: Sequence[_Record], first: int) -> bool:
    """Whether a blank line, or one of nothing but a title, parts a record from those above it."""
    above = records[first - 1]
    return records[first].line > above.lines + 1 or (above.width > 2 and above.filled < 2)


def _chosen(layouts: Sequence[_Layout], texts: Sequence[str], above: int) -> _Layout:
    """The layout that is even and has the cleanest cells, else that of the first line's delimiter,
    else one column."""
    even = [layout for layout in layouts if layout.width > 1 and layout.share >= _EVEN]
    even = [
        layout
        for layout in even
        if layout.delimiter != BLANKS or (layout.share >= 0.98 and layout.typed >= 0.5)
    ]
    if even:
        return max(
            even, key=lambda layout: (layout.first == 0, round(layout.clean, 1), layout.width)
        )
    broken = [layout for layout in layouts if layout.width > 1 and layout.delimiter != BLANKS]
    if broken:
        return max(broken, key=lambda layout: (layout.share, layout.width))
    return _layout(texts, NONE, above, search=False)


def _delimiter_notices(layout: _Layout, layouts: Sequence[_Layout]) -> list[str]:
    if layout.delimiter == BLANKS:
        return ["cells are read as delimited by blanks; --delimiter CHAR reads them otherwise"]
    if layout.delimiter != NONE:
        return []
    cells = [layout.top.cells[0], *(record[0] for record in layout.body)]
    for other in (layout for layout in layouts if layout.delimiter in DELIMITERS):
        name, (width, share) = _NAMES[other.delimiter], other.most
        if width > 1 and share >= _MOST:
            return [
                f"each line is read as one value, although {share:.0%} of the lines have {width}"
                f" cells if {name} delimits them;"
                f" --delimiter {name} reads them so"
            ]
        if (
            len({cell.count(other.delimiter) for cell in cells}) == 1
            and other.delimiter in cells[0]
        ):
            return [
                "each line is one cell in quotes and read as one value; to have it cut at each"
                f" {name}, save it without them"
            ]
    return []


def _header(layout: _Layout, header: bool | None, above: _Above) -> _Header:
    """Where the names are: in the first record, in the line above it, or nowhere."""
    top, notices = layout.top, []
    votes = headers.votes(top.cells, layout.body)
    if layout.lead and header is not False:
        return _lead(layout)
    if above.comments and header is None and votes.names <= votes.values:
        names = _names_of_comment(above.comments[-1], layout)
        if names:
            return _Header(names, above.lines, above.lines)
    shown = ", ".join(repr(cell.strip()) for cell in top.cells[:3])
    if header is None and votes.values > votes.names:
        header = False
        notices.append(
            f"line {top.line} ({shown}) looks like a row, so the table has no header and its"
            " columns are called column_1,"
            f" column_2 …; --header reads the line as column names"
        )
    elif header is None and _is_doubtful(top, votes, layout):
        notices.append(
            f"line {top.line} ({shown}) is read as the header, although it may be a row;"
            " --no-header reads it so"
        )
    if header is False:
        return _Header(
            [f"column_{at}" for at in range(1, top.width + 1)], top.line, top.line - 1, notices
        )
    return _Header(top.cells, top.line, top.lines, notices)


def _lead(layout: _Layout) -> _Header:
    """The names in the line above, which lacks one."""
    record = layout.records[layout.first - 1]
    if not any(cells[-1].strip() for cells in (layout.top.cells, *layout.body)):
        return _Header([*record.cells, ""], record.line, record.lines)
    notice = (
        f"line {record.line} has one name less than the rows have cells: the first column has"
        " no name"
    )
    return _Header(["", *record.cells], record.line, record.lines, [notice])


def _above_notices(above: _Above, header: _Header, layout: _Layout) -> list[str]:
    if header.begin <= above.skipped + 1 or not (above.comments or layout.first > layout.lead):
        return []
    lines = "line 1 is" if header.begin == 2 else f"lines 1 to {header.begin - 1} are"
    return [
        f"the table is read from line {header.begin} on: {lines} left out; --skip-lines 0 reads"
        " from line 1"
    ]


def _is_doubtful(top: _Record, votes: headers.Votes, layout: _Layout) -> bool:
    """Whether the header might be a row: names are numbers, or nothing tells the two apart in a
    table of some length."""
    numbers = sum(map(headers.is_number, top.cells))
    if votes.names == votes.values == 0:
        return bool(numbers) or (top.width > 1 and len(layout.body) >= _ENOUGH)
    return 2 * max(numbers, votes.values) >= top.width


def _names_of_comment(line: str, layout: _Layout) -> list[str] | None:
    """The names in a comment above the rows, such as `#id,size` or, between blanks, `# id size`."""
    for text in (line, line.lstrip("#")):
        record = next(_records(text, layout.delimiter, 0, 1), None)
        if record and record.width == layout.width > 1:
            return record.cells
    return None


def _without_trailing(names: Sequence[str], layout: _Layout) -> tuple[list[str], bool]:
    """The names without that of a column behind the last delimiter of each line, and whether there
    is one."""
    last = [names[-1]] if names[-1] != f"column_{len(names)}" else []
    last += [cells[-1] for cells in layout.body]
    trailing = len(names) > 1 and bool(layout.body) and not any(map(str.strip, last))
    return list(names[:-1] if trailing else names), trailing


def _cell_notices(layout: _Layout) -> Iterator[str]:
    """What cells look like that is neither a value nor read as something else."""
    if any('\\"' in cell for cell in layout.cells):
        yield (
            'cells hold \\" for a quote and are read as they stand: in CSV a quote within quotes'
            " is written twice"
        )
    if any(re.match(r'\s+"', cell) for cell in layout.cells):
        yield (
            "cells have a blank before a quote, which makes the quote a part of the text: write"
            " none there"
        )
    *rows, last = layout.body or [[""]]
    at, word = next(((at, cell.strip()) for at, cell in enumerate(last) if cell.strip()), (0, ""))
    if _TOTAL.fullmatch(word) and not any(row[at].strip() == word for row in rows):
        yield (
            f"the last line ({word!r}) looks like a total and is read as a row; delete it from"
            " the file if it is none"
        )

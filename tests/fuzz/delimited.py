"""CSV for the fuzzer: dialects, encodings, lines above and below the table, broken records."""

from pathlib import Path
from random import Random

from nelbo.files import CsvOptions
from tests.fuzz import mutations, tables
from tests.fuzz.tables import Opening

MODULES = ("delimited", "dialects", "headers", "records")
OPENINGS = (
    *[Opening("csv")] * 12,
    Opening("csv", pipe=True),
    Opening(None, name="table.csv"),
    Opening(None, name="table.TSV.gz"),
    Opening(None, name=None),
    Opening(None, name="table.xlsx"),
    Opening("excel"),
    Opening("parquet"),
    Opening("csv", CsvOptions(delimiter=";")),
    Opening("csv", CsvOptions(delimiter="tab")),
    Opening("csv", CsvOptions(delimiter=" ")),
    Opening("csv", CsvOptions(delimiter="::")),
    Opening("csv", CsvOptions(encoding="latin-1")),
    Opening("csv", CsvOptions(encoding="utf-16-le")),
    Opening("csv", CsvOptions(encoding="utf-7")),
    Opening("csv", CsvOptions(encoding="idna")),
    Opening("csv", CsvOptions(encoding="rot13")),
    Opening("csv", CsvOptions(encoding="none")),
    Opening("csv", CsvOptions(decimal=",")),
    Opening("csv", CsvOptions(decimal="x")),
    Opening("csv", CsvOptions(header=True)),
    Opening("csv", CsvOptions(header=False)),
    Opening("csv", CsvOptions(header=False, skip=0)),
    Opening("csv", CsvOptions(skip=2)),
    Opening("csv", CsvOptions(skip=-1)),
)
ABOVE = (
    "sep=;\n", "sep=\\t\n", "# a comment\n# of two lines\n", "Report of May\n\n",
    "Report,,,\n,,,\n", "\n\n", "#a,b,c\n",
    "# c0 c1 c2\n", "\ufeff", "a;b\n", "printed by x on y\npage 1\n",
)  # fmt: skip
BELOW = (
    "\n",
    "Total\n",
    "total,5,6\n",
    "\nSource: a survey\n",
    "End of file",
    ",,,\n",
    "1\n",
    "(c) x;y\n\n\n",
    '"',
    "\n\n12\n",
)
ENCODINGS = (
    "utf-8",
    "utf-8",
    "utf-8",
    "utf-8-sig",
    "cp1252",
    "utf-16",
    "utf-16-le",
    "utf-16-be",
    "utf-32",
    "latin-1",
)


def read(content: bytes, folder: Path) -> None:
    tables.read(content, folder, OPENINGS)


def seeds() -> list[bytes]:
    rng = Random(1)
    large = [
        b"a,b\n" + b"1,x\n" * 9_000 + b"2,\xc3\xa9" + b"x" * 2**20 + b"\n",
        "a;b\n".encode("utf-16") + ("1,5;" + "x" * 60 + "\n").encode("utf-16-le") * 9_000,
        b"a,b\n" + b'1,"x\ny"\n' * 12_000 + b'"' + b"x" * 2**20 + b'"\n',
        b'a\n"' + b"x" * 5 * 2**19,
        b"a,b\r" + (b"1," + b"\xe9" * 120 + b"\r") * 9_000,
    ]
    return tables.inputs([written(rng) for _ in range(60)], large)


def mutate(rng: Random, content: bytes) -> bytes:
    return tables.changed(rng, content, _changed)


def written(rng: Random) -> bytes:
    """A small table as CSV in a dialect of its own."""
    delimiter, end = (
        rng.choice((",", ",", ",", ";", "\t", "|", " ", "  ")),
        rng.choice(("\n", "\n", "\r\n", "\r")),
    )
    columns = tables.table_of_text(rng)
    header, quoted, trailing = (
        rng.random() < 0.9,
        rng.random() < 0.3,
        rng.choice(("", "", "", delimiter)),
    )
    records = [list(columns), *map(list, zip(*columns.values(), strict=True))][0 if header else 1 :]
    if header and rng.random() < 0.1:
        records[0] = records[0][1:]  # as R writes row names
    cells = [[_cell(cell, delimiter, quoted) for cell in record] for record in records]
    text = "".join(delimiter.join(record) + trailing + end for record in cells)
    above, below = (rng.choice(pieces) if rng.random() < 0.2 else "" for pieces in (ABOVE, BELOW))
    return (above + text + below).encode(rng.choice(ENCODINGS), errors="replace")


def _cell(cell: str, delimiter: str, quoted: bool) -> str:
    special = any(sign in cell for sign in (delimiter, '"', "\n", "\r"))
    return '"' + cell.replace('"', '""') + '"' if quoted or special else cell


def _changed(rng: Random, content: bytes) -> bytes:
    choice = rng.random()
    if choice < 0.1:
        return written(rng)
    if choice < 0.4:
        return mutations.changed(rng, content)
    text = content.decode("utf-8", errors="surrogateescape")
    text = rng.choice((_lines, _lines, _cells, _cells, _cells, _signs, _frame))(rng, text)
    if rng.random() < 0.05:
        return text.encode(rng.choice(ENCODINGS), errors="replace")
    return text.encode(errors="surrogatepass" if rng.random() < 0.1 else "replace")


def _lines(rng: Random, text: str) -> str:
    return "".join(mutations.taken(rng, text.splitlines(keepends=True)))


def _cells(rng: Random, text: str) -> str:
    """Some cells of a line become others, or a whole column does, or a line gets more or fewer
    cells."""
    delimiter = max(",;\t|", key=text.count)
    records = [line.split(delimiter) for line in text.split("\n")]
    at = rng.randrange(len(records))
    choice = rng.random()
    if choice < 0.3:
        records[at] = mutations.taken(rng, records[at])
    elif choice < 0.6:
        column = rng.randrange(len(records[at]))
        records[at][column] = mutations.text(rng, records[at][column])
    else:
        other = tables.table_of_text(rng).popitem()[1]
        column = rng.randrange(len(records[0]))
        for row, record in enumerate(records[rng.randrange(2) :]):
            if column < len(record):
                record[column] = other[row % len(other)]
    return "\n".join(delimiter.join(record) for record in records)


def _signs(rng: Random, text: str) -> str:
    """One sign of the dialect becomes another everywhere."""
    signs = (",", ";", "\t", "|", " ", "\n", "\r", "\r\n", '"', "'", ".", "-", "/", ":")
    return text.replace(
        rng.choice(signs), rng.choice((*signs, '""', '\\"')), rng.choice((-1, 1, 5))
    )


def _frame(rng: Random, text: str) -> str:
    return rng.choice(
        (rng.choice(ABOVE) + text, text + rng.choice(BELOW), text * 40, text.rstrip("\r\n"))
    )

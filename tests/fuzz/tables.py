"""Tables of strangers: how they are opened and read, small tables in all spellings, and compression
around them."""

import gzip
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

import pyarrow as pa

from nelbo.encoding import encode
from nelbo.files import (
    DETECTED,
    CsvOptions,
    Limits,
    open_table,
    part_name,
    read_into_parts,
    read_parts,
)
from nelbo.files.formats import compression_of_content
from nelbo.schema import Schema
from tests.fuzz import mutations

LIMITS = Limits(columns=60, rows=20_000, unpacked_bytes=4 * 2**20)
"""Far smaller than a service's, so that inputs reach them."""
MOST_UNPACKED = 2**15


@dataclass(frozen=True)
class Opening:
    """How a table is opened. The first byte of an input chooses one."""

    format: str | None
    csv: CsvOptions = DETECTED
    name: str | None = "table"
    pipe: bool = False


class Pipe(io.BytesIO):
    """Bytes that come through a pipe, which cannot seek."""

    def seekable(self) -> bool:
        return False


def read(content: bytes, folder: Path, openings: tuple[Opening, ...]) -> None:
    """Read as the process that reads uploads does, then as a worker reads the parts."""
    opening = openings[content[0] % len(openings)] if content else openings[0]
    source = Pipe(content[1:]) if opening.pipe else io.BytesIO(content[1:])
    with open_table(
        source, opening.format, name=opening.name, csv=opening.csv, limits=LIMITS
    ) as table:
        reading = read_into_parts(table, folder)
    rows = 0
    for batch in read_parts(
        lambda number: (folder / part_name(number)).open("rb"), 0, reading.rows
    ):
        encode(batch, Schema(columns=reading.columns), rows)
        rows += batch.num_rows
    assert rows == reading.rows, f"{reading.rows} rows were read and {rows} came back"


def changed(rng: Random, content: bytes, change: mutations.Change) -> bytes:
    """An input after a change: of the opening, of the content, or of the compression around it."""
    if not content or rng.random() < 0.1:
        return bytes([rng.randrange(256)]) + content[1:]
    return (content[:1] + _unpacked_and_changed(rng, content[1:], change))[: mutations.MOST_BYTES]


def _unpacked_and_changed(rng: Random, content: bytes, change: mutations.Change) -> bytes:
    kind = compression_of_content(content)
    if rng.random() < 0.03:
        return _packed(content, rng.choice(("gzip", "zstd")))
    if kind is None:
        return change(rng, content)
    try:
        with pa.CompressedInputStream(pa.BufferReader(content), kind) as stream:
            plain = stream.read(MOST_UNPACKED)
    except OSError:
        return mutations.changed(rng, content)
    choice = rng.random()
    if choice < 0.2:
        return mutations.changed(rng, content)
    if choice < 0.3:
        return plain
    if choice < 0.31:  # more than a sample holds
        return _packed(plain * min(5_000, 3 * 2**19 // max(1, len(plain))), kind)
    return _packed(change(rng, plain), kind)


def _packed(content: bytes, kind: str) -> bytes:
    return (
        gzip.compress(content, 1, mtime=0)
        if kind == "gzip"
        else pa.Codec("zstd").compress(content, asbytes=True)
    )


def inputs(contents: list[bytes], large: Sequence[bytes] = ()) -> list[bytes]:
    """Contents with the first of the openings, a few of them compressed as well, and large ones
    compressed alone."""
    packed = [
        _packed(content, kind)
        for content, kind in zip(contents, ("gzip", "zstd", "gzip"), strict=False)
    ]
    packed += [_packed(packed[0], "zstd"), *(_packed(content, "zstd") for content in large)]
    return [b"\0" + content for content in (*contents, *packed)]


# Small tables of text

FORMATS = (
    "%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%y", "%d %b %Y", "%B %d, %Y", "%Y%m%d",
    "%d-%b-%y",
    "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S+02:00",
    "%m/%d/%Y %I:%M %p",
    "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S UTC", "%a, %d %b %Y %H:%M:%S"
                                               " GMT", "%A, %d %B"
                                                                            " %Y", "%I:%M%p",
)  # fmt: skip
WORDS = (
    "red",
    "green",
    "blue",
    "a,b",
    'say "x"',
    "two\nlines",
    " blank ",
    "été",
    "x;y",
    "None",
    "unknown",
    "",
    "-9999",
)


def _number(rng: Random) -> float:
    return rng.choice(
        (rng.randrange(1000), rng.gauss(0, 1), rng.gauss(1e6, 1e5), 10.0 ** rng.randrange(-8, 20))
    )


def _grouped(rng: Random, group: str, decimal: str) -> str:
    return f"{rng.randrange(10**7):,}.{rng.randrange(100):02}".translate(
        {ord(","): group, ord("."): decimal}
    )


def _day(rng: Random, format: str) -> str:
    return (datetime(1995, 1, 1) + timedelta(seconds=rng.randrange(10**9))).strftime(format)


def _spelling(rng: Random) -> Callable[[int], str]:
    """How the cells of a column are written, as a function of the row's number."""
    format, words = (
        rng.choice(FORMATS),
        rng.choice((("yes", "no"), ("TRUE", "FALSE"), ("t", "f"), ("Y", "N"), ("1", "0"))),
    )
    few = rng.sample(WORDS, 4)
    unit = rng.choice(("%", " €", " kg", "k"))
    return rng.choice(
        (
            lambda row: str(rng.randrange(50)),
            lambda row: str(rng.randrange(50)),
            lambda row: str(row),
            lambda row: f"{_number(rng):.2f}",
            lambda row: f"{_number(rng):g}",
            lambda row: f"{_number(rng):.1f}".replace(".", ","),
            lambda row: _grouped(rng, ",", "."),
            lambda row: _grouped(rng, ".", ","),
            lambda row: _grouped(rng, rng.choice(" \u00a0'"), ","),
            lambda row: f"${_grouped(rng, ',', '.')}",
            lambda row: f"({rng.randrange(99)}.5)",
            lambda row: f"{rng.randrange(100)}{unit}",
            lambda row: f"{rng.randrange(100)}-",
            lambda row: f"{rng.randrange(1000):05}",
            lambda row: str(2**53 + rng.randrange(2**60)),
            lambda row: _day(rng, format),
            lambda row: _day(rng, format),
            lambda row: _day(rng, format),
            lambda row: rng.choice(words),
            lambda row: rng.choice(few),
            lambda row: f"name {row}",
            lambda row: rng.choice(("NaN", "inf", "-inf", "1.5", "Infinity")),
            lambda row: "",
            lambda row: rng.choice(mutations.TEXTS),
        )
    )


def table_of_text(rng: Random) -> dict[str, list[str]]:
    """A small table: each column in a spelling of its own, with some cells that are missing, odd or
    sentinels."""
    rows = rng.choice((1, 2, 12, 25, 25, 60))
    columns: dict[str, list[str]] = {}
    for at in range(rng.choice((1, 2, 3, 4, 6))):
        name = rng.choice(
            (
                f"c{at}",
                f"c{at}",
                f"id{at}",
                f"user_id{at}_id",
                str(at),
                str(2000 + at),
                "",
                f"Größe {at}",
            )
        )
        spelling, odd = _spelling(rng), rng.choice((0.0, 0.0, 0.03, 0.2))
        strange = rng.choice(("", "?", "None", "-9999", "9999-12-31", "1,5", "x", "n/a"))
        columns[name] = [strange if rng.random() < odd else spelling(row) for row in range(rows)]
    return columns

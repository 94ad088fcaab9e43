"""The formats of tables: by the suffix of a name, by the first bytes of the content."""

import codecs
import re
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any, Literal, get_args

from nelbo.errors import InvalidInput

Format = Literal["csv", "parquet", "arrow", "jsonl"]
FORMATS: tuple[Format, ...] = get_args(Format)
SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
Compression = Literal["gzip", "zstd"]
COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
"""By the suffix behind that of the format, as in table.csv.gz."""
PARQUET, ARROW_FILE, ARROW_STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"
_COMPRESSED: dict[bytes, Compression] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_OBJECT = re.compile(rb"\s*(\[\s*)?\{")
_STRANGERS = {
    b"PK\x03\x04": "a zip archive or an Excel sheet; save the table as CSV or Parquet",
    b"BZh": "compressed with bzip2; unpack it first",
    b"%PDF": "a PDF document; save the table as CSV or Parquet",
    b"\xd0\xcf\x11\xe0": "an old Excel sheet; save the table as CSV or Parquet",
    b"SQLite format 3": "a database; save one table of it as CSV or Parquet",
}


@dataclass(frozen=True)
class Limits:
    """The widest and the longest table that is read, and the size to which a compressed one may
    unpack.

    free_bytes: free disk that unpacking leaves.
    """

    columns: int = 2_000
    rows: int = 100_000_000
    unpacked_bytes: int = 10 * 2**30
    free_bytes: int = 0


@dataclass(frozen=True)
class CsvOptions:
    """How a CSV file is written; what is None is detected.

    delimiter: one character; a blank stands for any number of blanks and tabs. encoding: by
    Python's name, of JSON Lines too. decimal: "." or ",". header: whether the first record holds
    the column names. skip: number of lines above that record.
    """

    delimiter: str | None = None
    encoding: str | None = None
    decimal: str | None = None
    header: bool | None = None
    skip: int | None = None

    def given(self) -> dict[str, Any]:
        """The options that are not detected."""
        return {name: value for name, value in asdict(self).items() if value is not None}


DETECTED = CsvOptions()


def format_of(name: str | PurePath) -> Format:
    """The format that a name's suffix stands for; a suffix of compression may follow it."""
    path = PurePath(name)
    suffix = (path.with_suffix("") if compression_of(path) else path).suffix.lower()
    if suffix not in SUFFIXES:
        raise InvalidInput(
            f"{path.name!r} has the wrong suffix: tables end in {', '.join(SUFFIXES)}, compressed"
            " ones in"
            f" {' or '.join(COMPRESSIONS)} after that; rename it or give its format"
        )
    return SUFFIXES[suffix]


def format_of_content(sample: bytes) -> Format:
    """The format of a table without a name, from its first bytes."""
    if sample.startswith(PARQUET):
        return "parquet"
    if sample.startswith((ARROW_FILE, ARROW_STREAM)):
        return "arrow"
    return "jsonl" if _OBJECT.match(sample.removeprefix(codecs.BOM_UTF8)) else "csv"


def compression_of(name: str | PurePath) -> Compression | None:
    """What a file is compressed with, by the last suffix of its name."""
    return COMPRESSIONS.get(PurePath(name).suffix.lower())


def compression_of_content(sample: bytes) -> Compression | None:
    """What a file is compressed with, from its first bytes."""
    return next((kind for start, kind in _COMPRESSED.items() if sample.startswith(start)), None)


def check_content(sample: bytes, format: Format, name: str) -> None:
    """Refuse a file whose first bytes are those of something else than its format."""
    if compression_of_content(sample):
        raise InvalidInput(f"{name} is compressed twice; unpack it once")
    for start, what in _STRANGERS.items():
        if sample.startswith(start):
            raise InvalidInput(f"{name} is {what}")
    content = format_of_content(sample)
    if content in ("parquet", "arrow") and content != format:
        raise InvalidInput(
            f"{name} is read as {format}, but holds {content}; rename it or give its format"
        )

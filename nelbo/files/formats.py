"""The formats of tables, recognised by the suffix of a name or by the first bytes of a file."""

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
"""The suffix follows that of the format, as in table.csv.gz."""
PARQUET = b"PAR1"
ARROW_FILE = b"ARROW1"
ARROW_STREAM = b"\xff\xff\xff\xff"
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
    """The limits of a table that is read.

    unpacked_bytes: largest size of a compressed file after unpacking.
    free_bytes: disk space that unpacking leaves free.
    """

    columns: int = 2_000
    rows: int = 100_000_000
    unpacked_bytes: int = 10 * 2**30
    free_bytes: int = 0


@dataclass(frozen=True)
class CsvOptions:
    """How a CSV file is written. Each option that is None is detected.

    delimiter: one character; a blank means any number of blanks and tabs.
    encoding: by Python's name; it applies to JSON Lines too.
    decimal: "." or ",".
    header: whether the first record holds the column names.
    skip: number of lines above that record.
    """

    delimiter: str | None = None
    encoding: str | None = None
    decimal: str | None = None
    header: bool | None = None
    skip: int | None = None

    def given(self) -> dict[str, Any]:
        """The options that are not None."""
        return {name: value for name, value in asdict(self).items() if value is not None}


DETECTED = CsvOptions()


def format_of(name: str | PurePath) -> Format:
    """The format by the suffix of a name, which a suffix of compression may follow."""
    path = PurePath(name)
    suffix = (path.with_suffix("") if compression_of(path) else path).suffix.lower()
    if suffix not in SUFFIXES:
        raise InvalidInput(
            f"{path.name!r} has the wrong suffix: tables end in {', '.join(SUFFIXES)},"
            f" compressed ones in {' or '.join(COMPRESSIONS)} after that; rename it or give its"
            " format"
        )
    return SUFFIXES[suffix]


def check_format(name: str) -> Format:
    """The format of this name. Raises InvalidInput if there is none."""
    for format in FORMATS:
        if name == format:
            return format
    raise InvalidInput(
        f"{name!r} is not a supported table format; choose one of {', '.join(FORMATS)}"
    )


def format_of_content(sample: bytes) -> Format:
    """The format by the first bytes of a file."""
    if sample.startswith(PARQUET):
        return "parquet"
    if sample.startswith((ARROW_FILE, ARROW_STREAM)):
        return "arrow"
    return "jsonl" if _OBJECT.match(sample.removeprefix(codecs.BOM_UTF8)) else "csv"


def compression_of(name: str | PurePath) -> Compression | None:
    """The compression by the last suffix of a name; None if there is none."""
    return COMPRESSIONS.get(PurePath(name).suffix.lower())


def compression_of_content(sample: bytes) -> Compression | None:
    """The compression by the first bytes of a file; None if there is none."""
    return next((kind for start, kind in _COMPRESSED.items() if sample.startswith(start)), None)


def check_content(sample: bytes, format: Format, name: str) -> None:
    """Refuse a file whose first bytes show that it is not of its format."""
    if compression_of_content(sample):
        raise InvalidInput(f"{name} is compressed twice; unpack it once")
    for start, description in _STRANGERS.items():
        if sample.startswith(start):
            raise InvalidInput(f"{name} is {description}")
    content = format_of_content(sample)
    if content in ("parquet", "arrow") and content != format:
        raise InvalidInput(
            f"{name} is read as {format}, but holds {content}; rename it or give its format"
        )

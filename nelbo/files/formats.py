"""The formats of tables: by the suffix of a name, by the first bytes of the content."""

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
}
PARQUET, ARROW_FILE, ARROW_STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"
_STRANGERS = {
    b"PK\x03\x04": "a zip archive or an Excel sheet; save the table as CSV or Parquet",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it first",
    b"BZh": "compressed with bzip2; unpack it first",
    b"%PDF": "a PDF document; save the table as CSV or Parquet",
    b"\xd0\xcf\x11\xe0": "an old Excel sheet; save the table as CSV or Parquet",
    b"SQLite format 3": "a database; save one table of it as CSV or Parquet",
}


@dataclass(frozen=True)
class Limits:
    """The widest and the longest table that is read."""

    columns: int = 2_000
    rows: int = 100_000_000


@dataclass(frozen=True)
class CsvOptions:
    """How a CSV file is written; what is None is detected.

    delimiter: one character; a blank stands for any number of blanks and tabs. encoding: by Python's name, of JSON Lines too.
    decimal: "." or ",". header: whether the first record holds the column names. skip: number of lines above that record.
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
    """The format that a name's suffix stands for."""
    suffix = PurePath(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise InvalidInput(
            f"{PurePath(name).name!r} has the wrong suffix: tables end in {', '.join(SUFFIXES)}; rename it or give its format"
        )
    return SUFFIXES[suffix]


def format_of_content(sample: bytes) -> Format:
    """The format of a table without a name, from its first bytes."""
    if sample.startswith(PARQUET):
        return "parquet"
    if sample.startswith((ARROW_FILE, ARROW_STREAM)):
        return "arrow"
    return "jsonl" if sample.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") else "csv"


def check_content(sample: bytes, format: Format, name: str) -> None:
    """Refuse a file whose first bytes are those of something else than its format."""
    for start, what in _STRANGERS.items():
        if sample.startswith(start):
            raise InvalidInput(f"{name} is {what}")
    content = format_of_content(sample)
    if content in ("parquet", "arrow") and content != format:
        raise InvalidInput(f"{name} is read as {format}, but holds {content}; rename it or give its format")

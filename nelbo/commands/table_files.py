"""FILE and OUT: the table that a command reads, and the one that it writes."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer

from nelbo.errors import InvalidInput, NotFound
from nelbo.files import (
    Format,
    Limits,
    Table,
    check_target,
    format_of,
    is_stream,
    open_table,
)
from nelbo.files.compression import first_bytes
from nelbo.files.formats import DETECTED, CsvOptions, check_format, format_of_content
from nelbo.settings import Settings

_SAMPLE_BYTES = 4_096


@dataclass(frozen=True)
class TableFile:
    """A table that a command reads; `-` is standard input. A format of None is detected."""

    file: str
    format: str | None = None
    csv: CsvOptions = DETECTED

    @property
    def name(self) -> str:
        return "standard input" if self.file == "-" else Path(self.file).name

    def open(self, settings: Settings) -> Table:
        """The table, opened for work in this process."""
        limits = Limits(settings.max_columns, settings.max_job_rows, settings.max_upload_bytes)
        return open_table(self.file, self.format, csv=self.csv, limits=limits)

    @contextmanager
    def on_disk(self) -> Iterator[Path]:
        """The table as a file whose suffix is its format: the file itself, or a copy of a pipe."""
        if self.file != "-" and self.format in (None, _known_format(self.file)):
            if not Path(self.file).exists():
                raise NotFound(f"no file at {self.file}")
            format_of(self.file)
            yield Path(self.file)
            return
        if self.format is not None:
            check_format(self.format)
        with tempfile.TemporaryDirectory(prefix="nelbo-") as folder:
            yield self._copied(Path(folder))

    def _copied(self, folder: Path) -> Path:
        raw = folder / "table"
        if self.file == "-":
            with raw.open("wb") as copy:
                shutil.copyfileobj(sys.stdin.buffer, copy)
        else:
            try:
                raw.symlink_to(Path(self.file).resolve(strict=True))
            except FileNotFoundError:
                raise NotFound(f"no file at {self.file}") from None
        stem = "stdin" if self.file == "-" else Path(self.file).stem
        with raw.open("rb") as opened:
            format = self.format or format_of_content(first_bytes(opened, _SAMPLE_BYTES))
        return raw.rename(folder / f"{stem}.{format}")


@dataclass(frozen=True)
class OutputFile:
    """A table to write: a path or `-`, and its format."""

    path: str
    format: Format
    safe_csv: bool = False


def output_file(path: str, format: str | None, as_json: bool, safe_csv: bool = False) -> OutputFile:
    """The table to write, checked before any work is done for it."""
    if path == "-" and as_json:
        raise typer.BadParameter(
            "a table and the JSON object cannot both go to standard output; name a file",
            param_hint="--output",
        )
    check_target(path)
    if format is not None:
        return OutputFile(path, check_format(format), safe_csv)
    if path == "-" or (is_stream(Path(path)) and _known_format(path) is None):
        return OutputFile(path, "csv", safe_csv)
    return OutputFile(path, format_of(path), safe_csv)


def _known_format(file: str) -> str | None:
    try:
        return format_of(file)
    except InvalidInput:
        return None

"""Where the bytes of a table come from: a path, a pipe, an open file; always a seekable stream in the end."""

import io
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from nelbo.errors import InvalidInput, NotFound

SAMPLE_BYTES = 2**20


@dataclass(frozen=True)
class Source:
    """An open table; `sample` is its first MiB, `whole` says whether that is all of it."""

    name: str
    stream: BinaryIO
    sample: bytes
    whole: bool

    def rewound(self) -> BinaryIO:
        self.stream.seek(0)
        return self.stream


def open_source(source: str | Path | BinaryIO, name: str | None = None) -> Source:
    """Open a path, "-" for standard input, or a binary file. What cannot seek is first copied to a temporary file."""
    if isinstance(source, str | Path) and str(source) != "-":
        stream = _opened(Path(source))
    else:
        stream = sys.stdin.buffer if isinstance(source, str | Path) else source
    stream = stream if stream.seekable() else _spooled(stream)
    stream.seek(0)
    sample = stream.read(SAMPLE_BYTES)
    return Source(name or _name(source), stream, sample, whole=not stream.read(1))


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise NotFound(f"no file at {path}") from None
    except PermissionError:
        raise NotFound(f"{path} may not be read by this user") from None
    except IsADirectoryError:
        raise InvalidInput(f"{path} is a folder; name one file") from None
    except (OSError, ValueError) as problem:
        raise InvalidInput(f"{path} cannot be opened: {problem}") from None


def _spooled(stream: BinaryIO) -> BinaryIO:
    copy = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the source
    shutil.copyfileobj(stream, copy, io.DEFAULT_BUFFER_SIZE * 16)
    return copy


def _name(source: str | Path | BinaryIO) -> str:
    if isinstance(source, str | Path):
        return "standard input" if str(source) == "-" else Path(source).name
    return "the table"

"""The bytes of a table, from a path, a pipe or an open file, as a seekable stream."""

import io
import shutil
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from nelbo.errors import InvalidInput, NotFound
from nelbo.files.compression import unpacked
from nelbo.files.formats import Limits, compression_of_content

SAMPLE_BYTES = 2**20


@dataclass(frozen=True)
class Source:
    """An open table. `sample` is its first MiB; `whole` says whether the table ends there."""

    name: str
    stream: BinaryIO
    sample: bytes
    whole: bool
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reading(self) -> BinaryIO:
        """A stream from the start of the table, with a position of its own.

        Arrow reads ahead in threads that outlive a reader, so readers cannot share a position.
        """
        return cast(BinaryIO, _Reading(self.stream, self._lock))


class _Reading(io.RawIOBase):
    def __init__(self, stream: BinaryIO, lock: threading.Lock) -> None:
        self._stream = stream
        self._lock = lock
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        with self._lock:
            self._stream.seek(self._position)
            content = self._stream.read(-1 if size is None else size)
            self._position += len(content)
            return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with self._lock:
            self._stream.seek(self._position)
            start = 0 if whence == io.SEEK_SET else self._stream.seek(0, whence)
            self._position = max(0, start + offset)
            return self._position

    def tell(self) -> int:
        return self._position


def open_source(
    source: str | Path | BinaryIO,
    name: str | None = None,
    limits: Limits = Limits(),  # noqa: B008  # frozen
) -> Source:
    """Open a path, "-" for standard input, or a binary file.

    A stream that cannot seek is copied to a temporary file first. A file whose first bytes show
    that it is compressed is unpacked into one.
    """
    if isinstance(source, str | Path) and str(source) != "-":
        stream = _opened(Path(source))
    else:
        stream = sys.stdin.buffer if isinstance(source, str | Path) else source
    stream = stream if stream.seekable() else _spooled(stream)
    stream.seek(0)
    sample = stream.read(SAMPLE_BYTES)
    compression = compression_of_content(sample)
    if compression:
        stream = unpacked(stream, compression, name or _name(source), limits)
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

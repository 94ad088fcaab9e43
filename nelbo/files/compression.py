"""Compressed files: gzip and zstd, unpacked into a temporary file up to a limit of size."""

import contextlib
import errno
import io
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from typing import Any, BinaryIO, cast

import pyarrow as pa

from nelbo.errors import InvalidInput, TooLarge, Unavailable
from nelbo.files.formats import Compression, Limits, compression_of_content

_PIECE_BYTES = 2**20
_RATIO = 1_100
"""Highest accepted ratio of unpacked to packed size.

gzip compresses at most 1,032 times; tables compress 5 to 100 times.
"""
_BELIEVED_BYTES = 256 * 2**20
"""Unpacked size up to which any ratio is accepted."""


def first_bytes(stream: BinaryIO, size: int) -> bytes:
    """The first bytes of a file, unpacked if it is compressed."""
    sample = stream.read(size)
    stream.seek(0)
    kind = compression_of_content(sample)
    return sample if kind is None else next(_pieces(stream, kind, "the table"), b"")[:size]


def unpacked(stream: BinaryIO, kind: Compression, name: str, limits: Limits) -> BinaryIO:
    """The content, unpacked into a temporary file; the stream is closed.

    Raises InvalidInput, TooLarge, and Unavailable where the disk is full.
    """
    size = stream.seek(0, io.SEEK_END)
    most = min(limits.unpacked_bytes, max(_BELIEVED_BYTES, _RATIO * size))
    stream.seek(0)
    copy = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the source
    try:
        with contextlib.closing(_pieces(stream, kind, name)) as pieces:
            for piece in pieces:
                if copy.tell() + len(piece) > most:
                    raise _too_large(name, size, most, limits)
                _write(copy, piece, name, limits)
    except BaseException:
        copy.close()
        raise
    return copy


@contextlib.contextmanager
def compressing(stream: BinaryIO, kind: Compression | None) -> Iterator[BinaryIO]:
    """A stream that compresses into a file, which stays open; the file itself if kind is None."""
    if kind is None:
        yield stream
        return
    # Arrow closes the file that it writes to, so it gets a duplicate.
    with os.fdopen(os.dup(stream.fileno()), "wb") as twin:
        target: Any = twin
        with pa.CompressedOutputStream(pa.PythonFile(target, mode="w"), kind) as packed:
            yield cast(BinaryIO, packed)


def _pieces(stream: BinaryIO, kind: Compression, name: str) -> Generator[bytes]:
    readable: Any = stream  # the stubs want an IOBase, which BinaryIO is not
    try:
        with pa.CompressedInputStream(pa.PythonFile(readable, mode="r"), kind) as content:
            while piece := content.read(_PIECE_BYTES):
                yield piece
    except OSError as problem:
        if problem.errno is not None:  # an error of the system, not of the content
            raise
        raise _unreadable(name, kind, str(problem)) from None


def _unreadable(name: str, kind: Compression, problem: str) -> InvalidInput:
    if "too much memory" in problem:
        return InvalidInput(
            f"{name} was compressed with a window of more than 128 MiB; compress it again"
            " without --long"
        )
    return InvalidInput(
        f"{name} cannot be unpacked with {kind}: it is damaged or cut off ({problem[:200]});"
        " write it again"
    )


def _too_large(name: str, size: int, most: int, limits: Limits) -> TooLarge:
    if most == limits.unpacked_bytes:
        return TooLarge(
            f"{name} unpacks to more than {most:,} bytes, the limit (NELBO_MAX_UPLOAD_BYTES);"
            " split the table"
        )
    return TooLarge(
        f"{name} unpacks from {size:,} bytes to more than {most:,}, a ratio above {_RATIO:,}; no"
        " table compresses so well: if it is a table, unpack it yourself"
    )


def _write(copy: BinaryIO, piece: bytes, name: str, limits: Limits) -> None:
    folder = tempfile.gettempdir()
    try:
        if shutil.disk_usage(folder).free < limits.free_bytes + len(piece):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        copy.write(piece)
    except OSError as problem:
        raise Unavailable(
            f"{name} cannot be unpacked into {folder}: {problem.strerror}; free some disk space,"
            " or set TMPDIR to another folder"
        ) from None

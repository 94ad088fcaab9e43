"""Streams: pieces of bytes as a file, and a file as pieces of bytes."""

import io
from collections.abc import Iterator
from typing import IO, Any

PIECE_BYTES = 2**20


def pieces_of(file: IO[bytes], size: int = PIECE_BYTES) -> Iterator[bytes]:
    """The rest of a file in pieces of at most `size` bytes."""
    return iter(lambda: file.read(size), b"")


def as_file(pieces: Iterator[bytes], buffer_bytes: int = PIECE_BYTES) -> io.BufferedReader:
    """Pieces as a file for reading.

    It is buffered, because a raw file may return fewer bytes than requested, which pyarrow takes
    for the end of the file.
    """
    return io.BufferedReader(_Pieces(pieces), buffer_bytes)


class _Pieces(io.RawIOBase):
    """Reads pieces one after the other. An empty piece is not the end."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)

        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

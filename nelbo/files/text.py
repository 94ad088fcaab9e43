"""Text of any encoding as a stream of UTF-8, checked on the way."""

import codecs
import io
import re
from collections.abc import Iterator
from typing import BinaryIO

from nelbo.errors import InvalidInput
from nelbo.files.source import Source

PIECE_BYTES = 2**20
LINE_BYTES = 2 * 2**20
"""Longest line, CSV record or cell that is read."""
BATCH_BYTES = 16 * 2**20
"""Size from which on a batch has fewer rows than it might."""

_UNDEFINED_IN_1252 = re.compile(rb"[\x00-\x08\x0b\x0e-\x1f\x7f\x81\x8d\x8f\x90\x9d]")
_BEYOND_ASCII_IN_UTF_8 = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")


def encoding_of(source: Source) -> str:
    """UTF-8 or UTF-16 by the byte order mark, else UTF-8, or Windows-1252 where only that is plausible."""
    if source.sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(source.sample, final=source.whole)
    except UnicodeDecodeError:
        strange = _UNDEFINED_IN_1252.search(source.sample) or _BEYOND_ASCII_IN_UTF_8.search(source.sample)
        return "utf-8" if strange else "cp1252"
    return "utf-8"


def known_encoding(name: str) -> str:
    """The encoding, if Python knows it as one of text."""
    try:
        codecs.getincrementaldecoder(name)().decode(b"")
        "".encode(name)
    except (LookupError, AttributeError, UnicodeError, TypeError):
        raise InvalidInput(f"{name!r} is no encoding of text; give one such as utf-8, utf-16 or cp1252") from None
    return name


def utf_8(source: Source, encoding: str) -> io.BufferedReader:
    """The source from its start as UTF-8 without a byte order mark. Reading raises InvalidInput for broken text."""
    return io.BufferedReader(_Pieces(_utf_8_pieces(source.reading(), encoding, source.name)), PIECE_BYTES)


def sample_text(source: Source, encoding: str) -> str:
    """The whole lines of the sample, as far as they can be decoded."""
    text = codecs.getincrementaldecoder(encoding)(errors="replace").decode(source.sample, final=source.whole)
    text = text.removeprefix("\ufeff")
    return text if source.whole else text[: text.rfind("\n") + 1] or text


def _utf_8_pieces(stream: BinaryIO, encoding: str, name: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    lines, start = 1, True
    while True:
        raw = stream.read(PIECE_BYTES)
        try:
            text = decoder.decode(raw, final=not raw)
        except UnicodeError as problem:
            at = problem.start if isinstance(problem, UnicodeDecodeError) else 0
            raise _broken(name, lines + raw[:at].count(b"\n"), encoding, raw[at : at + 1]) from None
        if "\0" in text:
            raise _binary(name, lines + text[: text.index("\0")].count("\n"))
        if start and text:
            text, start = text.removeprefix("\ufeff"), False
        lines += text.count("\n")
        if text:
            yield text.encode()
        if not raw:
            return


def _broken(name: str, line: int, encoding: str, byte: bytes) -> InvalidInput:
    what = f"the byte 0x{byte.hex()} there" if byte else "its end"
    return InvalidInput(
        f"line {line} of {name} has a broken encoding: {what} is not {encoding} text; "
        "save the table as UTF-8, or give the encoding it has"
    )


def _binary(name: str, line: int) -> InvalidInput:
    return InvalidInput(
        f"line {line} of {name} has a broken encoding: it holds NUL bytes, which text never does; "
        "save the table as UTF-8, or give the encoding it has, such as utf-16-le"
    )


class _Pieces(io.RawIOBase):
    """A stream over pieces of bytes."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # what BufferedReader passes
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

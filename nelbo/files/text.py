"""Text of any encoding as a stream of UTF-8, checked on the way, and pieces of it from all over the
file."""

import codecs
import io
import re
from collections.abc import Iterator

from nelbo.errors import InvalidInput
from nelbo.files.source import Source
from nelbo.streams import PIECE_BYTES, as_file

LINE_BYTES = 2 * 2**20
"""Longest line, CSV record or cell that is read."""
BATCH_BYTES = 16 * 2**20
"""Size from which on a batch has fewer rows than it might."""

_PLACES = 32
_PLACE_BYTES = 2**16
"""Number and size of the places that detection looks at behind the beginning of a file."""
_NOT_OF_FILES = frozenset({"idna", "punycode", "unicode-escape", "raw-unicode-escape"})
"""Encodings of host names, whose decoders take quadratic time, and of Python's own notation."""
_UNDEFINED_IN_1252 = re.compile(rb"[\x00-\x08\x0b\x0e-\x1f\x7f\x81\x8d\x8f\x90\x9d]")
_BEYOND_ASCII_IN_UTF_8 = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)


def encoding_of(source: Source) -> str:
    """The encoding by the byte order mark, else UTF-16 by its zeros, else UTF-8 or Windows-1252 by
    what is plausible.

    "ascii" says that the first MiB is nothing else: the first byte beyond tells UTF-8 from
    Windows-1252.
    """
    sample = source.sample
    if sample.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" in sample:
        return _utf_16_without_mark(sample) or "utf-8"
    return "ascii" if sample.isascii() else _utf_8_or_1252(sample, source.whole)


def _utf_16_without_mark(sample: bytes) -> str | None:
    """UTF-16 of mostly Latin text: every other byte is zero."""
    size = len(sample) // 2
    first, second = sample[0 : 2 * size : 2].count(0), sample[1 : 2 * size : 2].count(0)
    if len(sample) % 2 or max(first, second) < 0.7 * size or min(first, second) > 0.01 * size:
        return None
    return "utf-16-le" if second > first else "utf-16-be"


def _utf_8_or_1252(content: bytes, final: bool) -> str:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(content, final=final)
    except UnicodeDecodeError:
        strange = _UNDEFINED_IN_1252.search(content) or _BEYOND_ASCII_IN_UTF_8.search(content)
        return "utf-8" if strange else "cp1252"
    return "utf-8"


def known_encoding(name: str) -> str:
    """The encoding, if Python knows it as one of text files."""
    try:
        codecs.getincrementaldecoder(name)().decode(b"")
        "".encode(name)
        of_files = codecs.lookup(name).name not in _NOT_OF_FILES
    except (LookupError, AttributeError, ValueError, TypeError):
        of_files = False
    if not of_files:
        raise InvalidInput(
            f"{name!r} is no encoding of text; give one such as utf-8, utf-16 or cp1252"
        )
    return name


def utf_8(source: Source, encoding: str) -> io.BufferedReader:
    """The source from its start as UTF-8 without a byte order mark. Reading raises InvalidInput for
    broken text."""
    encoding = "utf-8" if encoding == "ascii" else encoding
    return as_file(utf_8_pieces(source, encoding, set()))


def sample_text(source: Source, encoding: str) -> str:
    """The whole lines of the sample, as far as they can be decoded."""
    text = _decoded(source.sample, encoding, source.name, final=source.whole).removeprefix("\ufeff")
    return text if source.whole else text[: _last_line_end(text)] or text


def spread_texts(source: Source, encoding: str) -> list[str]:
    """Whole lines from all over the file: the first MiB, and 64 KiB from each of 32 places behind
    the first of them.

    A file of one MiB has no such places. The last place is the end of the file.
    """
    texts = [sample_text(source, encoding)]
    if source.whole:
        return texts
    encoding = _of_the_middle(encoding, source.sample)
    stream = source.reading()
    size = stream.seek(0, io.SEEK_END)
    step = (size - _PLACE_BYTES) // _PLACES
    for end in range(size, 2 * _PLACE_BYTES, -step):
        start = (end - _PLACE_BYTES) // 4 * 4  # where a character of UTF-16 and UTF-32 begins
        stream.seek(start)
        text = _decoded(stream.read(end - start), encoding, source.name, final=False)
        begin = _first_line_end(text)
        texts.insert(1, text[begin:] if end == size else text[begin : _last_line_end(text)])
    return texts


def _decoded(content: bytes, encoding: str, name: str, final: bool) -> str:
    encoding = "utf-8" if encoding == "ascii" else encoding
    try:
        text = codecs.getincrementaldecoder(encoding)(errors="replace").decode(content, final=final)
        return text.encode(errors="replace").decode()  # UTF-7 can spell half of a surrogate pair
    except (
        UnicodeError
    ) as problem:  # what cannot be replaced: UTF-16 and UTF-32 need a byte order mark
        raise InvalidInput(
            f"{name} has a broken encoding: it is not {encoding} text ({problem}); save the table"
            " as UTF-8, or give the"
            " encoding it has, such as utf-16-le"
        ) from None


def _of_the_middle(encoding: str, sample: bytes) -> str:
    """The encoding of text that begins behind the byte order mark."""
    plain = codecs.lookup(encoding).name
    if plain not in ("utf-16", "utf-32"):
        return encoding
    return (
        f"{plain}-be"
        if sample.startswith((codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE))
        else f"{plain}-le"
    )


def _first_line_end(text: str) -> int:
    return (text.find("\n") if "\n" in text else text.find("\r")) + 1


def _last_line_end(text: str) -> int:
    return max(text.rfind("\n"), text.rfind("\r")) + 1


def utf_8_pieces(source: Source, encoding: str, notices: set[str]) -> Iterator[bytes]:
    """The source from its start in pieces of UTF-8; `notices` gets what is found out on the way."""
    stream, name = source.reading(), source.name
    decoder = codecs.getincrementaldecoder(encoding)()
    lines, start = 1, True
    while True:
        raw = stream.read(PIECE_BYTES)
        if encoding == "ascii" and not raw.isascii():
            encoding = _utf_8_or_1252(raw, final=False)
            decoder = codecs.getincrementaldecoder(encoding)()
            notices.update(notices_of(encoding))
        try:
            text = decoder.decode(raw, final=not raw)
            piece = (text.removeprefix("\ufeff") if start else text).encode()
        except UnicodeDecodeError as problem:
            at = problem.start
            what = f"the byte 0x{raw[at]:02x} there" if at < len(raw) else "its end"
            raise _broken(name, lines + raw[:at].count(b"\n"), encoding, what) from None
        except UnicodeError:  # half of a surrogate pair
            raise _broken(
                name, lines, encoding, "a part of a character there or further down"
            ) from None
        if "\0" in text:
            raise _binary(name, lines + text[: text.index("\0")].count("\n"))
        start = start and not text
        lines += text.count("\n")
        if piece:
            yield piece
        if not raw:
            return


def notices_of(encoding: str) -> list[str]:
    """What a user should know about an encoding that was detected."""
    if encoding == "cp1252":
        return [
            "the text is not UTF-8 and is read as Windows-1252; --encoding NAME reads it otherwise"
        ]
    if encoding.startswith("utf-16-"):
        return [
            f"the text has no byte order mark and is read as {encoding.upper()}; --encoding NAME"
            " reads it otherwise"
        ]
    return []


def _broken(name: str, line: int, encoding: str, what: str) -> InvalidInput:
    return InvalidInput(
        f"line {line} of {name} has a broken encoding: {what} is not {encoding} text; "
        "save the table as UTF-8, or give the encoding it has"
    )


def _binary(name: str, line: int) -> InvalidInput:
    return InvalidInput(
        f"line {line} of {name} has a broken encoding: it holds NUL bytes, which text never does; "
        "save the table as UTF-8, or give the encoding it has, such as utf-16-le"
    )

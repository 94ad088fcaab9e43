"""Text in any encoding as a checked stream of UTF-8, and samples from all over a file."""

import codecs
import io
import re
from collections.abc import Iterator

from nelbo.errors import InvalidInput
from nelbo.files.source import Source
from nelbo.streams import PIECE_BYTES, as_file

LINE_BYTES = 2 * 2**20
"""Largest size of a line, a CSV record or a cell."""
BATCH_BYTES = 16 * 2**20
"""A batch of about this size gets no more rows."""

_SPOTS = 32
"""Detection reads this number of spots behind the beginning of a file."""
_SPOT_BYTES = 2**16
_NOT_OF_FILES = frozenset({"idna", "punycode", "unicode-escape", "raw-unicode-escape"})
"""Encodings of host names, whose decoders take quadratic time, and of Python's own notation."""
_UNDEFINED_IN_1252 = re.compile(rb"[\x00-\x08\x0b\x0e-\x1f\x7f\x81\x8d\x8f\x90\x9d]")
_BEYOND_ASCII_IN_UTF_8 = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)


def encoding_of(source: Source) -> str:
    """The encoding of a text, from its first MiB.

    The byte order mark decides, then the zero bytes of UTF-16, then whether the bytes are valid
    UTF-8; other text is Windows-1252. "ascii" means that the first MiB is ASCII: the first other
    byte behind it will tell UTF-8 from Windows-1252.
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
    even_zeros = sample[0 : 2 * size : 2].count(0)
    odd_zeros = sample[1 : 2 * size : 2].count(0)
    few, many = sorted((even_zeros, odd_zeros))
    if len(sample) % 2 or many < 0.7 * size or few > 0.01 * size:
        return None
    return "utf-16-le" if odd_zeros > even_zeros else "utf-16-be"


def _utf_8_or_1252(content: bytes, final: bool) -> str:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(content, final=final)
    except UnicodeDecodeError:
        strange = _UNDEFINED_IN_1252.search(content) or _BEYOND_ASCII_IN_UTF_8.search(content)
        return "utf-8" if strange else "cp1252"
    return "utf-8"


def known_encoding(name: str) -> str:
    """The name of an encoding. Raises InvalidInput unless Python has it as one of text files."""
    try:
        codecs.getincrementaldecoder(name)().decode(b"")
        "".encode(name)
        is_for_files = codecs.lookup(name).name not in _NOT_OF_FILES
    except (LookupError, AttributeError, ValueError, TypeError):
        is_for_files = False
    if not is_for_files:
        raise InvalidInput(
            f"{name!r} is not a text encoding; give one such as utf-8, utf-16 or cp1252"
        )
    return name


def utf_8(source: Source, encoding: str) -> io.BufferedReader:
    """The source from its start as UTF-8 without a byte order mark.

    Reading raises InvalidInput for broken text.
    """
    encoding = "utf-8" if encoding == "ascii" else encoding
    return as_file(utf_8_pieces(source, encoding, set()))


def sample_text(source: Source, encoding: str) -> str:
    """The whole lines of the sample, with a replacement for each byte that cannot be decoded."""
    text = _decoded(source.sample, encoding, source.name, final=source.whole).removeprefix("\ufeff")
    return text if source.whole else text[: _last_line_end(text)] or text


def spread_texts(source: Source, encoding: str) -> list[str]:
    """Whole lines from all over a file: the first MiB, and 64 KiB from each of 32 spots.

    The last spot is the end of the file. A file of at most one MiB has no spots.
    """
    texts = [sample_text(source, encoding)]
    if source.whole:
        return texts
    encoding = _without_mark(encoding, source.sample)
    stream = source.reading()
    size = stream.seek(0, io.SEEK_END)
    step = (size - _SPOT_BYTES) // _SPOTS
    for end in range(size, 2 * _SPOT_BYTES, -step):
        start = (end - _SPOT_BYTES) // 4 * 4  # characters of UTF-16 and UTF-32 begin there
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
    except UnicodeError as problem:  # UTF-16 or UTF-32 without a byte order mark
        raise InvalidInput(
            f"{name} has a broken encoding: it is not {encoding} text ({problem}); save the table"
            " as UTF-8, or give the encoding it has, such as utf-16-le"
        ) from None


def _without_mark(encoding: str, sample: bytes) -> str:
    """The encoding of text in the middle of the file, which has no byte order mark."""
    name = codecs.lookup(encoding).name
    if name not in ("utf-16", "utf-32"):
        return encoding
    is_big = sample.startswith((codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE))
    return f"{name}-be" if is_big else f"{name}-le"


def _first_line_end(text: str) -> int:
    return (text.find("\n") if "\n" in text else text.find("\r")) + 1


def _last_line_end(text: str) -> int:
    return max(text.rfind("\n"), text.rfind("\r")) + 1


def utf_8_pieces(source: Source, encoding: str, notices: set[str]) -> Iterator[bytes]:
    """The source from its start in pieces of UTF-8.

    If the encoding is detected on the way, the notices about it are added to `notices`.
    """
    stream = source.reading()
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    is_start = True
    while True:
        raw = stream.read(PIECE_BYTES)
        if encoding == "ascii" and not raw.isascii():
            encoding = _utf_8_or_1252(raw, final=False)
            decoder = codecs.getincrementaldecoder(encoding)()
            notices.update(notices_of(encoding))
        try:
            text = decoder.decode(raw, final=not raw)
            piece = (text.removeprefix("\ufeff") if is_start else text).encode()
        except UnicodeError as problem:
            raise _broken(raw, source.name, line, encoding, problem) from None
        if "\0" in text:
            raise _binary(source.name, line + text[: text.index("\0")].count("\n"))
        is_start = is_start and not text
        line += text.count("\n")
        if piece:
            yield piece
        if not raw:
            return


def notices_of(encoding: str) -> list[str]:
    """Notices about an encoding that was detected."""
    if encoding == "cp1252":
        return [
            "the text is not UTF-8 and is read as Windows-1252; --encoding NAME selects another"
            " encoding"
        ]
    if encoding.startswith("utf-16-"):
        return [
            f"the text has no byte order mark and is read as {encoding.upper()}; --encoding NAME"
            " selects another encoding"
        ]
    return []


def _broken(raw: bytes, name: str, line: int, encoding: str, problem: UnicodeError) -> InvalidInput:
    """The error for bytes that cannot be decoded. line: number of the first line in `raw`."""
    if isinstance(problem, UnicodeDecodeError):
        start = problem.start
        line += raw[:start].count(b"\n")
        part = f"the byte 0x{raw[start]:02x} there" if start < len(raw) else "its end"
    else:  # half of a surrogate pair
        part = "a part of a character there or further down"
    return InvalidInput(
        f"line {line} of {name} has a broken encoding: {part} is not {encoding} text; save the"
        " table as UTF-8, or give the encoding it has"
    )


def _binary(name: str, line: int) -> InvalidInput:
    return InvalidInput(
        f"line {line} of {name} has a broken encoding: it holds NUL bytes, which text never does;"
        " save the table as UTF-8, or give the encoding it has, such as utf-16-le"
    )

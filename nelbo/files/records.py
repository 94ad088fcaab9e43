"""Where the records of a CSV file end: the file in blocks of whole records.

Arrow's own reader of streams reads ahead in threads. One that calls into Python while the
interpreter ends aborts the process, so Arrow gets blocks of memory instead, each cut where a record
ends.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nelbo.errors import InvalidInput
from nelbo.files.text import LINE_BYTES

_QUOTE, _LF, _CR = b'"\n\r'


def blocks(
    pieces: Iterator[bytes], delimiters: bytes, name: str, line: int
) -> Iterator[tuple[bytes, int, bool]]:
    """Blocks of whole records, the number of each one's first line, and whether it is the last.

    delimiters: the bytes of which each ends a cell. line: number of the first line that the pieces
    hold.
    """
    block = rest = b""
    for piece in pieces:
        rest += piece
        end = _last_end(rest, delimiters)
        if end:
            if block:
                yield block, line, False
                line += count_lines(block)
            block, rest = rest[:end], rest[end:]
        elif len(rest) >= LINE_BYTES:
            line += count_lines(block)
            raise InvalidInput(
                f"line {line} of {name} has more than {LINE_BYTES >> 20} MiB; is there a quote that"
                " is never closed?"
            )
    quotes = _quotes(rest, delimiters)
    if len(quotes) % 2:
        at = len(quotes) - 1
        while at > 1 and quotes[at] == quotes[at - 1] + 1:  # a doubled quote within the cell
            at -= 2
        start = int(quotes[at])
        cell = rest[start : start + 40].decode(errors="replace")
        line += count_lines(block) + count_lines(rest[:start])
        raise InvalidInput(
            f"line {line} of {name} has a quote that is never closed: {cell!r}; close it"
        )
    yield block + rest, line, True


def count_lines(content: bytes) -> int:
    return content.count(b"\n") or content.count(b"\r")


def _last_end(block: bytes, delimiters: bytes) -> int:
    """Bytes up to the end of the last whole record."""
    last = max(block.rfind(b"\n"), block.rfind(b"\r"))
    quotes = _quotes(block, delimiters)
    if last < 0 or np.searchsorted(quotes, last) % 2 == 0:
        return last + 1
    content = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero((content == _LF) | (content == _CR))
    outside = ends[np.searchsorted(quotes, ends) % 2 == 0]
    return int(outside[-1]) + 1 if len(outside) else 0


def _quotes(block: bytes, delimiters: bytes) -> NDArray[np.int64]:
    """The places of the quotes that open and close cells, by turns. A quote within an unquoted cell
    is a character."""
    if b'"' not in block:
        return np.empty(0, np.int64)
    content = np.frombuffer(block, np.uint8)
    quotes = np.flatnonzero(content == _QUOTE)
    opens = np.zeros(256, bool)
    opens[[*delimiters, _LF, _CR, _QUOTE]] = True
    if opens[
        content[np.maximum(quotes[::2] - 1, 0)]
    ].all():  # the first byte, if it is a quote, has none before it
        return quotes
    before = content[np.maximum(quotes - 1, 0)]
    doubled = (before == _QUOTE) & (quotes > 0)
    return quotes[_of_cells((opens[before] & ~doubled).tolist(), doubled.tolist())]


def _of_cells(starts: list[bool], doubled: list[bool]) -> list[int]:
    """Which quotes open and close cells, one after the other: where some are characters, turns do
    not tell."""
    found: list[int] = []
    inside, closed = False, -2
    for at, (start, double) in enumerate(zip(starts, doubled, strict=True)):
        if inside:
            inside, closed = False, at
            found.append(at)
        elif start or (double and closed == at - 1):
            inside = True
            found.append(at)
    return found

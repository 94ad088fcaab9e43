"""A CSV file in blocks of whole records.

Arrow's own stream reader reads ahead in threads. A thread that calls into Python while the
interpreter ends aborts the process. Arrow therefore gets blocks of memory, each cut where a record
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
    """Blocks of whole records, the number of each block's first line, and whether it is the last.

    delimiters: the bytes that each end a cell.
    line: number of the first line in the pieces.
    """
    block = rest = b""
    for piece in pieces:
        rest += piece
        end = _last_end(rest, delimiters)
        if end:
            if block:
                yield block, line, False
                line += count_lines(block)
            block = rest[:end]
            rest = rest[end:]
        elif len(rest) >= LINE_BYTES:
            line += count_lines(block)
            raise InvalidInput(
                f"line {line} of {name} has more than {LINE_BYTES >> 20} MiB; is there a quote"
                " that is never closed?"
            )

    start = _open_quote(rest, delimiters)
    if start is not None:
        cell = rest[start : start + 40].decode(errors="replace")
        line += count_lines(block) + count_lines(rest[:start])
        raise InvalidInput(
            f"line {line} of {name} has a quote that is never closed: {cell!r}; close it"
        )
    yield block + rest, line, True


def _open_quote(block: bytes, delimiters: bytes) -> int | None:
    """The position of a quote that is never closed."""
    quotes = _quotes(block, delimiters)
    if len(quotes) % 2 == 0:
        return None
    last = len(quotes) - 1
    while last > 1 and quotes[last] == quotes[last - 1] + 1:  # a doubled quote within the cell
        last -= 2
    return int(quotes[last])


def count_lines(content: bytes) -> int:
    return content.count(b"\n") or content.count(b"\r")


def _last_end(block: bytes, delimiters: bytes) -> int:
    """The number of bytes up to the end of the last whole record."""
    last = max(block.rfind(b"\n"), block.rfind(b"\r"))
    quotes = _quotes(block, delimiters)
    if last < 0 or np.searchsorted(quotes, last) % 2 == 0:
        return last + 1
    content = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero((content == _LF) | (content == _CR))
    outside = ends[np.searchsorted(quotes, ends) % 2 == 0]
    return int(outside[-1]) + 1 if len(outside) else 0


def _quotes(block: bytes, delimiters: bytes) -> NDArray[np.int64]:
    """The positions of the quotes that open and close cells, in turn.

    A quote within an unquoted cell is an ordinary character and not among them.
    """
    if b'"' not in block:
        return np.empty(0, np.int64)
    content = np.frombuffer(block, np.uint8)
    quotes = np.flatnonzero(content == _QUOTE)
    opens = np.zeros(256, bool)
    opens[[*delimiters, _LF, _CR, _QUOTE]] = True
    # A quote in the first byte has no byte before it and counts as its own: it opens a cell.
    before = content[np.maximum(quotes - 1, 0)]
    if opens[before[::2]].all():
        return quotes
    doubled = (before == _QUOTE) & (quotes > 0)
    return quotes[_of_cells((opens[before] & ~doubled).tolist(), doubled.tolist())]


def _of_cells(starts: list[bool], doubled: list[bool]) -> list[int]:
    """The indices of the quotes that open and close cells, where other quotes are characters.

    starts: whether a quote follows the end of a cell or line. doubled: whether it follows a quote.
    """
    indices: list[int] = []
    inside = False
    closed = -2
    for index, (start, double) in enumerate(zip(starts, doubled, strict=True)):
        if inside:
            inside = False
            closed = index
            indices.append(index)
        elif start or (double and closed == index - 1):
            inside = True
            indices.append(index)
    return indices

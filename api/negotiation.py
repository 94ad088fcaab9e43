"""Which of the four formats a client wants, and an answer in it that streams at bounded memory."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, cast

import pyarrow as pa
from starlette.datastructures import Headers

from nelbo.errors import NotAcceptable
from nelbo.files import open_writer

Format = Literal["parquet", "arrow", "csv", "jsonl"]
PIECE_BYTES = 256 * 2**10
"""What is handed to a connection at once. A reader that leaves one unread for
`connections.UNREAD_S` is cut off: one that is slow is not, down to 4 KiB a second."""
MEDIA_TYPES: dict[Format, str] = {
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.stream",
    "csv": "text/csv",
    "jsonl": "application/x-ndjson",
}
_ALIASES: dict[str, Format] = {"application/jsonl": "jsonl", "application/parquet": "parquet"}
_BY_MEDIA_TYPE: dict[str, Format] = {media: name for name, media in MEDIA_TYPES.items()} | _ALIASES


def wanted(accept: str | None) -> Format:
    """The format that an Accept header prefers, Parquet where it does not matter. Raises
    NotAcceptable."""
    ranges = sorted(_ranges(accept or "*/*"), key=lambda found: -found.quality)
    for found in ranges:
        if found.quality > 0 and (name := _match(found.media)):
            return name
    known = ", ".join(MEDIA_TYPES.values())
    raise NotAcceptable(f"results do not come as {accept}; ask for one of {known}, or use ?format=")


@dataclass(frozen=True)
class _Range:
    media: str
    quality: float


def _ranges(accept: str) -> Iterator[_Range]:
    for part in accept.split(","):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        given = [parameter[2:] for parameter in parameters if parameter.startswith("q=")]
        try:
            yield _Range(media, float(given[0]) if given else 1.0)
        except ValueError:
            yield _Range(media, 0.0)


def _match(media: str) -> Format | None:
    if media in _BY_MEDIA_TYPE:
        return _BY_MEDIA_TYPE[media]
    group, _, member = media.partition("/")
    if member != "*":
        return None
    return next(
        (name for name, known in MEDIA_TYPES.items() if group in ("*", known.partition("/")[0])),
        None,
    )


def for_people(headers: Headers) -> bool:
    """Whether a browser asks, so that a spreadsheet may open the answer: it says how it fetches, or
    that it likes pages."""
    return (
        "sec-fetch-mode" in headers
        or "sec-fetch-dest" in headers
        or "text/html" in headers.get("accept", "")
    )


def encoded(
    batches: Iterator[pa.RecordBatch], format: Format, safe_csv: bool = False
) -> Iterator[memoryview]:
    """The batches as a file of this format, in pieces of at most PIECE_BYTES: what is in memory is
    one batch and its bytes."""
    sink = _Sink()  # a RawIOBase that takes all it is given
    with open_writer(cast(BinaryIO, sink), format=format, safe_csv=safe_csv) as writer:
        for batch in batches:
            writer.write(batch)
            yield from _pieces(sink.taken())
    yield from _pieces(sink.taken())


def _pieces(content: bytes) -> Iterator[memoryview]:
    view = memoryview(content)
    return (view[at : at + PIECE_BYTES] for at in range(0, len(content), PIECE_BYTES))


class _Sink(io.RawIOBase):
    """A file that only remembers what was written since someone looked."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        self._position += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._position

    def taken(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)

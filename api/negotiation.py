"""The format of results that a client prefers, and an answer that streams in it.

The Accept header is parsed here: werkzeug would do it, but is a large dependency for twenty lines.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, BinaryIO, Literal, cast

import pyarrow as pa
from starlette.datastructures import Headers

from nelbo.errors import NotAcceptable
from nelbo.files import open_writer

Format = Literal["parquet", "arrow", "csv", "jsonl"]
PIECE_BYTES = 256 * 2**10
"""Maximum size of a piece that a connection receives at once.

A client is cut off if it leaves a piece unread for `connections.UNREAD_S`: not if it reads at least
4 KiB a second.
"""
MEDIA_TYPES: dict[Format, str] = {
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.stream",
    "csv": "text/csv",
    "jsonl": "application/x-ndjson",
}
_ALIASES: dict[str, Format] = {"application/jsonl": "jsonl", "application/parquet": "parquet"}
_BY_MEDIA_TYPE: dict[str, Format] = {media: name for name, media in MEDIA_TYPES.items()} | _ALIASES


def preferred_format(accept: str | None) -> Format:
    """The format that an Accept header prefers; Parquet if it accepts everything.

    Raises NotAcceptable if it accepts none of the formats.
    """
    ranges = sorted(_ranges(accept or "*/*"), key=attrgetter("quality"), reverse=True)
    for media_range in ranges:
        name = _match(media_range.media)
        if name is not None and media_range.quality > 0:
            return name
    available = ", ".join(MEDIA_TYPES.values())
    raise NotAcceptable(
        f"results are not available as {accept}; accept one of {available}, or use ?format="
    )


@dataclass(frozen=True)
class _Range:
    """One range of an Accept header: a media type, with or without wildcards, and its weight."""

    media: str
    quality: float


def _ranges(accept: str) -> Iterator[_Range]:
    for part in accept.split(","):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weights = [parameter[2:] for parameter in parameters if parameter.startswith("q=")]
        try:
            yield _Range(media, float(weights[0]) if weights else 1.0)
        except ValueError:
            yield _Range(media, 0.0)


def _match(media: str) -> Format | None:
    if media in _BY_MEDIA_TYPE:
        return _BY_MEDIA_TYPE[media]
    group, _, member = media.partition("/")
    if member != "*":
        return None
    for name, media_type in MEDIA_TYPES.items():
        if group in ("*", media_type.partition("/")[0]):
            return name
    return None


def for_people(headers: Headers) -> bool:
    """Whether the request comes from a browser, so that a spreadsheet may open the answer.

    A browser sends Sec-Fetch headers, or accepts HTML.
    """
    return (
        "sec-fetch-mode" in headers
        or "sec-fetch-dest" in headers
        or "text/html" in headers.get("accept", "")
    )


def encoded(
    batches: Iterator[pa.RecordBatch], format: Format, safe_csv: bool = False
) -> Iterator[memoryview]:
    """The batches as a file in this format, in pieces of at most PIECE_BYTES.

    Only one batch and its bytes are in memory at a time.
    """
    sink = _UnsentBytes()
    # A RawIOBase is a BinaryIO as far as writers use it.
    with open_writer(cast(BinaryIO, sink), format=format, safe_csv=safe_csv) as writer:
        for batch in batches:
            writer.write(batch)
            yield from _pieces(sink.take())
    yield from _pieces(sink.take())


def _pieces(content: bytes) -> Iterator[memoryview]:
    view = memoryview(content)
    return (view[start : start + PIECE_BYTES] for start in range(0, len(content), PIECE_BYTES))


class _UnsentBytes(io.RawIOBase):
    """A file to write to. It holds only the bytes since the last `take`."""

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

    def take(self) -> bytes:
        content = b"".join(self._pieces)
        self._pieces = []
        return content

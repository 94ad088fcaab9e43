"""Formats by what a client accepts, and streams of results: piece by piece, at bounded memory."""

from collections.abc import Iterator

import pyarrow as pa
import pytest

from api.negotiation import MEDIA_TYPES, Format, encoded, preferred_format
from nelbo.errors import NotAcceptable


@pytest.mark.parametrize("format", MEDIA_TYPES)
def test_a_piece_leaves_before_the_next_batch_is_asked_for(format: Format) -> None:
    asked = 0

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal asked
        for _ in range(100):
            asked += 1
            yield pa.record_batch(
                [pa.array(range(10_000)), pa.array(["abc"] * 10_000)], names=["row", "text"]
            )

    pieces = encoded(batches(), format)
    next(pieces)
    assert asked <= 2
    sizes = [len(piece) for piece in pieces]
    assert asked == 100
    assert len(sizes) >= 98
    assert max(sizes) < 400_000


def test_whoever_leaves_early_closes_the_stream() -> None:
    closed = False

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal closed
        try:
            while True:
                yield pa.record_batch({"row": pa.array([1])})
        finally:
            closed = True

    source = batches()
    pieces = encoded(source, "csv")
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]  # a generator, by its making
    source.close()  # type: ignore[attr-defined]
    assert closed


@pytest.mark.parametrize(
    ("accept", "format"),
    [
        (None, "parquet"),
        ("*/*", "parquet"),
        ("text/*", "csv"),
        ("text/csv;q=0.5, application/x-ndjson;q=0.9", "jsonl"),
        ("text/html, application/vnd.apache.arrow.stream", "arrow"),
        ("TEXT/CSV; charset=utf-8", "csv"),
        ("application/jsonl", "jsonl"),
        ("text/csv;q=0, */*;q=0.1", "parquet"),
    ],
)
def test_the_format_is_what_the_client_likes_best(accept: str | None, format: Format) -> None:
    assert preferred_format(accept) == format


@pytest.mark.parametrize("accept", ["text/html", "text/csv;q=0", "text/csv;q=many", "csv", ","])
def test_a_format_that_results_do_not_have_is_refused_with_those_they_have(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="text/csv, application/x-ndjson"):
        preferred_format(accept)

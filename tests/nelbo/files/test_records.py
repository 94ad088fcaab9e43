"""Blocks of whole records: a CSV file reads the same however it is cut."""

import csv
import io
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nelbo.errors import InvalidInput
from nelbo.files.records import blocks


def _records(text: str, delimiter: str) -> list[list[str]]:
    return [
        record
        for record in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        if record
    ]


def _pieces(content: bytes, size: int) -> Iterator[bytes]:
    return (content[start : start + size] for start in range(0, len(content), size))


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.text('a1,"\n\r', max_size=40), st.integers(1, 12), st.sampled_from([",", ";"]))
def test_blocks_hold_the_records_of_the_whole(text: str, size: int, delimiter: str) -> None:
    """Also where quotes are characters of a cell, or are never closed."""
    content = (text.replace(",", delimiter) + "\n").encode()
    try:
        pieces = list(blocks(_pieces(content, size), delimiter.encode(), "table.csv", 1))
    except InvalidInput:  # a quote is open at the end
        assert _records(content.decode() + '"\n' + "end", delimiter)[-1] == ["end"]
        return
    assert b"".join(block for block, _, _ in pieces) == content
    read = [record for block, _, _ in pieces for record in _records(block.decode(), delimiter)]
    assert read == _records(content.decode(), delimiter)
    assert [last for _, _, last in pieces] == [False] * (len(pieces) - 1) + [True]


def test_blocks_know_their_first_line() -> None:
    content = b'a,"x\ny"\n' * 9
    lines = [line for _, line, _ in blocks(_pieces(content, 9), b",", "table.csv", 3)]
    assert lines == list(range(3, 3 + 2 * len(lines), 2))
    assert len(lines) > 5


@pytest.mark.parametrize("text", ['1,2\n3,"4\n5,6\n', '1,2\n3,"4""\n5,6\n'])
def test_a_quote_that_is_never_closed_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(
        InvalidInput, match=r"line 2 of table\.csv has a quote that is never closed: '\"4"
    ):
        list(blocks(_pieces(text.encode(), 3), b",", "table.csv", 1))

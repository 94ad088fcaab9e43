"""Pieces of bytes as a file, and a file as pieces."""

import io

import pytest

from nelbo.streams import as_file, pieces_of

CONTENT = bytes(range(256)) * 5


@pytest.mark.parametrize("size", [1, 7, 1_280, 5_000])
def test_a_file_in_pieces_is_the_same_file_again(size: int) -> None:
    pieces = list(pieces_of(io.BytesIO(CONTENT), size))
    assert max(map(len, pieces)) <= size
    assert as_file(iter(pieces)).read() == CONTENT


def test_an_empty_piece_is_not_the_end() -> None:
    assert as_file(iter([b"", b"a", b"", b"", b"b", b""])).read() == b"ab"


def test_a_read_gets_all_the_bytes_it_asks_for_however_short_the_pieces_are() -> None:
    file = as_file(bytes([byte]) for byte in CONTENT)
    assert file.read(1_000) == CONTENT[:1_000]
    assert file.read() == CONTENT[1_000:]

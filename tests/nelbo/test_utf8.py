"""Text that databases can hold, and text files as people save them."""

import codecs
from pathlib import Path

import pytest

from nelbo.errors import InvalidInput
from nelbo.utf8 import clean, read_text


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [("naïve 🙂", "naïve 🙂"), ("a\x00b", "a\ufffdb"), ("half \ud83d", "half ?"), (None, None)],
)
def test_what_a_database_cannot_hold_is_replaced(text: str | None, cleaned: str | None) -> None:
    assert clean(text) == cleaned


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "types.toml"
    path.write_bytes(codecs.BOM_UTF8 + b"a = 1")
    assert read_text(path) == "a = 1"


def test_a_file_that_is_not_utf_8_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "types.toml"
    path.write_bytes(b"a = 1\nb = '\xe9'")
    with pytest.raises(InvalidInput, match=r"types\.toml is not UTF-8 text \(line 2\)"):
        read_text(path)

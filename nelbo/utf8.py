"""Text as UTF-8: small files that people write by hand, and values that databases can hold."""

import codecs
from pathlib import Path
from typing import TypeVar

from nelbo.errors import InvalidInput

_Text = TypeVar("_Text", str, str | None)
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: Path) -> str:
    """The text of a file, without its byte order mark.

    Raises OSError where the file cannot be read, and InvalidInput where it is not UTF-8.
    """
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        what = "UTF-16 text" if content.startswith(_UTF_16) else f"not UTF-8 text (line {line})"
        raise InvalidInput(f"{path} is {what}; save it as UTF-8") from None


def clean(text: _Text) -> _Text:
    """The text with replacements for characters that a database cannot hold.

    These are NUL (PostgreSQL) and lone surrogates (both).
    """
    if text is None:
        return text
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()

"""Small text files that people write by hand: UTF-8, with or without a byte order mark."""

import codecs
from pathlib import Path

from nelbo.errors import InvalidInput

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: Path) -> str:
    """The text of a file. Raises OSError where it cannot be read, InvalidInput where it is not
    UTF-8."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        what = "UTF-16 text" if content.startswith(_UTF_16) else f"not UTF-8 text (line {line})"
        raise InvalidInput(f"{path} is {what}; save it as UTF-8") from None

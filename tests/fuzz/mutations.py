"""Changes to bytes and to JSON values, for inputs of all readers. Randomness comes in as a
generator."""

import struct
from collections.abc import Callable
from random import Random
from typing import Any, TypeVar

MOST_BYTES = 2**15
"""Largest input."""
NUMBERS = (
    0,
    1,
    -1,
    2,
    7,
    127,
    128,
    255,
    256,
    -128,
    2**15,
    2**16 - 1,
    2**31 - 1,
    -(2**31),
    2**32,
    2**53,
    2**63 - 1,
    -(2**63),
)
"""Numbers at the edges of types, which counts, sizes and offsets become."""
TEXTS = (
    "", " ", "\0", "a", "0", "-1", "1e999", "nan", "NaN", "null", "None", "true", "é", "\ufeff",
    "\ud83d\ude00", "\u2028",
    "../x", "/etc/passwd", "..", "a/b", "a\\b", "CON", "x" * 300, '"', "'", ",", ";", "\t", "\n",
    "\r", "=1+1", "%s{0}",
    "9999-12-31", "2024-02-30", "007", "1.234,5", "$1,000", "12:30 PM", "١٢٣", "²", "½", "−5",
    "\u00a0", "\x1f", "İ", "ß",
)  # fmt: skip
"""Texts that readers of names, numbers, dates and paths treat in ways of their own."""
PIECES = (
    *(text.encode(errors="surrogatepass") for text in TEXTS),
    b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\xff\xfe\0\0", b"\xff", b"\x80", b"\xc3\x28",
    b"\x81\x8d", b"\0" * 8,
    b"\xff" * 8, b"PAR1", b"ARROW1", b"PK\x03\x04", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh",
    b"%PDF", b"\r\n", b"\n\n",
)  # fmt: skip

T = TypeVar("T")
Change = Callable[[Random, bytes], bytes]


def changed(rng: Random, content: bytes) -> bytes:
    """The bytes after one to four changes, cut to the largest size."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        content = rng.choice(_CHANGES)(rng, content)
    return content[:MOST_BYTES]


def number(rng: Random, value: int = 0) -> int:
    """Another number: one at an edge, or one near the value."""
    near = (
        value + rng.choice((-1, 1, 8, -8)),
        -value,
        value * 2,
        value // 2,
        value ^ 1 << rng.randrange(63),
    )
    return rng.choice((rng.choice(NUMBERS), rng.choice(near), rng.randrange(100)))


def text(rng: Random, value: str = "") -> str:
    """Another text: one of those above, alone, behind the value or within it."""
    piece, at = rng.choice(TEXTS), rng.randrange(len(value) + 1)
    return rng.choice(
        (piece, value + piece, value[:at] + piece + value[at:], value[:at], value * 2)
    )


def json_value(rng: Random, value: Any) -> Any:
    """A JSON value after a change somewhere within it. Objects are dictionaries, so that no key
    stands twice."""
    inner = (
        list(value)
        if isinstance(value, dict)
        else list(range(len(value)))
        if isinstance(value, list)
        else []
    )
    if inner and rng.random() < 0.8:
        at = rng.choice(inner)
        return _with(value, at, json_value(rng, value[at]))
    return rng.choice(_JSON)(rng, value)


def _with(value: Any, at: Any, item: Any) -> Any:
    return {**value, at: item} if isinstance(value, dict) else [*value[:at], item, *value[at + 1 :]]


def _another_value(rng: Random, value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return rng.choice((True, False, None))
    if isinstance(value, int):
        return number(rng, value)
    if isinstance(value, float):
        return rng.choice(
            (
                0.0,
                -1.0,
                1e308,
                5e-324,
                float("nan"),
                float("inf"),
                value * 2,
                -value,
                int(rng.randrange(9)),
            )
        )
    return text(rng, value) if isinstance(value, str) else value


def _another_type(rng: Random, value: Any) -> Any:
    return rng.choice(
        (None, True, 0, -1, 1.5, 10 ** rng.randrange(400), text(rng), [], {}, [value], {"a": value})
    )


def _fewer_or_more(rng: Random, value: Any) -> Any:
    if isinstance(value, list):
        return taken(rng, value)
    if isinstance(value, dict):
        items = taken(rng, list(value.items()))
        return dict(items) | rng.choice(({}, {text(rng): rng.choice(TEXTS)}))
    return _another_value(rng, value)


def _deep(rng: Random, value: Any) -> Any:
    for _ in range(rng.choice((2, 10, 100))):
        value = rng.choice(([value], {"a": value}))
    return value


_JSON: tuple[Callable[[Random, Any], Any], ...] = (
    _another_value, _another_value, _another_value, _another_type, _fewer_or_more, _fewer_or_more,
    _deep,
)  # fmt: skip


def taken(rng: Random, items: list[T]) -> list[T]:
    """The list with items left out, doubled or in another order."""
    if not items:
        return items
    at = rng.randrange(len(items))
    choice = rng.randrange(5)
    if choice == 0:
        return items[:at] + items[at + 1 :]
    if choice == 1:
        return [*items[:at], items[at], *items[at:]]
    if choice == 2:
        return rng.sample(items, len(items))
    if choice == 3:
        return items[:at]
    other = rng.randrange(len(items))
    return [*items[:at], items[other], *items[at + 1 :]]


# Of bytes


def _range(rng: Random, content: bytes) -> tuple[int, int]:
    start = rng.randrange(len(content) + 1)
    return start, min(len(content), start + rng.choice((1, 2, 4, 16, 64, 500)))


def _flip(rng: Random, content: bytes) -> bytes:
    if not content:
        return b"\0"
    at = rng.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]


def _remove(rng: Random, content: bytes) -> bytes:
    start, end = _range(rng, content)
    return content[:start] + content[end:]


def _repeat(rng: Random, content: bytes) -> bytes:
    start, end = _range(rng, content)
    return content[:start] + content[start:end] * rng.choice((2, 3, 50)) + content[end:]


def _move(rng: Random, content: bytes) -> bytes:
    start, end = _range(rng, content)
    to = rng.randrange(len(content) + 1)
    return content[:to] + content[start:end] + content[to + rng.choice((0, end - start)) :]


def _insert(rng: Random, content: bytes) -> bytes:
    at = rng.randrange(len(content) + 1)
    return content[:at] + rng.choice(PIECES) + content[at + rng.choice((0, 0, 1, 4)) :]


def _cut(rng: Random, content: bytes) -> bytes:
    at = rng.randrange(len(content) + 1)
    return content[:at]


def integer(rng: Random, content: bytes, start: int = 0) -> bytes:
    """A little-endian number at or behind `start` is replaced by another."""
    code = rng.choice(("<B", "<H", "<I", "<I", "<Q"))
    size = struct.calcsize(code)
    if len(content) - start < size:
        return content
    at = rng.randrange(start, len(content) - size + 1)
    value: int = struct.unpack_from(code, content, at)[0]
    return (
        content[:at]
        + (number(rng, value) % (1 << 8 * size)).to_bytes(size, "little")
        + content[at + size :]
    )


_CHANGES: tuple[Change, ...] = (
    _flip,
    _flip,
    _remove,
    _repeat,
    _move,
    _insert,
    _insert,
    _cut,
    integer,
)

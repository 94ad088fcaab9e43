"""JSON Lines: one object in a line, its values as text, numbers as they are written."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from nelbo import cells
from nelbo.errors import InvalidInput
from nelbo.files.formats import Limits
from nelbo.files.source import Source
from nelbo.files.text import BATCH_BYTES, LINE_BYTES, utf_8

_LITERAL: dict[str, Any] = {"parse_int": str, "parse_float": str, "parse_constant": str}
_BOOLEAN = {True: "true", False: "false"}
_read_pairs = json.JSONDecoder(object_pairs_hook=list, **_LITERAL).decode
_read_object = json.JSONDecoder(**_LITERAL).decode


def names_in(source: Source, encoding: str, limits: Limits) -> tuple[list[str], int]:
    """All keys of the file in the order they appear, and its rows: only the end of the file tells."""
    names: dict[str, None] = {}
    rows = 0
    for number, line in _lines(source, encoding):
        names.update(dict.fromkeys(_keys(line, number, source.name)))
        if len(names) > limits.columns:
            break
        rows += 1
    return list(names), rows


def read(source: Source, encoding: str, names: list[str], rows: int) -> Iterator[pa.RecordBatch]:
    """The rows as text in batches of at most `rows`; a key that a line lacks is missing there."""
    for lines in _chunks(_lines(source, encoding), rows):
        objects = [_read_object(line) for line in lines]
        columns = [_texts([value.get(name) for value in objects]) for name in names]
        yield pa.record_batch(columns, names=names)


def _chunks(lines: Iterator[tuple[int, str]], rows: int) -> Iterator[list[str]]:
    """At most `rows` lines each, fewer where they are long."""
    chunk: list[str] = []
    size = 0
    for _, line in lines:
        chunk.append(line)
        size += len(line)
        if len(chunk) == rows or size > BATCH_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _lines(source: Source, encoding: str) -> Iterator[tuple[int, str]]:
    text = utf_8(source, encoding)
    for number in itertools.count(1):
        line = text.readline(LINE_BYTES)
        if len(line) == LINE_BYTES:
            raise InvalidInput(f"line {number} of {source.name} has more than {LINE_BYTES >> 20} MiB")
        if not line:
            return
        if not line.isspace():
            yield number, line.decode().strip()


def _keys(line: str, number: int, name: str) -> list[str]:
    try:
        pairs = _read_pairs(line)
        if "\\ud" in line.lower():
            "".join(text for pair in pairs for text in pair if isinstance(text, str)).encode()
    except RecursionError:
        raise _nested(number, name, "its value") from None
    except ValueError as problem:
        raise InvalidInput(f"line {number} of {name} is not JSON: {problem}; each line must be one JSON object") from None
    if not line.startswith("{"):
        raise InvalidInput(f'line {number} of {name} is not a JSON object; each line must be one, such as {{"age": 39}}')
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InvalidInput(f"line {number} of {name} has the key {twice!r} twice; names must be unique")
    for key, value in pairs:
        if isinstance(value, list):
            raise _nested(number, name, f"the value of {key!r}")
    return keys


def _nested(number: int, name: str, what: str) -> InvalidInput:
    return InvalidInput(
        f"line {number} of {name}: {what} is nested; a cell holds a text, a number, true, false or null; "
        "give each part a key of its own"
    )


def _texts(values: list[Any]) -> cells.Array:
    try:
        return pa.array(values, pa.string())
    except pa.ArrowTypeError:
        return pa.array([_BOOLEAN.get(value, value) for value in values], pa.string())

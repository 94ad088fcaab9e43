"""Reading JSON Lines, or one JSON array of objects: values as text, numbers as written."""

import io
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from nelbo import cells
from nelbo.errors import InvalidInput
from nelbo.files.formats import Limits
from nelbo.files.source import Source
from nelbo.files.text import BATCH_BYTES, LINE_BYTES, sample_text, utf_8
from nelbo.streams import PIECE_BYTES

_LITERAL: dict[str, Any] = {"parse_int": str, "parse_float": str, "parse_constant": str}
_BOOLEAN = {True: "true", False: "false"}
_pairs_decoder = json.JSONDecoder(object_pairs_hook=tuple, **_LITERAL)
_read_object = json.JSONDecoder(**_LITERAL).decode
_BETWEEN = re.compile(r"[\s,]*")


@dataclass(frozen=True)
class JsonKeys:
    """All keys of a file in order of appearance, and the number of its rows.

    left_out: "objects" or "lists" for each key that has nested values.
    """

    names: list[str]
    left_out: dict[str, str]
    rows: int


def keys_of(source: Source, encoding: str, limits: Limits) -> JsonKeys:
    """Read a file to its end for its keys; too many columns end the reading early."""
    names: dict[str, None] = {}
    left_out: dict[str, str] = {}
    rows = 0
    for position, text in _objects(source, encoding):
        for key, value in _pairs(text, position, source.name):
            names[key] = None
            if isinstance(value, list | tuple):
                left_out[key] = "objects" if isinstance(value, tuple) else "lists"
        if len(names) > limits.columns:
            break
        rows += 1
    return JsonKeys(list(names), left_out, rows)


def read(source: Source, encoding: str, names: list[str], rows: int) -> Iterator[pa.RecordBatch]:
    """The rows as text in batches of at most `rows`; absent keys become missing values."""
    for texts in _chunks(_objects(source, encoding), rows):
        try:
            objects = [_read_object(text) for text in texts]
        except RecursionError:
            raise _too_deep("an object", source.name) from None
        columns = [_texts([value.get(name) for value in objects]) for name in names]
        yield pa.record_batch(columns, names=names)


def _chunks(objects: Iterator[tuple[str, str]], rows: int) -> Iterator[list[str]]:
    """The texts of the objects in lists of at most `rows`, fewer if they are long."""
    chunk: list[str] = []
    size = 0
    for _, text in objects:
        chunk.append(text)
        size += len(text)
        if len(chunk) == rows or size > BATCH_BYTES:
            yield chunk
            chunk = []
            size = 0
    if chunk:
        yield chunk


def _objects(source: Source, encoding: str) -> Iterator[tuple[str, str]]:
    """The position of each object in words, such as "line 3", and its text."""
    is_array = sample_text(source, encoding).lstrip().startswith("[")
    return _elements(source, encoding) if is_array else _lines(source, encoding)


def _lines(source: Source, encoding: str) -> Iterator[tuple[str, str]]:
    text = utf_8(source, encoding)
    for number in itertools.count(1):
        line = text.readline(LINE_BYTES)
        if len(line) == LINE_BYTES:
            raise _too_long(f"line {number}", source.name)
        if not line:
            return
        if not line.isspace():
            yield f"line {number}", line.decode().strip()


def _elements(source: Source, encoding: str) -> Iterator[tuple[str, str]]:
    """The elements of the array.

    Memory holds the present element and at most one piece of the file behind it.
    """
    stream = io.TextIOWrapper(utf_8(source, encoding), "utf-8")
    text = stream.read(PIECE_BYTES).lstrip()[1:]
    end = 0
    for number in itertools.count(1):
        while True:
            start = _after(text, end)
            if text.startswith("]", start):
                return
            try:
                end = _pairs_decoder.raw_decode(text, start)[1]
                break
            except RecursionError:
                raise _too_deep(f"object {number}", source.name) from None
            except json.JSONDecodeError as problem:
                if len(text) - start > LINE_BYTES:
                    raise _too_long(f"object {number}", source.name) from None
                piece = stream.read(PIECE_BYTES)
                if not piece:
                    raise _cut_off(number, source.name, problem) from None
                text = text[start:] + piece
                end = 0
        if end - start > LINE_BYTES:
            raise _too_long(f"object {number}", source.name)
        yield f"object {number}", text[start:end]


def _after(text: str, end: int) -> int:
    """The index at which the next element begins."""
    between = _BETWEEN.match(text, end)
    return between.end() if between else end


def _pairs(text: str, position: str, name: str) -> tuple[tuple[str, Any], ...]:
    """Keys and values of one object; nested objects are tuples too. Refuses repeated keys."""
    try:
        pairs: tuple[tuple[str, Any], ...] = _pairs_decoder.decode(text)
        if "\\ud" in text.lower():
            _check_surrogates(pairs)
    except RecursionError:
        raise _too_deep(position, name) from None
    except ValueError as problem:
        raise InvalidInput(
            f"{position} of {name} is not JSON: {problem}; each line must be one JSON object, or"
            " the file one array of objects"
        ) from None
    if not isinstance(pairs, tuple):
        raise InvalidInput(
            f'{position} of {name} is not a JSON object; each must be one, such as {{"age": 39}}'
        )
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InvalidInput(
            f"{position} of {name} has the key {twice!r} twice; names must be unique"
        )
    return pairs


def _check_surrogates(pairs: tuple[tuple[str, Any], ...]) -> None:
    """Raise UnicodeEncodeError for half of a surrogate pair, which JSON's escapes can spell."""
    "".join(part for pair in pairs for part in pair if isinstance(part, str)).encode()


def _cut_off(number: int, name: str, problem: json.JSONDecodeError) -> InvalidInput:
    return InvalidInput(
        f"object {number} of {name} is not JSON or is cut off: {problem.msg}; write the array again"
    )


def _too_deep(position: str, name: str) -> InvalidInput:
    return InvalidInput(
        f"{position} of {name} is nested too deep to be read; give each part a key of its own"
    )


def _too_long(position: str, name: str) -> InvalidInput:
    return InvalidInput(
        f"{position} of {name} has more than {LINE_BYTES >> 20} MiB; shorten it, or leave out"
        " values that are not part of the table"
    )


def _texts(values: list[Any]) -> cells.Array:
    try:
        return pa.array(values, pa.string())
    except pa.ArrowTypeError:
        return pa.array([_BOOLEAN.get(value, value) for value in values], pa.string())

"""JSON Lines, or one JSON array of objects: values as text, numbers as they are written."""

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
class Keys:
    """All keys of a file in the order they appear, and its rows: only the end of the file tells.

    left_out: what each of the keys with a nested value holds.
    """

    names: list[str]
    left_out: dict[str, str]
    rows: int


def keys_of(source: Source, encoding: str, limits: Limits) -> Keys:
    names: dict[str, None] = {}
    left_out: dict[str, str] = {}
    rows = 0
    for place, text in _objects(source, encoding):
        pairs = _pairs(text, place, source.name)
        names.update(dict.fromkeys(key for key, _ in pairs))
        left_out.update(
            {
                key: "objects" if isinstance(value, tuple) else "lists"
                for key, value in pairs
                if _nested(value)
            }
        )
        if len(names) > limits.columns:
            break
        rows += 1
    return Keys(list(names), left_out, rows)


def read(source: Source, encoding: str, names: list[str], rows: int) -> Iterator[pa.RecordBatch]:
    """The rows as text in batches of at most `rows`; a key that an object lacks is missing
    there."""
    for texts in _chunks(_objects(source, encoding), rows):
        try:
            objects = [_read_object(text) for text in texts]
        except RecursionError:
            raise _too_deep("an object", source.name) from None
        columns = [_texts([value.get(name) for value in objects]) for name in names]
        yield pa.record_batch(columns, names=names)


def _chunks(objects: Iterator[tuple[str, str]], rows: int) -> Iterator[list[str]]:
    """At most `rows` objects each, fewer where they are long."""
    chunk: list[str] = []
    size = 0
    for _, text in objects:
        chunk.append(text)
        size += len(text)
        if len(chunk) == rows or size > BATCH_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _objects(source: Source, encoding: str) -> Iterator[tuple[str, str]]:
    """The place of each object in words, and its text."""
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
    """The elements of the array, of which at most one piece more than the present one is in
    memory."""
    stream = io.TextIOWrapper(utf_8(source, encoding), "utf-8")
    text, end = stream.read(PIECE_BYTES).lstrip()[1:], 0
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
                more = stream.read(PIECE_BYTES)
                if not more:
                    raise InvalidInput(
                        f"object {number} of {source.name} is not JSON or is cut off:"
                        f" {problem.msg}; write the array again"
                    ) from None
                text, end = text[start:] + more, 0
        if end - start > LINE_BYTES:
            raise _too_long(f"object {number}", source.name)
        yield f"object {number}", text[start:end]


def _after(text: str, end: int) -> int:
    """Where the next element begins."""
    between = _BETWEEN.match(text, end)
    return between.end() if between else end


def _pairs(text: str, place: str, name: str) -> tuple[tuple[str, Any], ...]:
    """Keys and values of one object, each key once; an object in it is a tuple again."""
    try:
        pairs: tuple[tuple[str, Any], ...] = _pairs_decoder.decode(text)
        if "\\ud" in text.lower():
            "".join(part for pair in pairs for part in pair if isinstance(part, str)).encode()
    except RecursionError:
        raise _too_deep(place, name) from None
    except ValueError as problem:
        raise InvalidInput(
            f"{place} of {name} is not JSON: {problem}; each line must be one JSON object, or the"
            " file one array of objects"
        ) from None
    if not isinstance(pairs, tuple):
        raise InvalidInput(
            f'{place} of {name} is not a JSON object; each must be one, such as {{"age": 39}}'
        )
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InvalidInput(f"{place} of {name} has the key {twice!r} twice; names must be unique")
    return pairs


def _nested(value: object) -> bool:
    return isinstance(value, list | tuple)


def _too_deep(place: str, name: str) -> InvalidInput:
    return InvalidInput(
        f"{place} of {name} is nested too deep to be read; give each part a key of its own"
    )


def _too_long(place: str, name: str) -> InvalidInput:
    return InvalidInput(
        f"{place} of {name} has more than {LINE_BYTES >> 20} MiB; shorten it, or leave out what is"
        " no column"
    )


def _texts(values: list[Any]) -> cells.Array:
    try:
        return pa.array(values, pa.string())
    except pa.ArrowTypeError:
        return pa.array([_BOOLEAN.get(value, value) for value in values], pa.string())

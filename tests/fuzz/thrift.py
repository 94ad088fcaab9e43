"""Thrift's compact protocol, as far as Parquet's footers and page headers need it: read into lists,
changed, written again.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from collections.abc import Iterator
from random import Random
from typing import Any

from tests.fuzz import mutations

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
_MOST = 10_000
Struct = list[list[Any]]
"""Fields as [id, type, value]; a list is [type of its items, items], a map [types, pairs]."""


def read(content: bytes, start: int = 0) -> tuple[Struct, int]:
    """The struct at a place and where it ends. Raises ValueError or IndexError for what is none."""
    reader = _Reader(content, start)
    return reader.struct(0), reader.at


class _Reader:
    def __init__(self, content: bytes, at: int) -> None:
        self.content, self.at = content, at

    def byte(self) -> int:
        self.at += 1
        return self.content[self.at - 1]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def zigzag(self) -> int:
        value = self.varint()
        return value >> 1 ^ -(value & 1)

    def struct(self, depth: int) -> Struct:
        if depth > 20:
            raise ValueError("too deep")
        fields: Struct = []
        number = 0
        while header := self.byte():
            number = number + (header >> 4) if header >> 4 else self.zigzag()
            kind = header & 15
            fields.append(
                [number, kind, None if kind in (TRUE, FALSE) else self.value(kind, depth)]
            )
        return fields

    def value(self, kind: int, depth: int) -> Any:
        if kind in (I16, I32, I64):
            return self.zigzag()
        if kind in (BYTE, TRUE, FALSE):
            return self.byte()
        if kind in (DOUBLE, BINARY):
            size = 8 if kind == DOUBLE else self.varint()
            self.at += size
            if self.at > len(self.content):
                raise ValueError("cut off")
            return self.content[self.at - size : self.at]
        if kind in (LIST, SET):
            header = self.byte()
            count = header >> 4 if header >> 4 < 15 else self.varint()
            if count > _MOST:
                raise ValueError("too many items")
            return [header & 15, [self.value(header & 15, depth + 1) for _ in range(count)]]
        if kind == STRUCT:
            return self.struct(depth + 1)
        raise ValueError(f"type {kind}")


def written(fields: Struct) -> bytes:
    content, last = b"", 0
    for number, kind, value in fields:
        delta = number - last
        content += bytes([delta << 4 | kind]) if 0 < delta < 16 else bytes([kind]) + _zigzag(number)
        content += b"" if kind in (TRUE, FALSE) else _value(kind, value)
        last = number
    return content + b"\0"


def _value(kind: int, value: Any) -> bytes:
    if kind in (I16, I32, I64):
        return _zigzag(value)
    if kind in (BYTE, TRUE, FALSE):
        return bytes([value & 255])
    if kind == DOUBLE:
        return bytes(value)
    if kind == BINARY:
        return _varint(len(value)) + bytes(value)
    if kind == STRUCT:
        return written(value)
    of, items = value
    header = (
        bytes([len(items) << 4 | of])
        if len(items) < 15
        else bytes([15 << 4 | of]) + _varint(len(items))
    )
    return header + b"".join(_value(of, item) for item in items)


def _zigzag(value: int) -> bytes:
    return _varint((value << 1 ^ value >> 63) & 2**64 - 1)


def _varint(value: int) -> bytes:
    content = b""
    while value > 127:
        content += bytes([value & 127 | 128])
        value >>= 7
    return content + bytes([value])


def change(rng: Random, fields: Struct) -> None:
    """Change one to three parts of a struct in place: a number, a text, a list, a field."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        structs = list(_structs(fields))
        struct = rng.choice(structs)
        if not struct:
            continue
        field = rng.choice(struct)
        if rng.random() < 0.15:
            struct[:] = mutations.taken(rng, struct)
        elif rng.random() < 0.05:
            field[0] = max(0, field[0] + rng.choice((-1, 1)))
        else:
            _change_field(rng, field)


def _change_field(rng: Random, field: list[Any]) -> None:
    _, kind, value = field
    if kind in (TRUE, FALSE):
        field[1] = TRUE + FALSE - kind
    elif kind in (I16, I32, I64):
        field[2] = max(-(2**63), min(2**63 - 1, mutations.number(rng, value)))
    elif kind == BINARY:
        field[2] = mutations.changed(rng, value)[:2_000]
    elif kind in (LIST, SET):
        of, items = value
        if items and of in (I16, I32, I64) and rng.random() < 0.5:
            items[rng.randrange(len(items))] = rng.randrange(40)
        else:
            value[1] = mutations.taken(rng, items)


def _structs(fields: Struct) -> Iterator[Struct]:
    yield fields
    for _, kind, value in fields:
        if kind == STRUCT:
            yield from _structs(value)
        elif kind in (LIST, SET) and value[0] == STRUCT:
            for item in value[1]:
                yield from _structs(item)

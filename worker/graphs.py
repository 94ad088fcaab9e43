"""What an ONNX file holds, read from its bytes: which operator domains it uses and whether a tensor lies outside of it.

ONNX Runtime reads files beside a model that the model names (RELIABILITY: hard links, sparse tensors), so such a model is
refused before it gets there. The worker has no `onnx` package; the protobuf wire format is small enough to walk.
Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from collections.abc import Iterator

from nelbo.errors import InvalidArtifact

ALLOWED_DOMAINS = frozenset({b"", b"ai.onnx"})
MAX_DEPTH = 64

Field = tuple[int, int | bytes]

# Message fields that hold messages, by message: {field: message}.
MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
NODE_DOMAIN, FUNCTION_DOMAIN = 7, 10
EXTERNAL_DATA, DATA_LOCATION = 13, 14


def check_graph(name: str, content: bytes) -> None:
    """Raise InvalidArtifact where a graph uses operators of a foreign domain or data outside of its file."""
    try:
        known = ALLOWED_DOMAINS | {
            value for field, value in _fields(content) if field == 25 for value in _values(value, FUNCTION_DOMAIN)
        }
        for message, fields in _messages("model", content):
            if message == "node":
                _check_node(name, fields, known)
            elif message == "tensor" and any(place[0] == EXTERNAL_DATA or place == (DATA_LOCATION, 1) for place in fields):
                raise InvalidArtifact(f"{name} keeps weights outside of its file; export it with the weights inside")
    except (IndexError, ValueError):
        raise InvalidArtifact(f"{name} is not an ONNX model; push the artifact again") from None


def _check_node(name: str, fields: list[Field], known: frozenset[int | bytes]) -> None:
    for field, value in fields:
        if field == NODE_DOMAIN and value not in known:
            domain = value.decode(errors="replace") if isinstance(value, bytes) else value
            raise InvalidArtifact(f"{name} uses operators of {domain!r}; only those of ONNX itself are allowed")


def _messages(kind: str, content: bytes, depth: int = 0) -> Iterator[tuple[str, list[Field]]]:
    """This message and all messages inside it that MESSAGES knows."""
    if depth > MAX_DEPTH:
        raise ValueError("nested too deeply")
    fields = list(_fields(content))
    yield kind, fields
    for field, value in fields:
        inner = MESSAGES[kind].get(field)
        if inner is not None and isinstance(value, bytes):
            yield from _messages(inner, value, depth + 1)


def _values(content: int | bytes, wanted: int) -> Iterator[int | bytes]:
    if isinstance(content, bytes):
        yield from (value for field, value in _fields(content) if field == wanted)


def _fields(content: bytes) -> Iterator[Field]:
    """Number and value of each field of a protobuf message."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        match key & 7:
            case 0:
                value, at = _varint(content, at)
                yield key >> 3, value
            case 1:
                at += 8
            case 2:
                size, at = _varint(content, at)
                if at + size > len(content):
                    raise ValueError("truncated")
                yield key >> 3, content[at : at + size]
                at += size
            case 5:
                at += 4
            case other:
                raise ValueError(f"wire type {other}")


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("varint too long")

"""ONNX graphs for the fuzzer: messages with other fields, operators, shapes and attributes."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto, helper, numpy_helper

from nelbo.artifact import MANIFEST, Artifact, Manifest, parse_manifest
from nelbo.graphs import OPERATORS
from nelbo.sessions import open_session
from tests.fuzz import manifest, mutations

MODULES = ("graphs",)
OTHERS = (
    "Loop",
    "If",
    "RandomNormal",
    "Constant",
    "ConstantOfShape",
    "Einsum",
    "com.microsoft",
    "",
    "scan",
    "Resize",
    "Range",
)
FIELD = FieldDescriptor


@cache
def _manifest() -> Manifest:
    return parse_manifest(manifest.files()[MANIFEST])


def read(content: bytes, folder: Path) -> None:
    """Check a graph, whose name the first byte chooses; what is accepted is loaded by ONNX Runtime
    as a worker does it."""
    names = list(_manifest().graphs)
    name = names[content[0] % len(names)] if content else names[0]
    artifact = Artifact(folder, _manifest(), "")
    artifact.graph(name).write_bytes(content[1:])
    open_session(artifact, name)


def seeds() -> list[bytes]:
    names = [graph.file for graph in _manifest().graphs.values()]
    contents = [bytes([at]) + manifest.files()[name] for at, name in enumerate(names)]
    return [*contents, bytes([0]) + _with_scan(manifest.files()[names[0]]), b"\0", b""]


def _with_scan(content: bytes) -> bytes:
    """The graph with a Scan beside its own nodes, as the decoders that training writes have one."""
    model = onnx.ModelProto.FromString(content)
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Add", ["state", "step"], ["next"]),
            helper.make_node("Identity", ["next"], ["shown"]),
        ],
        "body",
        [value("state", TensorProto.DOUBLE, []), value("step", TensorProto.DOUBLE, [])],
        [value("next", TensorProto.DOUBLE, []), value("shown", TensorProto.DOUBLE, [])],
    )
    scan = helper.make_node(
        "Scan", ["begin", "steps"], ["end", "all"], body=body, num_scan_inputs=1
    )
    constants = {"begin": np.array(0.0), "steps": np.ones(3)}
    model.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in constants.items()
    )
    model.graph.node.append(scan)
    written: bytes = model.SerializeToString(deterministic=True)
    return written


def mutate(rng: Random, content: bytes) -> bytes:
    choice = rng.random()
    if not content or choice < 0.05:
        return bytes([rng.randrange(256)]) + content[1:]
    if choice < 0.2:
        return content[:1] + mutations.changed(rng, content[1:])
    try:
        model = onnx.ModelProto.FromString(content[1:])
    except (DecodeError, RecursionError):
        return content[:1] + mutations.changed(rng, content[1:])
    try:
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            _change(rng, model)
        written: bytes = model.SerializeToString(deterministic=rng.random() < 0.95)
    except (ValueError, RecursionError):  # a text that UTF-8 does not have
        return content
    return (content[:1] + written)[: mutations.MOST_BYTES]


def _change(rng: Random, model: Any) -> None:
    """One field of one message gets another value."""
    messages = list(_messages(model))
    message = rng.choice(messages)
    present = [field for field, _ in message.ListFields()]
    field = rng.choice(present if present and rng.random() < 0.8 else message.DESCRIPTOR.fields)
    if field.is_repeated:
        _change_items(rng, message, field, messages)
    elif field.message_type is not None:
        same = [other for other in messages if other.DESCRIPTOR is field.message_type]
        choice = rng.random()
        if choice < 0.3:
            message.ClearField(field.name)
        elif same and choice < 0.8:
            copied = type(rng.choice(same)).FromString(rng.choice(same).SerializeToString())
            getattr(message, field.name).CopyFrom(copied)
        else:
            getattr(message, field.name).SetInParent()
    elif rng.random() < 0.1:
        message.ClearField(field.name)
    else:
        _set(rng, message, field)


def _change_items(rng: Random, message: Any, field: Any, messages: list[Any]) -> None:
    items = getattr(message, field.name)
    if field.message_type is None:
        values = [*items, *([_scalar(rng, field, None)] if rng.random() < 0.3 or not items else [])]
        at = rng.randrange(len(values))
        values[at] = _scalar(rng, field, values[at]) if rng.random() < 0.5 else values[at]
        values = mutations.taken(rng, values) if rng.random() < 0.4 else values
        items[:] = values
        return
    same = [other for other in messages if other.DESCRIPTOR is field.message_type]
    copies = [
        type(item).FromString(item.SerializeToString())
        for item in mutations.taken(rng, list(items))
    ]
    if same and rng.random() < 0.3:
        copies.insert(rng.randrange(len(copies) + 1), rng.choice(same))
    copies = [type(item).FromString(item.SerializeToString()) for item in copies]
    del items[:]
    items.extend(copies)
    if rng.random() < 0.1:
        items.add()


def _set(rng: Random, message: Any, field: Any) -> None:
    value = _scalar(rng, field, getattr(message, field.name))
    if field.name == "op_type" and rng.random() < 0.8:
        value = rng.choice((*OPERATORS, *OTHERS))
    if field.name == "raw_data" and rng.random() < 0.5:
        size = len(message.raw_data)
        value = (mutations.changed(rng, message.raw_data) + bytes(size))[:size]
    setattr(message, field.name, value)


def _scalar(rng: Random, field: Any, value: Any) -> Any:
    """Another value of the field's type."""
    kind = field.cpp_type
    if kind in (
        FIELD.CPPTYPE_INT32,
        FIELD.CPPTYPE_INT64,
        FIELD.CPPTYPE_UINT64,
        FIELD.CPPTYPE_UINT32,
    ):
        bits = 31 if kind in (FIELD.CPPTYPE_INT32, FIELD.CPPTYPE_UINT32) else 63
        low = 0 if kind in (FIELD.CPPTYPE_UINT64, FIELD.CPPTYPE_UINT32) else -(2**bits)
        return max(low, min(2**bits - 1, mutations.number(rng, value or 0)))
    if kind == FIELD.CPPTYPE_ENUM:
        return rng.choice(field.enum_type.values).number
    if kind in (FIELD.CPPTYPE_FLOAT, FIELD.CPPTYPE_DOUBLE):
        return rng.choice((0.0, 1.5, -1.0, float("nan"), float("inf"), 1e30))
    if kind == FIELD.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if field.type == FIELD.TYPE_BYTES:
        return mutations.changed(rng, value or b"")[:2_000]
    text = (
        value.decode(errors="replace") if isinstance(value, bytes) else value or ""
    )  # bytes are no UTF-8
    return mutations.text(rng, text).encode(errors="replace").decode()


def _messages(message: Message) -> Iterator[Any]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else (value,):
                yield from _messages(inner)

"""The graphs of an artifact: what each takes and gives, and which ONNX may run at all.

A graph may come from a stranger, and two programs that parse the same bytes may see two different
models. So a graph is accepted in one form only: the bytes that protobuf itself writes for the
message that it reads from them, with the fields, operators and attributes that training writes, and
nothing else. What is checked here is then what ONNX Runtime reads.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message
from onnx import AttributeProto, TensorProto

from nelbo.artifact import Manifest
from nelbo.errors import InvalidArtifact

MAX_NODES = 50_000
"""Training writes some hundreds; the widest unrolled decoder has some thousands."""
MAX_DIMENSION = 2**31 - 1
OPSET = 18
IR_VERSION = 10

FIELDS: Mapping[str, frozenset[str]] = {
    "ModelProto": frozenset({"ir_version", "opset_import", "graph"}),
    "OperatorSetIdProto": frozenset({"domain", "version"}),
    "GraphProto": frozenset({"name", "node", "initializer", "input", "output"}),
    "NodeProto": frozenset({"op_type", "input", "output", "attribute"}),
    "AttributeProto": frozenset({"name", "type", "f", "i", "ints", "g"}),
    "TensorProto": frozenset({"name", "data_type", "dims", "raw_data"}),
    "ValueInfoProto": frozenset({"name", "type"}),
    "TypeProto": frozenset({"tensor_type"}),
    "Tensor": frozenset({"elem_type", "shape"}),
    "TensorShapeProto": frozenset({"dim"}),
    "Dimension": frozenset({"dim_value"}),
}
"""Fields that a message may have. Functions, external data, symbolic sizes and metadata are not
among them."""

PLAIN = (
    "Abs Add Clip Cos CumSum Div Equal Exp Expand Floor Greater GreaterOrEqual Identity IsNaN"
    " LessOrEqual Log MatMul Max Min"
    " Mul Neg Relu Reshape Sign Sin Slice Sqrt Squeeze Sub Sum Tanh Tile Unsqueeze Where"
)
OPERATORS: Mapping[str, frozenset[str]] = {name: frozenset[str]() for name in PLAIN.split()} | {
    "ArgMax": frozenset({"axis", "keepdims"}),
    "Cast": frozenset({"to"}),
    "Concat": frozenset({"axis"}),
    "Gather": frozenset({"axis"}),
    "GatherElements": frozenset({"axis"}),
    "Gemm": frozenset({"transB"}),
    "LayerNormalization": frozenset({"axis", "epsilon"}),
    "LogSoftmax": frozenset({"axis"}),
    "Mod": frozenset({"fmod"}),
    "ReduceMax": frozenset({"keepdims"}),
    "ReduceMean": frozenset({"keepdims"}),
    "ReduceSum": frozenset({"keepdims"}),
    "ReduceSumSquare": frozenset({"keepdims"}),
    "Scan": frozenset({"body", "num_scan_inputs"}),
    "Softmax": frozenset({"axis"}),
    "TopK": frozenset({"axis", "largest"}),
    "Transpose": frozenset({"perm"}),
}
"""The operators that training writes, with their attributes. None of them draws random numbers,
reads a file or repeats without an end: a Scan takes as many steps as its inputs have slices, and
none stands inside another."""

TYPES: Mapping[int, np.dtype[Any]] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.DOUBLE: np.dtype(np.float64),
    TensorProto.INT64: np.dtype(np.int64),
    TensorProto.BOOL: np.dtype(np.bool_),
    TensorProto.FLOAT16: np.dtype(np.float16),
}


@dataclass(frozen=True)
class Array:
    """The type and shape of an array that goes into a graph or comes out of it."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)


@dataclass(frozen=True)
class Signature:
    """The arrays of a graph in the manifest's order."""

    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]


def signatures(manifest: Manifest) -> dict[str, Signature]:
    """What each graph of an artifact must take and give; all sizes follow from the manifest.

    Raises InvalidArtifact for a graph that no Nelbo knows, or one with too many or too few inputs
    or outputs.
    """
    batch, latent, columns = manifest.batch, manifest.latent, len(manifest.order)
    z = Array(np.dtype(np.float32), (batch, latent))
    numbers = Array(np.dtype(np.float64), (batch, len(manifest.table_schema.numbers)))
    categories = Array(np.dtype(np.int64), (batch, len(manifest.table_schema.categoricals)))
    codes = Array(np.dtype(np.int64), (batch, manifest.codes or columns))
    by_row = Array(np.dtype(np.float64), (batch,))
    terms = Array(np.dtype(np.float64), (batch, columns))
    cells = Array(np.dtype(np.bool_), (batch, columns))
    u_z = Array(np.dtype(np.float64), (batch, manifest.draws["z"]))
    u_x = Array(np.dtype(np.float64), (batch, manifest.draws["x"]))
    switch, number = Array(np.dtype(np.bool_), (1,)), Array(np.dtype(np.float64), (1,))
    full = {
        "score": Signature((numbers, categories), (by_row, terms, by_row)),
        "posterior": Signature((numbers, categories, cells, u_z, switch), (z, codes, z, z)),
        "spread": Signature((z, z, u_z, number), (z,)),
        "prior": Signature((u_z,), (z,)),
        "generate": Signature((z, codes, cells, u_x, switch, switch), (numbers, categories)),
    }
    # Older artifacts have no `fill`, the last input of generate, and tell no mu and log_var.
    fewest = full | {
        "posterior": Signature(full["posterior"].inputs, (z, codes)),
        "generate": Signature(full["generate"].inputs[:5], full["generate"].outputs),
    }
    signature = {}
    for name, graph in manifest.graphs.items():
        if name not in full:
            raise InvalidArtifact(
                f"the artifact has a graph {name!r}; the graphs are {', '.join(full)}"
            )
        inputs, outputs = len(graph.inputs), len(graph.outputs)
        least, most = fewest[name], full[name]
        if inputs not in (len(least.inputs), len(most.inputs)) or outputs not in (
            len(least.outputs),
            len(most.outputs),
        ):
            raise InvalidArtifact(
                f"the graph {name!r} has {inputs} inputs and {outputs} outputs;"
                f" {len(most.inputs)} and {len(most.outputs)} are expected"
            )
        signature[name] = Signature(most.inputs[:inputs], most.outputs[:outputs])
    return signature


def checked(manifest: Manifest, name: str, content: bytes) -> bytes:
    """The bytes of a graph for ONNX Runtime: those of the message that was checked. Raises
    InvalidArtifact."""
    graph = manifest.graphs[name]
    model = _parsed(graph.file, content)
    try:
        _check_size(model.graph)
        _check_fields(model)
        if model.ir_version > IR_VERSION or [(o.domain, o.version) for o in model.opset_import] != [
            ("", OPSET)
        ]:
            raise _Refused(
                f"is not written in version {OPSET} of ONNX's operators alone, as training writes"
                " it"
            )
        _check_graph(model.graph, scan=True)
        signature = signatures(manifest)[name]
        _check_values(model.graph.input, graph.inputs, signature.inputs)
        _check_values(model.graph.output, graph.outputs, signature.outputs)
    except _Refused as refusal:
        raise InvalidArtifact(
            f"{graph.file} {refusal}; push an artifact that `nelbo train` wrote"
        ) from None
    checked_bytes: bytes = model.SerializeToString(deterministic=True)
    return checked_bytes


class _Refused(Exception):
    """Why a graph may not run, as the rest of a sentence about it."""


def _parsed(file: str, content: bytes) -> onnx.ModelProto:
    """The one message that these bytes mean: written again without what is unknown, they are the
    same bytes."""
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(content)
        model.DiscardUnknownFields()
        same = model.SerializeToString(deterministic=True) == content
    except (DecodeError, RecursionError):
        raise InvalidArtifact(
            f"{file} is not an ONNX model; copy or push the artifact again"
        ) from None
    if not same or not model.HasField("graph"):
        raise InvalidArtifact(
            f"{file} is not an ONNX model as training writes it: it holds unknown fields, or some"
            " twice or out of order"
        )
    return model


def _check_fields(message: Message) -> None:
    """Refuse a field that training does not write, in this message and in all inside it."""
    kind = message.DESCRIPTOR.name
    for field, value in message.ListFields():
        if field.name not in FIELDS.get(kind, ()):
            raise _Refused(f"uses {kind}.{field.name}, which training does not write")
        if field.message_type is not None:
            for inner in value if field.is_repeated else (value,):
                _check_fields(inner)


def _check_size(graph: onnx.GraphProto) -> None:
    if len(graph.node) > MAX_NODES or len(graph.initializer) > MAX_NODES:
        raise _Refused(f"has more than {MAX_NODES:,} nodes or constants")


def _check_graph(graph: onnx.GraphProto, scan: bool) -> None:
    _check_size(graph)
    for tensor in graph.initializer:
        _check_tensor(tensor)
    for value in (*graph.input, *graph.output):
        _array(value)
    for node in graph.node:
        _check_node(node, scan)


def _check_tensor(tensor: TensorProto) -> None:
    dtype = TYPES.get(tensor.data_type)
    if dtype is None:
        raise _Refused(
            f"has a constant of type {tensor.data_type};"
            f" {', '.join(str(t) for t in TYPES.values())} are allowed"
        )
    if any(not 0 <= size <= MAX_DIMENSION for size in tensor.dims):
        raise _Refused(f"has a constant of shape {list(tensor.dims)[:8]}")
    if len(tensor.raw_data) != dtype.itemsize * math.prod(tensor.dims):
        raise _Refused(
            f"has a constant of shape {list(tensor.dims)[:8]} with {len(tensor.raw_data):,} bytes"
            f" of {dtype}"
        )


def _check_node(node: onnx.NodeProto, scan: bool) -> None:
    attributes = OPERATORS.get(node.op_type)
    if attributes is None:
        raise _Refused(f"uses the operator {node.op_type[:40]!r}, which training does not write")
    if node.op_type == "Scan" and not scan:
        raise _Refused("has a Scan inside another one")
    for attribute in node.attribute:
        if attribute.name not in attributes or (attribute.type == AttributeProto.GRAPH) != (
            attribute.name == "body"
        ):
            raise _Refused(
                f"uses {node.op_type} with {attribute.name[:40]!r}, which training does not write"
            )
        if attribute.type == AttributeProto.GRAPH:
            _check_graph(attribute.g, scan=False)


def _check_values(
    values: Sequence[onnx.ValueInfoProto], names: Sequence[str], arrays: Sequence[Array]
) -> None:
    """Refuse inputs or outputs other than those of the manifest."""
    if [value.name for value in values] != list(names):
        raise _Refused("has other inputs and outputs than the manifest names")
    for value, array in zip(values, arrays, strict=True):
        declared = _array(value)
        if declared != array:
            raise _Refused(
                f"declares {value.name} as {declared.dtype}{list(declared.shape)};"
                f" by the manifest it is {array.dtype}{list(array.shape)}"
            )


def _array(value: onnx.ValueInfoProto) -> Array:
    tensor = value.type.tensor_type
    dtype, shape = TYPES.get(tensor.elem_type), tuple(dim.dim_value for dim in tensor.shape.dim)
    if dtype is None or any(not 0 <= size <= MAX_DIMENSION for size in shape):
        raise _Refused(
            f"declares {value.name[:40]} with type {tensor.elem_type} and shape {list(shape)[:8]}"
        )
    return Array(dtype, shape)

"""The graphs of an artifact: the inputs and outputs of each, and the check of their ONNX.

A graph may come from a stranger, and two programs that parse the same bytes may see two different
models. A graph is therefore accepted in one form only: the bytes that protobuf itself writes for
the message, with no other fields, operators and attributes than training writes. ONNX Runtime then
reads the same model that was checked here.
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
"""Training writes some hundred nodes; the widest unrolled decoder has some thousand."""
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
"""The fields that a message may have.

They leave out functions, external data, symbolic sizes and metadata.
"""

PLAIN = (
    "Abs Add Clip Cos CumSum Div Equal Exp Expand Floor Greater GreaterOrEqual Identity IsNaN"
    " LessOrEqual Log MatMul Max Min Mul Neg Relu Reshape Sign Sin Slice Sqrt Squeeze Sub Sum Tanh"
    " Tile Unsqueeze Where"
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
"""The operators that training writes, with their attributes.

None of them draws random numbers, reads a file or runs without end: the number of steps of a Scan
is the number of slices of its inputs, and a Scan may not contain another one.
"""

TYPES: Mapping[int, np.dtype[Any]] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.DOUBLE: np.dtype(np.float64),
    TensorProto.INT64: np.dtype(np.int64),
    TensorProto.BOOL: np.dtype(np.bool_),
    TensorProto.FLOAT16: np.dtype(np.float16),
}


@dataclass(frozen=True)
class Array:
    """The type and shape of an input or output of a graph."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a graph in the manifest's order."""

    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]


def signatures(manifest: Manifest) -> dict[str, Signature]:
    """The signature of each graph of an artifact. All sizes follow from the manifest.

    Raises InvalidArtifact for an unknown graph, or one with another number of inputs or outputs.
    """
    full = _full_signatures(manifest)
    signature = {}
    for name, graph in manifest.graphs.items():
        if name not in full:
            raise InvalidArtifact(
                f"the artifact has a graph {name!r}; the graphs are {', '.join(full)}"
            )
        inputs = len(graph.inputs)
        outputs = len(graph.outputs)
        most_inputs = len(full[name].inputs)
        most_outputs = len(full[name].outputs)
        if inputs not in (most_inputs, OLDER_INPUTS.get(name)) or outputs not in (
            most_outputs,
            OLDER_OUTPUTS.get(name),
        ):
            raise InvalidArtifact(
                f"the graph {name!r} has {inputs} inputs and {outputs} outputs;"
                f" {most_inputs} and {most_outputs} are expected"
            )
        signature[name] = Signature(full[name].inputs[:inputs], full[name].outputs[:outputs])
    return signature


OLDER_INPUTS = {"generate": 5}
"""The number of inputs in older artifacts: `generate` without `fill`, its last input."""
OLDER_OUTPUTS = {"posterior": 2, "score": 3}
"""The number of outputs in older artifacts: `posterior` without mu and log_var, `score` without
costs."""


def _full_signatures(manifest: Manifest) -> dict[str, Signature]:
    """The signatures of all graphs that present training writes."""
    batch = manifest.batch
    columns = len(manifest.order)
    schema = manifest.table_schema
    z = Array(np.dtype(np.float32), (batch, manifest.latent))
    numbers = Array(np.dtype(np.float64), (batch, len(schema.numbers)))
    categories = Array(np.dtype(np.int64), (batch, len(schema.categoricals)))
    codes = Array(np.dtype(np.int64), (batch, manifest.codes or columns))
    by_row = Array(np.dtype(np.float64), (batch,))
    terms = Array(np.dtype(np.float64), (batch, columns))
    costs = Array(np.dtype(np.float64), (batch, manifest.scoring_members, columns))
    cells = Array(np.dtype(np.bool_), (batch, columns))
    u_z = Array(np.dtype(np.float64), (batch, manifest.draws["z"]))
    u_x = Array(np.dtype(np.float64), (batch, manifest.draws["x"]))
    switch = Array(np.dtype(np.bool_), (1,))
    number = Array(np.dtype(np.float64), (1,))
    return {
        "score": Signature((numbers, categories), (by_row, terms, by_row, costs)),
        "posterior": Signature((numbers, categories, cells, u_z, switch), (z, codes, z, z)),
        "spread": Signature((z, z, u_z, number), (z,)),
        "prior": Signature((u_z,), (z,)),
        "generate": Signature((z, codes, cells, u_x, switch, switch), (numbers, categories)),
    }


def checked(manifest: Manifest, name: str, content: bytes) -> bytes:
    """Check a graph and return the bytes for ONNX Runtime. Raises InvalidArtifact."""
    graph = manifest.graphs[name]
    model = _parsed(graph.file, content)
    try:
        _check_size(model.graph)
        _check_fields(model)
        _check_version(model)
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
    """The reason why a graph may not run, as the rest of a sentence that begins with its file."""


def _parsed(file: str, content: bytes) -> onnx.ModelProto:
    """The message in these bytes. Refuses bytes that protobuf itself would write differently."""
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
            f"{file} is not an ONNX model as training writes it: it has unknown fields, or fields"
            " that are repeated or out of order"
        )
    return model


def _check_version(model: onnx.ModelProto) -> None:
    operators = [(operators.domain, operators.version) for operators in model.opset_import]
    if model.ir_version > IR_VERSION or operators != [("", OPSET)]:
        raise _Refused(
            f"does not use version {OPSET} of ONNX's operators and no others, as training writes it"
        )


def _check_fields(message: Message) -> None:
    """Refuse a field that training does not write, also in the messages inside."""
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
        is_graph = attribute.type == AttributeProto.GRAPH
        if attribute.name not in attributes or is_graph != (attribute.name == "body"):
            raise _Refused(
                f"uses {node.op_type} with {attribute.name[:40]!r}, which training does not write"
            )
        if is_graph:
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
    dtype = TYPES.get(tensor.elem_type)
    shape = tuple(dim.dim_value for dim in tensor.shape.dim)
    if dtype is None or any(not 0 <= size <= MAX_DIMENSION for size in shape):
        raise _Refused(
            f"declares {value.name[:40]} with type {tensor.elem_type} and shape {list(shape)[:8]}"
        )
    return Array(dtype, shape)

"""A stranger's graph runs only in the form that training writes: one message, known fields, known
operators, no other file."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from nelbo.artifact import Artifact, read_artifact
from nelbo.errors import InvalidArtifact
from nelbo.graphs import checked, signatures
from tests.artifacts import linear_artifact

SCALAR = numpy_helper.from_array(np.array(0.0), "zero")
Change = Callable[[ModelProto], object]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return read_artifact(linear_artifact(tmp_path_factory.mktemp("linear")))


def score_graph(artifact: Artifact) -> ModelProto:
    model: ModelProto = onnx.load(artifact.graph("score"))
    return model


def refusal(artifact: Artifact, content: bytes) -> str:
    with pytest.raises(InvalidArtifact) as refused:
        checked(artifact.manifest, "score", content)
    return refused.value.message


def changed(artifact: Artifact, change: Change) -> bytes:
    model = score_graph(artifact)
    change(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def test_every_graph_of_an_artifact_comes_out_as_it_went_in(artifact: Artifact) -> None:
    for name in artifact.manifest.graphs:
        content = artifact.graph(name).read_bytes()
        assert checked(artifact.manifest, name, content) == content


def test_the_graphs_of_the_oldest_format_are_still_accepted() -> None:
    old = read_artifact(Path("tests/data/artifact-format-1"))
    for name in old.manifest.graphs:
        content = old.graph(name).read_bytes()
        assert checked(old.manifest, name, content) == content


# One message: what two parsers could read as two


def varint(number: int) -> bytes:
    written = b""
    while number > 127:
        written += bytes([number & 127 | 128])
        number >>= 7
    return written + bytes([number])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def tensor_outside() -> TensorProto:
    tensor = TensorProto(
        name="loot", data_type=TensorProto.UINT8, dims=[256], data_location=TensorProto.EXTERNAL
    )
    tensor.external_data.add(key="location", value="nelbo.db")
    return tensor


def overlong_tags(artifact: Artifact) -> bytes:
    """External data under tags of five bytes: a reader of 64 bits sees field 2^29 + 13, one of 32
    bits sees field 13."""
    plain = TensorProto(name="loot", data_type=TensorProto.UINT8, dims=[256]).SerializeToString()
    entry = tensor_outside().external_data[0].SerializeToString()
    hidden = bytes([13 << 3 | 2 | 128, 128, 128, 128, 16]) + varint(len(entry)) + entry
    hidden += bytes([14 << 3 | 128, 128, 128, 128, 16, 1])
    model: bytes = score_graph(artifact).SerializeToString()
    return model + field(7, field(5, plain + hidden))


def ort_polyglot(artifact: Artifact) -> bytes:
    """To protobuf a number, eight bytes and one long unknown field; to ONNX Runtime a file of its
    own format."""
    return b"\x08\x00\x01\x00ORTM\0\0\0" + field(100, b"\0" * 64)


ONE_MEANING: dict[str, Callable[[Artifact], bytes]] = {
    "overlong tags": overlong_tags,
    "a file of ONNX Runtime's own format": lambda artifact: b"\x20\0\0\0ORTM" + b"\0" * 64,
    "a polyglot of both formats": ort_polyglot,
    "an unknown field behind it": lambda artifact: (
        artifact.graph("score").read_bytes() + field(99, b"more")
    ),
    "an unknown field before it": lambda artifact: (
        field(99, b"more") + artifact.graph("score").read_bytes()
    ),
    "a second graph, which is merged": lambda artifact: (
        artifact.graph("score").read_bytes()
        + field(7, field(5, tensor_outside().SerializeToString()))
    ),
    "a number that is not as short as it can be": lambda artifact: (
        b"\x08\x8a\x00" + artifact.graph("score").read_bytes()[2:]
    ),
    "nothing": lambda artifact: b"",
    "a zip": lambda artifact: b"PK\x03\x04" + artifact.graph("score").read_bytes(),
    "half of it": lambda artifact: artifact.graph("score").read_bytes()[:-7],
    "noise": lambda artifact: bytes(range(256)) * 8,
}


@pytest.mark.parametrize("what", ONE_MEANING)
def test_bytes_that_are_not_the_one_way_to_write_a_model_are_refused(
    artifact: Artifact, what: str
) -> None:
    assert "is not an ONNX model" in refusal(artifact, ONE_MEANING[what](artifact))


def test_groups_nested_without_an_end_are_refused(artifact: Artifact) -> None:
    assert "is not an ONNX model" in refusal(artifact, b"\x0b" * 100_000)


# Known fields


def with_external_data(model: ModelProto) -> None:
    model.graph.initializer.append(tensor_outside())


def with_sparse_external_data(model: ModelProto) -> None:
    model.graph.sparse_initializer.add().values.CopyFrom(tensor_outside())


def with_external_attribute(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["loot"], value=tensor_outside()))


def with_function(domain: str) -> Change:
    def change(model: ModelProto) -> None:
        node, opset = helper.make_node("Identity", ["x"], ["y"]), helper.make_opsetid("", 18)
        model.functions.append(helper.make_function(domain, "Twice", ["x"], ["y"], [node], [opset]))

    return change


def with_training(model: ModelProto) -> None:
    model.training_info.add().algorithm.CopyFrom(model.graph)


def with_metadata(model: ModelProto) -> None:
    model.metadata_props.add(key="ort_config", value="{}")


def with_a_symbolic_size(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"


def with_a_sequence(model: ModelProto) -> None:
    model.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT


def with_text(model: ModelProto) -> None:
    model.graph.initializer.append(
        TensorProto(name="t", data_type=TensorProto.STRING, dims=[1], string_data=[b"x"])
    )


UNKNOWN_FIELDS: dict[str, Change] = {
    "data outside of the file": with_external_data,
    "sparse data outside of the file": with_sparse_external_data,
    "an attribute outside of the file": with_external_attribute,
    "a function": with_function("mine"),
    "a function with the name of foreign operators": with_function("com.microsoft"),
    "a graph for training": with_training,
    "settings for ONNX Runtime": with_metadata,
    "a size with a name": with_a_symbolic_size,
    "a sequence": with_a_sequence,
    "text": with_text,
}


@pytest.mark.parametrize("what", UNKNOWN_FIELDS)
def test_what_training_never_writes_is_refused(artifact: Artifact, what: str) -> None:
    assert "training does not write" in refusal(artifact, changed(artifact, UNKNOWN_FIELDS[what]))


# Known operators


def body(*nodes: NodeProto) -> GraphProto:
    return helper.make_graph(list(nodes), "body", [], [])


def scan(inside: GraphProto) -> NodeProto:
    return helper.make_node("Scan", ["zero"], ["y"], body=inside, num_scan_inputs=1)


FOREIGN: dict[str, NodeProto] = {
    "a loop": helper.make_node("Loop", ["n", "go"], ["y"], body=body()),
    "a branch": helper.make_node("If", ["go"], ["y"], then_branch=body(), else_branch=body()),
    "a random number": helper.make_node("RandomNormalLike", ["zero"], ["y"]),
    "an array of any size": helper.make_node("ConstantOfShape", ["n"], ["y"]),
    "an operator of ONNX Runtime": helper.make_node(
        "Gelu", ["zero"], ["y"], domain="com.microsoft"
    ),
    "an operator under the long name of ONNX": helper.make_node(
        "Add", ["zero", "zero"], ["y"], domain="ai.onnx"
    ),
    "an attribute that training does not set": helper.make_node(
        "Cast", ["zero"], ["y"], to=1, saturate=0
    ),
    "a graph where a number belongs": helper.make_node("Softmax", ["zero"], ["y"], axis=body()),
    "a number where a graph belongs": helper.make_node(
        "Scan", ["zero"], ["y"], body=1, num_scan_inputs=1
    ),
    "a scan with directions": helper.make_node(
        "Scan", ["z"], ["y"], body=body(), num_scan_inputs=1, scan_input_directions=[1]
    ),
}


@pytest.mark.parametrize("inside", [False, True], ids=["at the top", "inside a scan"])
@pytest.mark.parametrize("what", FOREIGN)
def test_an_operator_that_training_does_not_use_is_refused(
    artifact: Artifact, what: str, inside: bool
) -> None:
    foreign = FOREIGN[what]
    node = scan(body(foreign)) if inside else foreign
    content = changed(artifact, lambda model: model.graph.node.append(node))
    is_scan_in_scan = inside and foreign.op_type == "Scan"
    reason = "a Scan inside another one" if is_scan_in_scan else "which training does not write"
    assert reason in refusal(artifact, content)


def test_a_scan_inside_a_scan_is_refused(artifact: Artifact) -> None:
    content = changed(artifact, lambda model: model.graph.node.append(scan(body(scan(body())))))
    assert "a Scan inside another one" in refusal(artifact, content)


def test_another_version_of_the_operators_is_refused(artifact: Artifact) -> None:
    def newer(model: ModelProto) -> None:
        model.opset_import[0].version = 19

    def foreign(model: ModelProto) -> None:
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))

    for change in (newer, foreign):
        assert "version 18 of ONNX's operators and no others" in refusal(
            artifact, changed(artifact, change)
        )


# Sizes


@pytest.mark.parametrize(
    ("shape", "size"), [([2**40], 0), ([-1], 0), ([4], 8), ([2**20, 2**20], 8), ([2**31, 2**33], 0)]
)
def test_a_constant_whose_bytes_are_not_its_shape_is_refused(
    artifact: Artifact, shape: list[int], size: int
) -> None:
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=shape, raw_data=b"\0" * size)
    assert "a constant of shape" in refusal(
        artifact, changed(artifact, lambda model: model.graph.initializer.append(tensor))
    )


def test_inputs_and_outputs_must_be_those_of_the_manifest(artifact: Artifact) -> None:
    def wider(model: ModelProto) -> None:
        model.graph.output[1].type.tensor_type.shape.dim[1].dim_value = 10**9

    def renamed(model: ModelProto) -> None:
        model.graph.input[0].name = "other"

    assert "by the manifest it is float64[16, 4]" in refusal(artifact, changed(artifact, wider))
    assert "other inputs and outputs" in refusal(artifact, changed(artifact, renamed))


def test_a_graph_that_no_nelbo_knows_is_refused(artifact: Artifact) -> None:
    graphs = artifact.manifest.graphs
    manifest = artifact.manifest.model_copy(update={"graphs": graphs | {"more": graphs["score"]}})
    with pytest.raises(InvalidArtifact, match="a graph 'more'"):
        signatures(manifest)


def test_a_graph_with_too_many_nodes_is_refused_at_once(artifact: Artifact) -> None:
    node = helper.make_node("Identity", ["zero"], ["y"])
    content = changed(artifact, lambda model: model.graph.node.extend([node] * 1_000_000))
    started = time.process_time()
    assert "50,000 nodes" in refusal(artifact, content)
    assert time.process_time() - started < 20

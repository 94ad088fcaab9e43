"""A stranger's graph: refused where it uses foreign operators or data outside of its file, wherever that hides."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from nelbo.artifact import read_artifact
from nelbo.errors import InvalidArtifact
from tests.artifacts import linear_artifact
from worker.graphs import check_graph

X = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])


def outside() -> onnx.TensorProto:
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    return tensor


def foreign() -> onnx.NodeProto:
    return helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")


def in_initializer() -> onnx.GraphProto:
    return helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [X], [Y], [outside()])


def in_sparse_initializer() -> onnx.GraphProto:
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [X], [Y])
    graph.sparse_initializer.add().values.CopyFrom(outside())
    return graph


def in_attribute() -> onnx.GraphProto:
    return helper.make_graph([helper.make_node("Constant", [], ["y"], value=outside())], "g", [X], [Y])


def in_subgraph(inner: onnx.GraphProto) -> onnx.GraphProto:
    node = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    return helper.make_graph([node], "outer", [X], [Y])


def with_function(node: onnx.NodeProto) -> bytes:
    opset = helper.make_opsetid("", 21)
    function = helper.make_function("mine", "Twice", ["x"], ["y"], [node], [opset])
    graph = helper.make_graph([helper.make_node("Twice", ["x"], ["y"], domain="mine")], "g", [X], [Y])
    content: bytes = helper.make_model(graph, functions=[function]).SerializeToString()
    return content


OUTSIDE = {
    "initializer": in_initializer(),
    "sparse initializer": in_sparse_initializer(),
    "attribute": in_attribute(),
    "initializer of a subgraph": in_subgraph(in_initializer()),
    "attribute in a subgraph of a subgraph": in_subgraph(in_subgraph(in_attribute())),
}


@pytest.mark.parametrize("where", OUTSIDE)
def test_data_outside_of_the_file_is_refused(where: str) -> None:
    with pytest.raises(InvalidArtifact, match="outside of its file"):
        check_graph("score.onnx", helper.make_model(OUTSIDE[where]).SerializeToString())


@pytest.mark.parametrize("deep", [False, True])
def test_a_foreign_operator_is_refused_by_its_domain(deep: bool) -> None:
    graph = helper.make_graph([foreign()], "g", [X], [Y])
    with pytest.raises(InvalidArtifact, match=r"com\.microsoft"):
        check_graph("score.onnx", helper.make_model(in_subgraph(graph) if deep else graph).SerializeToString())


def test_a_function_of_the_model_itself_is_allowed() -> None:
    check_graph("score.onnx", with_function(helper.make_node("Add", ["x", "x"], ["y"])))


def test_a_foreign_operator_inside_a_function_is_refused() -> None:
    with pytest.raises(InvalidArtifact, match=r"com\.microsoft"):
        check_graph("score.onnx", with_function(foreign()))


def test_the_graphs_of_an_artifact_pass(tmp_path: Path) -> None:
    folder = linear_artifact(tmp_path / "linear")
    for graph in read_artifact(folder).manifest.graphs.values():
        check_graph(graph.file, (folder / graph.file).read_bytes())


@pytest.mark.parametrize("content", [b"\xff" * 20, b"PK\x03\x04 a zip", b"\x3a\xff\xff\x03short"])
def test_what_is_no_onnx_model_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidArtifact, match=r"score\.onnx is not an ONNX model"):
        check_graph("score.onnx", content)

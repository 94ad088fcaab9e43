"""The floor of a score graph: its matrix products, and their number of multiply-adds."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.benchmarks.speed.graphs import Products


def test_the_matrix_products_of_a_graph_are_counted(tmp_path: Path) -> None:
    """2 rows times 3 × 4, transposed or not, and then times 4 × 5."""
    weights = {"a": (4, 3), "b": (4, 5)}
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "a"], ["y"], transB=1),
            helper.make_node("MatMul", ["y", "b"], ["z"]),
        ],
        "two products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [2, 5])],
        [numpy_helper.from_array(np.ones(shape, np.float32), w) for w, shape in weights.items()],
    )
    onnx.save(helper.make_model(graph), tmp_path / "graph.onnx")
    products = Products(tmp_path / "graph.onnx")
    products.run(1)
    assert products.multiply_adds == 2 * 3 * 4 + 2 * 4 * 5

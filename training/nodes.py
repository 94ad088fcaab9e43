"""Building ONNX graphs node by node, with no torch in sight."""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 18
IR_VERSION = 10
LARGE = 1_000
TYPES = {
    "float64": TensorProto.DOUBLE,
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
}


class Nodes:
    """An ONNX graph under construction: calling it appends a node and returns its output's name."""

    def __init__(self, prefix: str = "") -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.prefix = prefix

    def __call__(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        names = [f"{self.prefix}{op.lower()}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, value: Any, dtype: str | None = None) -> str:
        """Large ones are stored with 16 bits where those hold them exactly; engines widen them
        once, as they load."""
        name, array = f"{self.prefix}constant_{len(self.constants)}", np.array(value, dtype=dtype)
        with np.errstate(over="ignore"):
            short = array.astype(np.float16)
        halved = array.dtype == np.float32 and array.size > LARGE and np.array_equal(short, array)
        self.constants.append(numpy_helper.from_array(short if halved else array, name))
        widened: str = self("Cast", name, to=TensorProto.FLOAT) if halved else name
        return widened

    def model(
        self, inputs: dict[str, tuple[str, list[int]]], outputs: dict[str, tuple[str, list[int]]]
    ) -> onnx.ModelProto:
        """Inputs and outputs as name → (dtype, shape)."""
        graph = helper.make_graph(
            self.nodes, "nelbo", values(inputs), values(outputs), self.constants
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )

    def axes(self, axis: int) -> str:
        """One axis, as reductions and their kin take it."""
        return self.constant([axis], "int64")

    def slice(self, value: str, start: int, end: int) -> str:
        """Columns start … end - 1 of a matrix."""
        made: str = self("Slice", value, *(self.constant([at], "int64") for at in (start, end, 1)))
        return made

    def name(self, value: str, name: str) -> None:
        """Give a value the name of a graph's output."""
        self.nodes.append(helper.make_node("Identity", [value], [name]))


def values(named: dict[str, tuple[str, list[int]]]) -> list[onnx.ValueInfoProto]:
    """Declared inputs or outputs from name → (dtype, shape)."""
    return [
        helper.make_tensor_value_info(name, TYPES[dtype], shape)
        for name, (dtype, shape) in named.items()
    ]

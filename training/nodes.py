"""ONNX graphs written as formulas: a `Value` is an array of a graph, and its operators append
nodes. torch is not needed here.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, TypeAlias

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
Operand: TypeAlias = Any
"""A value, a number, or an array of numpy or torch, which becomes a constant."""


class Value:
    """An array of a graph: an input, a constant, or what a node gives.

    Operators and methods have the names and the meaning that they have for a tensor of torch, so
    that one formula serves both (see arrays). A number beside a value gets the value's type.

    >>> nodes = Nodes(rows=2)
    >>> x = nodes.input("x", "float64", [2, 3])
    >>> total = nodes.output("total", (2 * x + 1).sum(1), [2])
    >>> [node.op_type for node in nodes.model().graph.node]
    ['Mul', 'Add', 'MatMul', 'Squeeze', 'Identity']
    """

    __array_ufunc__ = None
    """Leaves `array * value` to this class."""

    def __init__(self, nodes: "Nodes", name: str, dtype: str) -> None:
        self.nodes = nodes
        self.name = name
        self.dtype = dtype

    def op(self, op: str, *others: Operand, dtype: str | None = None, **attributes: Any) -> "Value":
        """A node whose first input is this value."""
        return self.nodes.op(op, self, *others, dtype=dtype, **attributes)

    def _before(self, op: str, left: Operand) -> "Value":
        return self.nodes.op(op, self.nodes.lifted(left, self.dtype), self)

    def __add__(self, other: Operand) -> "Value":
        return self.op("Add", other)

    def __radd__(self, other: Operand) -> "Value":
        return self._before("Add", other)

    def __sub__(self, other: Operand) -> "Value":
        return self.op("Sub", other)

    def __rsub__(self, other: Operand) -> "Value":
        return self._before("Sub", other)

    def __mul__(self, other: Operand) -> "Value":
        return self.op("Mul", other)

    def __rmul__(self, other: Operand) -> "Value":
        return self._before("Mul", other)

    def __truediv__(self, other: Operand) -> "Value":
        return self.op("Div", other)

    def __rtruediv__(self, other: Operand) -> "Value":
        return self._before("Div", other)

    def __matmul__(self, other: Operand) -> "Value":
        return self.op("MatMul", other)

    def __neg__(self) -> "Value":
        return self.op("Neg")

    def __ge__(self, other: Operand) -> "Value":
        return self.op("GreaterOrEqual", other, dtype="bool")

    def __gt__(self, other: Operand) -> "Value":
        return self.op("Greater", other, dtype="bool")

    def __le__(self, other: Operand) -> "Value":
        return self.op("LessOrEqual", other, dtype="bool")

    def eq(self, other: Operand) -> "Value":
        return self.op("Equal", other, dtype="bool")

    def fmod(self, other: Operand) -> "Value":
        return self.op("Mod", other, fmod=1)

    def maximum(self, other: Operand) -> "Value":
        return self.op("Max", other)

    def clamp(self, low: float, high: float) -> "Value":
        return self.op("Clip", low, high)

    def abs(self) -> "Value":
        return self.op("Abs")

    def sign(self) -> "Value":
        return self.op("Sign")

    def floor(self) -> "Value":
        return self.op("Floor")

    def exp(self) -> "Value":
        return self.op("Exp")

    def log(self) -> "Value":
        return self.op("Log")

    def sqrt(self) -> "Value":
        return self.op("Sqrt")

    def square(self) -> "Value":
        return self * self

    def cos(self) -> "Value":
        return self.op("Cos")

    def sin(self) -> "Value":
        return self.op("Sin")

    def tanh(self) -> "Value":
        return self.op("Tanh")

    def asinh(self) -> "Value":
        """By its definition: ONNX Runtime has the operator for float32 alone."""
        return self.sign() * (self.abs() + (self.square() + 1).sqrt()).log()

    def relu(self) -> "Value":
        return self.op("Relu")

    def isnan(self) -> "Value":
        return self.op("IsNaN", dtype="bool")

    def softmax(self, axis: int) -> "Value":
        return self.op("Softmax", axis=axis)

    def log_softmax(self, axis: int) -> "Value":
        return self.op("LogSoftmax", axis=axis)

    def cumsum(self, axis: int) -> "Value":
        return self.op("CumSum", np.int64(axis))

    def sum(self, axis: int, keepdim: bool = False) -> "Value":
        return self.op("ReduceSum", [axis], keepdims=int(keepdim))

    def mean(self, axis: int) -> "Value":
        return self.op("ReduceMean", [axis], keepdims=0)

    def amax(self, axis: int, keepdim: bool = False) -> "Value":
        return self.op("ReduceMax", [axis], keepdims=int(keepdim))

    def logsumexp(self, axis: int) -> "Value":
        top = self.amax(axis, keepdim=True)
        return (top + (self - top).exp().sum(axis, keepdim=True).log()).op("Squeeze", [axis])

    def highest(self, count: int, axis: int = 1) -> tuple["Value", "Value"]:
        """The `count` highest along the axis, the highest first, and their places; the first of
        equal ones."""
        return self._top(count, axis)

    def lowest(self, count: int, axis: int = 1) -> tuple["Value", "Value"]:
        """The `count` lowest along the axis, the lowest first, and their places."""
        return self._top(count, axis, largest=0)

    def _top(self, count: int, axis: int, **attributes: int) -> tuple["Value", "Value"]:
        types = (self.dtype, "int64")
        top, position = self.nodes.ops("TopK", types, self, [count], axis=axis, **attributes)
        return top, position

    def unsqueeze(self, axis: int) -> "Value":
        return self.op("Unsqueeze", [axis])

    def squeeze(self, axis: int) -> "Value":
        return self.op("Squeeze", [axis])

    def reshape(self, *shape: int) -> "Value":
        return self.op("Reshape", list(shape))

    def expand(self, *shape: int) -> "Value":
        return self.op("Expand", list(shape))

    def repeat(self, *times: int) -> "Value":
        return self.op("Tile", list(times))

    def permute(self, *axes: int) -> "Value":
        return self.op("Transpose", perm=axes)

    def index_select(self, axis: int, index: Operand) -> "Value":
        """Slices at an int64 index of any shape."""
        index = np.int64(index) if isinstance(index, int) else index
        return self.op("Gather", index, axis=axis)

    def gather(self, axis: int, index: Operand) -> "Value":
        return self.op("GatherElements", index, axis=axis)

    def __getitem__(self, key: tuple[Any, Any]) -> "Value":
        """`x[:, first:end]` are columns, `x[:, None]` has an axis more."""
        whole, columns = key
        assert whole == slice(None), "all rows are taken"
        if columns is None:
            return self.unsqueeze(1)
        first = columns.start or 0
        end = np.iinfo(np.int64).max if columns.stop is None else columns.stop
        return self.op("Slice", [first], [end], [1])

    def double(self) -> "Value":
        return self._cast("float64")

    def float(self) -> "Value":
        return self._cast("float32")

    def long(self) -> "Value":
        return self._cast("int64")

    def _cast(self, dtype: str) -> "Value":
        return self if self.dtype == dtype else self.op("Cast", dtype=dtype, to=TYPES[dtype])


class Nodes:
    """A graph under construction, for batches of exactly `rows` rows."""

    def __init__(self, rows: int, prefix: str = "") -> None:
        self.rows = rows
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._constants: dict[tuple[object, ...], Value] = {}

    def op(self, op: str, *inputs: Operand, dtype: str | None = None, **attributes: Any) -> Value:
        """Append a node. Without `dtype` what it gives has the type of its first input."""
        first = self.lifted(inputs[0])
        return self.ops(op, [dtype or first.dtype], first, *inputs[1:], **attributes)[0]

    def ops(
        self, op: str, dtypes: Sequence[str], *inputs: Operand, **attributes: Any
    ) -> list[Value]:
        """Append a node that gives as many values as there are types."""
        beside = next((x.dtype for x in inputs if isinstance(x, Value)), None)
        names = [self.lifted(x, beside).name for x in inputs]
        outputs = [f"{self.prefix}{op.lower()}_{len(self.nodes)}_{i}" for i in range(len(dtypes))]
        self.nodes.append(helper.make_node(op, names, outputs, **attributes))
        return [Value(self, name, dtype) for name, dtype in zip(outputs, dtypes, strict=True)]

    def lifted(self, x: Operand, beside: str | None = None) -> Value:
        """An operand as a value; a bare number has the type of the value `beside` it."""
        if isinstance(x, Value):
            return x
        return self.constant(x, beside if isinstance(x, int | float) else None)

    def constant(self, x: Operand, dtype: str | None = None) -> Value:
        """Equal ones are stored once. Large ones are stored with 16 bits where those hold them
        exactly; engines widen them once, as they load."""
        plain = x.numpy() if hasattr(x, "numpy") else x
        array = np.array(plain, dtype=dtype, order="C")
        content = hashlib.sha256(array.tobytes()).digest()
        key = (array.dtype.str, array.shape, content)
        if key not in self._constants:
            self._constants[key] = self._stored(array)
        return self._constants[key]

    def _stored(self, array: np.ndarray[Any, Any]) -> Value:
        name = f"{self.prefix}constant_{len(self.initializers)}"
        with np.errstate(over="ignore"):
            short = array.astype(np.float16)
        is_short = array.dtype == np.float32 and array.size > LARGE and np.array_equal(short, array)
        self.initializers.append(numpy_helper.from_array(short if is_short else array, name))
        if is_short:
            return Value(self, name, "float16").float()
        return Value(self, name, array.dtype.name)

    def input(self, name: str, dtype: str, shape: Sequence[int]) -> Value:
        """Declare an input of the graph."""
        name = self.prefix + name
        self.inputs.append(helper.make_tensor_value_info(name, TYPES[dtype], shape))
        return Value(self, name, dtype)

    def output(self, name: str, value: Value, shape: Sequence[int]) -> Value:
        """Declare a value an output of the graph."""
        name = self.prefix + name
        self.nodes.append(helper.make_node("Identity", [value.name], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, TYPES[value.dtype], shape))
        return Value(self, name, value.dtype)

    def graph(self, name: str) -> onnx.GraphProto:
        return helper.make_graph(self.nodes, name, self.inputs, self.outputs, self.initializers)

    def model(self) -> onnx.ModelProto:
        model = helper.make_model(
            self.graph("nelbo"),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        _add_in_order(model)
        return model


def _add_in_order(model: onnx.ModelProto) -> None:
    """Sums along the last axis become products with ones.

    ONNX Runtime adds the numbers of a row in an order that depends on where in memory the row
    begins, so that the sum would depend, in its last bits, on the row's place in the batch.
    """
    inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    types = {value.name: value.type.tensor_type for value in inferred}
    graph = model.graph
    constants = {constant.name: constant for constant in graph.initializer}
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        of_input = types.get(node.input[0])
        if node.op_type != "ReduceSum" or of_input is None:
            graph.node.append(node)
            continue
        (axis,) = numpy_helper.to_array(constants[node.input[1]])
        sizes = [dimension.dim_value for dimension in of_input.shape.dim]
        if axis % len(sizes) != len(sizes) - 1:
            graph.node.append(node)
            continue
        ones = f"ones_{sizes[-1]}_{of_input.elem_type}"
        if ones not in constants:
            one = np.ones((sizes[-1], 1), helper.tensor_dtype_to_np_dtype(of_input.elem_type))
            constants[ones] = numpy_helper.from_array(one, ones)
            graph.initializer.append(constants[ones])
        (total,) = node.output
        if helper.get_node_attr_value(node, "keepdims"):
            graph.node.append(helper.make_node("MatMul", [node.input[0], ones], [total]))
        else:
            product = f"{total}_product"
            graph.node.append(helper.make_node("MatMul", [node.input[0], ones], [product]))
            graph.node.append(helper.make_node("Squeeze", [product, node.input[1]], [total]))


def where(condition: Operand, a: Operand, b: Operand) -> Value:
    """`a` where the condition holds, else `b`; one of them is a value."""
    nodes = next(x.nodes for x in (a, b, condition) if isinstance(x, Value))
    if isinstance(a, int | float):
        b = nodes.lifted(b)
        a = nodes.lifted(a, b.dtype)
    a = nodes.lifted(a)
    return nodes.op("Where", condition, a, nodes.lifted(b, a.dtype), dtype=a.dtype)


def concat(parts: Sequence[Operand], axis: int) -> Value:
    """The parts one after another along an axis; the first one is a value."""
    first: Value = parts[0]
    return first.op("Concat", *parts[1:], axis=axis)


def scan(body: Nodes, state: Sequence[Value], slices: Sequence[Value]) -> list[Value]:
    """A graph repeated over the slices along the first axis of some values: the last state, then
    what each round gives besides, stacked.

    The body's inputs are the state and one slice of each; its outputs the next state, then the
    rest.
    """
    dtypes = [_dtype(output) for output in body.outputs]
    return state[0].nodes.ops(
        "Scan", dtypes, *state, *slices, body=body.graph("round"), num_scan_inputs=len(slices)
    )


def _dtype(declared: onnx.ValueInfoProto) -> str:
    by_number = {int(number): dtype for dtype, number in TYPES.items()}
    return by_number[declared.type.tensor_type.elem_type]

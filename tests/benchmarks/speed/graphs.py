"""The engine alone on one thread: score graphs beside their matrix products, and typed rows."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pyarrow as pa
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from nelbo.engine import Engine
from tests.benchmarks.speed.bench import Bench, train_briefly, write_rows
from tests.benchmarks.speed.loops import PIECE, Scoring
from tests.benchmarks.speed.tables import Shape, write_planted
from tests.benchmarks.speed.turns import Goal, Line, Run, in_turns, line, timed

NUMBERS = Shape(15_000, 10)
TEN = Shape(43_000, 7, (5, 7, 8), values=10_000)
MANY_CATEGORIES = Shape(40_000, 12, (3, 12, 16, 100, 100, 2_000, 4_000))
TABLES = {
    "numbers alone, 10,000 exemplars": (NUMBERS, Goal(200_000, of_ratio=False)),
    "7 numbers, 3 categories": (TEN, Goal(50_000, of_ratio=False)),
    "19 columns, thousands of categories": (MANY_CATEGORIES, Goal(50_000, of_ratio=False)),
}
ADULT_GOAL = Goal(110_000, of_ratio=False)
GENERATION_GOAL = Goal(150_000, of_ratio=False)
UNIT = "rows/CPU s"
"""One thread, by its CPU seconds: so other work on the machine counts less."""


def graphs(bench: Bench) -> Iterator[Line]:
    """The score graphs of four tables."""
    yield graph_line(bench, "Adult", bench.engine, ADULT_GOAL)
    for name, (shape, goal) in TABLES.items():
        if bench.sizes.trial:
            shape = Shape(1_500, shape.numbers, shape.categories, shape.values)
        table = bench.folder / f"graph-{shape.numbers}.parquet"
        write_planted(shape, table)
        model = train_briefly(table, table.with_suffix(""))
        yield graph_line(bench, name, Engine.load(model), goal)


def graph_line(bench: Bench, name: str, engine: Engine, goal: Goal) -> Line:
    rows = max(bench.sizes.rows // 20, 512)
    path = bench.folder / "graph-rows.parquet"
    write_rows(engine, path, rows)
    scoring = Scoring(engine, path)
    products = Products(engine.artifact.folder / engine.manifest.graphs["score"].file)
    batch = engine.manifest.batch

    scoring.run(0, min(PIECE, rows))
    ours, floor = in_turns(
        bench.sizes.times,
        partial(by_cpu, rows, lambda: scoring.run(0, rows)),
        partial(by_cpu, rows, lambda: products.run(math.ceil(rows / batch))),
    )
    adds = products.multiply_adds / batch
    note = f"{adds:,.0f} multiply-adds per row, batches of {batch} rows"
    beside = "its matrix products alone"
    return line(f"score graph, {name}", UNIT, UNIT, ours, floor, beside, goal, note)


def typed(bench: Bench) -> Iterator[Line]:
    """Adult, from typed rows to typed rows."""
    rows = max(bench.sizes.rows // 10, 512)
    engine = bench.engine
    starts = range(0, rows, PIECE)
    pieces = [engine.generate(1, start, min(PIECE, rows - start)).batch for start in starts]
    works: dict[str, Callable[[pa.RecordBatch, int], object]] = {
        "scoring": engine.score,
        "generation": lambda piece, first: engine.generate(1, first, piece.num_rows),
        "copies by `augment`": lambda piece, first: engine.augment(piece, first, 1, 1),
        "copies, spread 0.5": lambda piece, first: engine.augment(piece, first, 1, 1, 0.5),
    }

    def run(work: Callable[[pa.RecordBatch, int], object]) -> None:
        for start, piece in zip(starts, pieces, strict=True):
            work(piece, start)

    for work in works.values():
        work(pieces[0], 0)
    sides = [partial(by_cpu, rows, partial(run, work)) for work in works.values()]
    for name, runs in zip(works, in_turns(bench.sizes.times, *sides), strict=True):
        goal = GENERATION_GOAL if name == "generation" else None
        yield line(f"{name}, Adult, typed rows", UNIT, UNIT, runs, goal=goal)


def by_cpu(rows: int, work: Callable[[], None]) -> Run:
    run = timed(work, lambda seconds: {"rows/s": rows / seconds})
    return Run({UNIT: rows / run.cpu_s, **run.figures}, run.cpu_s)


class Products:
    """The matrix products of a graph for one batch, and nothing else of it, in ONNX Runtime.

    `multiply_adds` is their number for one batch: each number of a product takes as many as the
    left matrix has columns.
    """

    def __init__(self, path: Path) -> None:
        self.inputs: dict[str, NDArray[np.float32]] = {}
        self.multiply_adds = 0
        nodes, weights, outputs = [], [], []
        for i, (left, right) in enumerate(product_shapes(path)):
            x, w, y = f"x{left}", f"w{i}", f"y{i}"
            nodes.append(helper.make_node("MatMul", [x, w], [y]))
            weights.append(numpy_helper.from_array(np.ones(right, np.float32), w))
            outputs.append(helper.make_tensor_value_info(y, TensorProto.FLOAT, None))
            self.inputs[x] = np.ones(left, np.float32)
            self.multiply_adds += math.prod(left) * right[-1]
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, matrix.shape)
            for name, matrix in self.inputs.items()
        ]
        graph = helper.make_graph(nodes, "products", inputs, outputs, weights)
        opsets = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        self.session = ort.InferenceSession(model.SerializeToString(), one_thread())

    def run(self, batches: int) -> None:
        for _ in range(batches):
            self.session.run(None, self.inputs)


def product_shapes(path: Path) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The shapes of both matrices of each product of a graph."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    shapes = {constant.name: tuple(constant.dims) for constant in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    for node in graph.node:
        if node.op_type in ("MatMul", "Gemm"):
            left, right = (shapes[name] for name in node.input[:2])
            transposed = any(attribute.name == "transB" for attribute in node.attribute)
            yield left, right[::-1] if transposed else right


def one_thread() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return options

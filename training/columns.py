"""One step for each column after another in a graph, with the column's own weights and cells."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import concat
from .nodes import Nodes, Value, scan

UNROLLED = 100
"""Up to this number of columns, each is a piece of graph of its own with its own number of codes.
Wider tables are a Scan over padded weights, because thousands of nodes take long to load."""

Weights = dict[str, list[NDArray[Any]]]
"""By name, one array for each column."""
Step = Callable[[Value, Mapping[str, Value]], tuple[Value, Value]]
"""From a running value h [m, H] and a column's weights and cells by name to the next h and the
column's result [m]."""


def widths(sizes: Sequence[int]) -> list[int]:
    """Number of codes of each column as the graphs hold them: padded to the largest where they are
    a Scan."""
    return list(sizes) if len(sizes) <= UNROLLED else [max(sizes)] * len(sizes)


def padded(
    parts: Sequence[NDArray[Any]], rows: Sequence[int], value: float = 0.0
) -> list[NDArray[Any]]:
    """Each column's array with rows of `value` behind it, up to its number of rows."""

    def one(part: NDArray[Any], size: int) -> NDArray[Any]:
        edges = [(0, size - len(part)), *[(0, 0)] * (part.ndim - 1)]
        return np.pad(part, edges, constant_values=value)

    return [one(part, size) for part, size in zip(parts, rows, strict=True)]


def over_columns(
    step: Step, h: Value, weights: Weights, cells: Mapping[str, Value], rows: int
) -> Value:
    """The results [m, d] of `step` for each column, from its weights and cells ([m, d] each), with
    m = `rows`."""
    by_column = {name: cell.permute(1, 0) for name, cell in cells.items()}
    if len(weights["hidden"]) > UNROLLED:
        return _scanned(step, h, weights, by_column, rows)
    return _unrolled(step, h, weights, by_column)


def _unrolled(step: Step, h: Value, weights: Weights, cells: Mapping[str, Value]) -> Value:
    results = []
    for column in range(len(weights["hidden"])):
        of_column = {name: h.nodes.constant(parts[column]) for name, parts in weights.items()}
        for name, cell in cells.items():
            of_column[name] = cell.index_select(0, column)
        h, result = step(h, of_column)
        results.append(result.unsqueeze(1))
    return concat(results, 1)


def _scanned(
    step: Step, h: Value, weights: Weights, cells: Mapping[str, Value], rows: int
) -> Value:
    stacked = {name: np.stack(parts) for name, parts in weights.items()}
    h_shape = [rows, stacked["hidden"].shape[-1]]

    body = Nodes(rows, "step_")
    h_before = body.input("h", "float32", h_shape)
    of_column = {
        name: body.input(name, part.dtype.name, part.shape[1:]) for name, part in stacked.items()
    }
    for name, cell in cells.items():
        of_column[name] = body.input(name, cell.dtype, [rows])
    h_after, result = step(h_before, of_column)
    body.output("h_next", h_after, h_shape)
    body.output("result", result, [rows])

    slices = [h.nodes.constant(part) for part in stacked.values()]
    _, results = scan(body, [h], [*slices, *cells.values()])
    return results.permute(1, 0)

"""Functions that take tensors of torch and values of a graph alike.

A formula that is written with them, with operators and with the methods that `Value` shares with
`Tensor` is stated once: torch trains with it, and a graph is built by calling it with values. Where
a graph needs another algorithm, both forms are here or in one class, side by side, and
tests/training/test_forms.py compares them.
"""

from collections.abc import Sequence
from typing import TypeVar, overload

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import nodes
from .nodes import Value

Array = TypeVar("Array", Tensor, Value)


@overload
def where(  # type: ignore[overload-overlap]  # the second one is for any value among them
    condition: Tensor, a: Tensor | float, b: Tensor | float
) -> Tensor: ...
@overload
def where(
    condition: Tensor | Value, a: Tensor | Value | float, b: Tensor | Value | float
) -> Value: ...
def where(
    condition: Tensor | Value, a: Tensor | Value | float, b: Tensor | Value | float
) -> Tensor | Value:
    """`a` where the condition holds, else `b`."""
    if any(isinstance(x, Value) for x in (condition, a, b)):
        return nodes.where(condition, a, b)
    return torch.where(condition, a, b)  # type: ignore[arg-type]  # none of them is a value


def concat(parts: Sequence[Array], axis: int) -> Array:
    """The parts one after another along an axis."""
    first = parts[0]
    if isinstance(first, Value):
        return nodes.concat(parts, axis)
    return torch.cat(list(parts), axis)


def take(table: Tensor, index: Array) -> Array:
    """Rows of a table at an int64 index of any shape."""
    if isinstance(index, Value):
        return index.nodes.op("Gather", table, index, axis=0)
    return table[index]


def full(like: Array, value: float) -> Array:
    """float64[n] of one number, for the n rows of an array."""
    if isinstance(like, Value):
        return like.nodes.constant(np.full(like.nodes.rows, value))
    return torch.full((len(like),), value, dtype=torch.float64)


def picked(u: Array, upto: Array | Tensor) -> Array:
    """int64[n]: the number of sums `upto` [n or 1, C − 1] that uniform numbers u [n, 1] reach."""
    return (u >= upto).float().sum(1).long()


def reached(x: Array, edges: Tensor) -> Array:
    """int64[n, D]: the number of ascending edges [D, E] of its column that x float64[n, D] reaches.

    The graph finds it by halving: it has no operator that searches.
    """
    if isinstance(x, Value):
        return _reached_by_halving(x, edges)
    return torch.searchsorted(edges, x.T.contiguous(), right=True).T


def _reached_by_halving(x: Value, edges: Tensor) -> Value:
    columns, width = edges.shape
    halvings = width.bit_length()
    padded = np.full((columns, 2**halvings), np.inf)
    padded[:, :width] = edges.numpy()
    first = np.arange(columns, dtype=np.int64) * 2**halvings
    count = x.nodes.constant(np.zeros(columns, dtype=np.int64))
    for half in (2**level for level in reversed(range(halvings))):
        edge = take(torch.from_numpy(padded.reshape(-1)), count + (first + half - 1))
        count = count + (edge <= x).long() * half
    return count


def addmm(bias: Tensor | Array, x: Array, weight: Tensor | Array) -> Array:
    """x @ weight + bias, in one step."""
    if isinstance(x, Value):
        return x.op("Gemm", weight, bias)
    return torch.addmm(bias, x, weight)


def linear(x: Array, weight: Tensor | Array, bias: Tensor | Array) -> Array:
    """x @ weightᵀ + bias, in one step."""
    if isinstance(x, Value):
        return x.op("Gemm", weight, bias, transB=1)
    return F.linear(x, weight, bias)


def through(module: nn.Module, x: Array) -> Array:
    """What a layer, or several of them in a row, makes of x."""
    if not isinstance(x, Value):
        return module(x)  # type: ignore[no-any-return]
    match module:
        case nn.Sequential():
            for layer in module:
                x = through(layer, x)
            return x
        case nn.Linear():
            return linear(x, module.weight, module.bias)
        case nn.LayerNorm():
            return x.op(
                "LayerNormalization", module.weight, module.bias, axis=-1, epsilon=module.eps
            )
        case nn.ReLU():
            return x.relu()
    return module(x)  # type: ignore[no-any-return]  # one of ours, which takes values too


def register_buffers(module: nn.Module, **buffers: Tensor) -> None:
    """Make tensors buffers of a module: they move and are stored with it, and are not trained."""
    for name, values in buffers.items():
        module.register_buffer(name, values)

"""The methods of Likelihoods node by node: codes and densities of rows, and values of codes that
were drawn."""

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from training.fit import VAE
from training.likelihoods import Category, Likelihoods
from training.nodes import Nodes
from training.ranges import PARTS

EXACT = 1e-6
"""Part of a value's last digit that is rounding, not value."""


def encode(nodes: Nodes, vae: VAE) -> tuple[str, str]:
    """Likelihoods.encode: x int64[B, d] codes and log p(x | code) float64[B, d] from numbers and
    codes."""
    tables = vae.likelihoods
    if not tables.number_at:
        return "codes", nodes.constant(np.zeros((1, len(tables.columns))))
    x, one = cut(nodes, tables), nodes.constant(tables.integral.double().numpy())
    missing = nodes("IsNaN", x)
    first, last = nodes.constant(tables.first.numpy()), nodes.constant(tables.last.numpy())
    x = nodes("Where", missing, first, x)
    cell = _cell(nodes, x, tables.edges.numpy())
    known = nodes("Gather", nodes.constant(tables.cell_code.reshape(-1).numpy()), cell)
    codes = nodes("Where", missing, nodes.constant(tables.missing_code.numpy()), known)
    density = nodes("Gather", nodes.constant(tables.cell_log_density.reshape(-1).numpy()), cell)
    zero = nodes.constant(0.0)
    for beyond, rates in zip(
        (nodes("Sub", first, x), nodes("Sub", x, last)), tables.rates.numpy().T, strict=True
    ):
        outside = nodes("Greater", beyond, zero)
        distance = nodes("Where", outside, nodes("Sub", beyond, one), zero)
        density = nodes("Sub", density, nodes("Mul", distance, nodes.constant(rates)))
    density = nodes("Where", missing, zero, density)
    if not tables.category_at:
        return codes, density
    order = nodes.constant(np.argsort(tables.number_at + tables.category_at))
    none = nodes("Mul", nodes("Cast", "codes", to=TensorProto.DOUBLE), zero)
    x = nodes("Gather", nodes("Concat", codes, "codes", axis=1), order, axis=1)
    return x, nodes("Gather", nodes("Concat", density, none, axis=1), order, axis=1)


def cut(nodes: Nodes, tables: Likelihoods) -> str:
    """Likelihoods.cut: float64[B, …]."""
    x = "numbers"
    if any(tables.follows):
        of_fields = nodes("Gather", x, nodes.constant(tables.source.numpy()), axis=1)
        x = nodes("Sub", of_fields, nodes.constant(tables.origin.numpy()))
    if tables.integral.any():
        x = nodes("Div", x, nodes.constant(tables.unit.numpy()))
        x = nodes("Where", nodes.constant(tables.integral.numpy()), nodes("Floor", x), x)
    if any(tables.follows):
        times = nodes("Floor", nodes("Div", x, nodes.constant(tables.period.numpy())))
        x = nodes(
            "Sub",
            x,
            nodes("Mul", times, nodes.constant(tables.period.nan_to_num(posinf=0.0).numpy())),
        )
    return x


def _cell(nodes: Nodes, x: str, edges: NDArray[np.float64]) -> str:
    """Place of x float64[B, n] in flat tables of n rows."""
    n, width = edges.shape
    made: str = nodes(
        "Add", reached(nodes, x, edges), nodes.constant(np.arange(n, dtype=np.int64) * (width + 1))
    )
    return made


def reached(nodes: Nodes, x: str, edges: NDArray[np.float64]) -> str:
    """How many edges [n, …] of its column are not above x float64[B, n], by halving: int64[B,
    n]."""
    n, width = edges.shape
    levels = width.bit_length()
    padded = np.full((n, 2**levels), np.inf)
    padded[:, :width] = edges
    flat = nodes.constant(padded.reshape(-1))
    own, zero = np.arange(n, dtype=np.int64) * 2**levels, nodes.constant(0, "int64")
    count: str = nodes("Mul", nodes("Cast", x, to=TensorProto.INT64), zero)
    for half in (2**level for level in reversed(range(levels))):
        edge = nodes("Gather", flat, nodes("Add", count, nodes.constant(own + half - 1)))
        not_above = nodes("LessOrEqual", edge, x)
        count = nodes("Add", count, nodes("Where", not_above, nodes.constant(half, "int64"), zero))
    return count


def by_column(nodes: Nodes, tables: Likelihoods, terms: str) -> str:
    """Likelihoods.by_column."""
    if not any(tables.follows):
        return terms
    own = np.equal.outer(tables.column_of.numpy(), np.arange(len(tables.fitted)))
    made: str = nodes("MatMul", terms, nodes.constant(own.astype(np.float64)))
    return made


def values(nodes: Nodes, cells: str, vae: VAE, d: int) -> str:
    """Numbers float64[B, …] from their codes: a uniform number through the piecewise linear
    quantile function of the code.

    A datetime's fields are added up.
    """
    tables, n = vae.likelihoods, len(vae.likelihoods.fitted_numbers)
    k = max(tables.sizes)
    knots, upto = np.zeros((n, k, PARTS + 1)), np.zeros((n, k, PARTS + 1))
    end = np.zeros((n, k))
    for i, number in enumerate(tables.fitted_numbers):
        last, is_point = number.knots[:, -1], number.knots[:, -2] == number.knots[:, -1]
        knots[i, : number.known], upto[i, : number.known] = number.knots, number.upto
        end[i, : number.known] = np.where(is_point, np.nextafter(last, np.inf), last)
    u = nodes("Where", "mode", nodes.constant(0.5), nodes.slice("u", d, d + n))
    row = nodes("Add", cells, nodes.constant(np.arange(n, dtype=np.int64) * k))
    at = _part(nodes, u, row, upto)
    flat, shares = nodes.constant(knots.reshape(-1)), np.diff(upto, append=1)
    low, high = (
        nodes("Gather", flat, at),
        nodes("Gather", flat, nodes("Add", at, nodes.constant(1, "int64"))),
    )
    above = nodes("Sub", u, nodes("Gather", nodes.constant(upto.reshape(-1)), at))
    share = nodes("Gather", nodes.constant(np.where(shares > 0, shares, 1.0).reshape(-1)), at)
    value = nodes("Add", low, nodes("Mul", nodes("Div", above, share), nodes("Sub", high, low)))
    digits = tables.decimals.numpy()
    ten = nodes.constant(10.0 ** np.maximum(digits, 0))
    rounded = nodes(
        "Div", nodes("Floor", nodes("Add", nodes("Mul", value, ten), nodes.constant(EXACT))), ten
    )
    if (tables.grid > 1).any():
        above = nodes("Sub", rounded, nodes.constant(tables.first.numpy()))
        on_grid = nodes(
            "Sub", rounded, nodes("Mod", above, nodes.constant(tables.grid.numpy()), fmod=1)
        )
        rounded = nodes("Where", nodes.constant(tables.grid.numpy() > 1), on_grid, rounded)
    whole = nodes("Where", nodes.constant(tables.integral.numpy() | (digits >= 0)), rounded, value)
    least = nodes("Gather", nodes.constant(knots[:, :, 0].reshape(-1)), row)
    beyond = nodes("GreaterOrEqual", whole, nodes("Gather", nodes.constant(end.reshape(-1)), row))
    whole = nodes(
        "Where", beyond, least, nodes("Max", whole, least)
    )  # rounding may leave the code, of which this is a value
    scaled = nodes("Mul", whole, nodes.constant(tables.unit.numpy()))
    missing = nodes("Equal", cells, nodes.constant(tables.missing_code.numpy()))
    if any(tables.follows):
        scaled, missing = _together(nodes, tables, scaled, missing)
    made: str = nodes("Where", missing, nodes.constant(np.nan), scaled)
    return made


def _part(nodes: Nodes, u: str, row: str, upto: NDArray[np.float64]) -> str:
    """Place of the knot before u float64[B, n] in flat tables of PARTS + 1 knots a row, reached at
    `upto`: int64[B, n]."""
    flat, zero, one = (
        nodes.constant(upto.reshape(-1)),
        nodes.constant(0, "int64"),
        nodes.constant(1, "int64"),
    )
    start = nodes("Mul", row, nodes.constant(PARTS + 1, "int64"))
    at = start
    for inner in range(1, PARTS):
        knot = nodes("Gather", flat, nodes("Add", start, nodes.constant(inner, "int64")))
        at = nodes("Add", at, nodes("Where", nodes("LessOrEqual", knot, u), one, zero))
    made: str = at
    return made


def _together(nodes: Nodes, tables: Likelihoods, scaled: str, missing: str) -> tuple[str, str]:
    """Number columns, and which of them are missing, from their fields: what a cut took apart is
    added up."""
    own = np.equal.outer(tables.source.numpy(), np.arange(len(tables.schema.numbers)))
    first = own.argmax(0)
    total = nodes("MatMul", scaled, nodes.constant(own.astype(np.float64)))
    origin = nodes.constant(tables.origin.numpy()[first])
    return nodes("Add", total, origin), nodes("Gather", missing, nodes.constant(first), axis=1)


def with_rarer(nodes: Nodes, codes: str, vae: VAE, u: str) -> str:
    """Codes int64[B, …] of categories with a rarer one, by its share, in the place of each `other`;
    u float64[B, …]."""
    columns = [column for column in vae.likelihoods.columns if isinstance(column, Category)]
    edges = np.full((len(columns), max(len(column.rarer) for column in columns)), np.inf)
    for i, column in enumerate(columns):
        edges[i, : len(column.rarer)] = np.cumsum(column.rarer) / max(1, column.rarer.sum())
        edges[i, max(0, len(column.rarer) - 1) :] = np.inf
    other = vae.likelihoods.other[vae.likelihoods.category_at].numpy()
    rarer = nodes("Add", reached(nodes, u, edges), nodes.constant(other + 2))
    made: str = nodes("Where", nodes("Equal", codes, nodes.constant(other)), rarer, codes)
    return made

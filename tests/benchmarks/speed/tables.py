"""Tables with structure, made from a seed: columns follow a few hidden factors, with noise."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nelbo.cells import Array

Floats = NDArray[np.float64]
FACTORS = 4
NOISE = 0.5


@dataclass(frozen=True)
class Shape:
    """Number of rows, of number columns and of categories of each categorical column.

    Numbers are rounded to `values` distinct values or so.
    """

    rows: int
    numbers: int
    categories: tuple[int, ...] = ()
    values: int = 1_000

    def __str__(self) -> str:
        return f"{self.rows:,} × {self.numbers + len(self.categories):,}"


def planted(shape: Shape, seed: int = 0) -> pa.Table:
    """A table of this shape."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(shape.rows, FACTORS))
    columns: dict[str, Array] = {}
    for i in range(shape.numbers):
        columns[f"number_{i}"] = _numbers(_mixed(factors, rng), shape.values)
    for i, categories in enumerate(shape.categories):
        columns[f"category_{i}"] = _categories(_mixed(factors, rng), categories)
    return pa.table(columns)


def _mixed(factors: Floats, rng: np.random.Generator) -> Floats:
    """A sum of the factors with random weights, and noise; of variance 1 or so."""
    weights = rng.normal(size=factors.shape[1])
    mixed: Floats = factors @ (weights / np.linalg.norm(weights))
    return mixed + NOISE * rng.normal(size=len(mixed))


def _numbers(mixed: Floats, values: int) -> Array:
    """Numbers with a longer tail to the right, on a grid whose width holds `values` steps."""
    return pa.array(np.round(np.exp(mixed / 2) * values / 5) / 100)


def _categories(mixed: Floats, categories: int) -> Array:
    """Categories of which few are frequent: their numbers of rows fall as 1 / rank."""
    shares = 1 / np.arange(1, categories + 1)
    bounds = np.quantile(mixed, np.cumsum(shares / shares.sum())[:-1])
    codes = np.searchsorted(bounds, mixed)
    return pa.array([f"value {code}" for code in codes])


def write_planted(shape: Shape, path: Path) -> None:
    pq.write_table(planted(shape), path)

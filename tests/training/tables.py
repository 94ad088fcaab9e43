"""Small tables of many kinds, encoded as nelbo.encoding encodes them, and a configuration that
trains in seconds."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nelbo.encoding import decode
from nelbo.schema import Column, Kind, Schema
from training.config import Config
from training.data import Rows, Training, split_rows

Integers = NDArray[np.int64]
QUICK = Config(min_steps=40, max_steps=40, epochs=1, threads=1)
KINDS: dict[str, tuple[Kind, ...]] = {
    "mixed": ("continuous", "categorical", "integer", "boolean", "datetime"),
    "numbers only": ("continuous", "integer", "continuous"),
    "categories only": ("categorical", "boolean", "categorical"),
    "one column": ("continuous",),
    "one category": ("categorical",),
    "many columns": ("datetime", *("continuous", "categorical", "integer") * 40, "datetime"),
}


def made(name: str, rows: int = 600, seed: int = 0) -> Training:
    """A table with a hidden group in every row, so that columns depend on each other, and 10 %
    missing cells."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, rows)
    columns = tuple(_column(kind, i) for i, kind in enumerate(KINDS[name]))
    schema = Schema(columns=columns)
    numbers = np.column_stack(
        [np.empty((rows, 0)), *(_number(column, group, rng) for column in schema.numbers)]
    )
    codes = [_codes(column, group, rng) for column in schema.categoricals]
    encoded = Rows(
        numbers, np.column_stack(codes) if codes else np.empty((rows, 0), dtype=np.int64)
    )
    split = split_rows(rows, 0.1, seed)
    table = pa.Table.from_batches([decode(encoded.numbers, encoded.codes, schema)])
    return Training(schema, table, encoded, split, rows, 0, "0" * 64, ())


def _column(kind: Kind, i: int) -> Column:
    categories = {"categorical": ("a", "b", "c"), "boolean": ("false", "true")}.get(kind, ())
    return Column(
        name=f"{kind} {i}",
        kind=kind,
        categories=categories,
        step=86_400_000_000 if kind == "datetime" else 1,
    )


def _number(column: Column, group: Integers, rng: np.random.Generator) -> NDArray[Any]:
    values = 4.0 * group + rng.normal(size=len(group))
    if column.kind != "continuous":
        values = np.round(values * 100) * column.step
    return np.where(rng.random(len(group)) < 0.1, np.nan, values)


def _codes(column: Column, group: Integers, rng: np.random.Generator) -> NDArray[Any]:
    known = len(column.categories)
    values = np.where(
        rng.random(len(group)) < 0.8, group % known, rng.integers(0, known, len(group))
    )
    return np.where(rng.random(len(group)) < 0.1, known + 1, values)

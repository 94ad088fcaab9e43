"""Expectations: the likely value of a hidden cell, summarised from many draws."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nelbo.encoding import Encoded, absolute, decode
from nelbo.schema import Column, Schema

DRAWS = 99
"""Number of draws of a hidden cell.

With 99, one more draw is between the 5th lowest and the 5th highest with probability 0.9.
"""
PERCENTILES = np.array([50, 5, 95])
"""The percentiles of a number's draws that are `expected`, `low` and `high`."""


def hide_column(encoded: Encoded, schema: Schema, name: str) -> Encoded:
    """The rows with one column missing, so that no graph can use it."""
    numbers = encoded.numbers.copy()
    codes = encoded.codes.copy()
    for i, column in enumerate(schema.numbers):
        if column.name == name:
            numbers[:, i] = np.nan
    for i, column in enumerate(schema.categoricals):
        if column.name == name:
            codes[:, i] = len(column.categories) + 1
    return Encoded(numbers, codes, encoded.rows, [])


def expectation(
    schema: Schema, name: str, numbers: NDArray[np.float64], codes: NDArray[np.int64]
) -> dict[str, Any]:
    """The columns `expected`, `low`, `high`, `share` and `missing` for one column of the schema.

    The arrays hold DRAWS draws of the first row, then DRAWS of the next, in the form that encode
    gives: numbers float64[n * DRAWS, …], codes int64[n * DRAWS, …].
    """
    for i, column in enumerate(schema.numbers):
        if column.name == name:
            times = absolute(numbers, schema)[:, i]
            return _interval(column, times.reshape(-1, DRAWS))
    for i, column in enumerate(schema.categoricals):
        if column.name == name:
            return _most_frequent(column, codes[:, i].reshape(-1, DRAWS))
    raise KeyError(name)


def _interval(column: Column, draws: NDArray[np.float64]) -> dict[str, Any]:
    """The summary of draws float64[n, DRAWS].

    Each figure is one of the draws, hence a value that the column can have.
    """
    present = (~np.isnan(draws)).sum(1)
    ranks = -(-present[:, None] * PERCENTILES // 100)  # rounded up; the lowest draw has rank 1
    figures = np.take_along_axis(np.sort(draws, axis=1), np.maximum(ranks - 1, 0), axis=1)

    alone = Schema(columns=(column.model_copy(update={"since": None}),))
    no_codes = np.empty((len(draws), 0), dtype=np.int64)
    expected, low, high = (
        decode(figures[:, [i]], no_codes, alone).column(0) for i in range(len(PERCENTILES))
    )
    return {
        "expected": expected,
        "low": low,
        "high": high,
        "share": pa.nulls(len(draws), pa.float64()),
        "missing": 1 - present / DRAWS,
    }


def _most_frequent(column: Column, draws: NDArray[np.int64]) -> dict[str, Any]:
    """The summary of draws int64[n, DRAWS]."""
    missing = len(column.categories) + 1
    counts = np.zeros((len(draws), missing + 1 + len(column.rarer)), dtype=np.int64)
    np.add.at(counts, (np.arange(len(draws))[:, None], draws), 1)

    no_numbers = np.empty((len(draws), 0))
    code = counts.argmax(1)[:, None]
    expected = decode(no_numbers, code, Schema(columns=(column,))).column(0)
    nothing = pa.nulls(len(draws), expected.type)
    return {
        "expected": expected,
        "low": nothing,
        "high": nothing,
        "share": counts.max(1, initial=0) / DRAWS,
        "missing": counts[:, missing] / DRAWS,
    }

"""Expectations: the likely value of a hidden cell, summarised from many draws."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nelbo.cells import Array
from nelbo.datetime_parts import DAY, HOUR, part_of
from nelbo.encoding import Encoded, absolute, as_modelled, decode, in_clusters
from nelbo.schema import Column, Schema

Booleans = NDArray[np.bool_]

DRAWS = 99
"""Number of draws of a hidden cell.

With 99, one more draw is between the 5th lowest and the 5th highest with probability 0.9.
"""
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
FEW = 0.1
"""A category, or a missing value, with a smaller share of the draws is not expected."""
PERCENTILES = np.array([50, 5, 95])
"""The percentiles of a number's draws that are `expected`, `low` and `high`."""


def hide(encoded: Encoded, schema: Schema, order: Sequence[str], hidden: Booleans) -> Encoded:
    """The rows without the cells where `hidden` bool[n, d] is true, so that no graph can use them.
    `order` [d] names the columns."""
    numbers = encoded.numbers.copy()
    named = encoded.named.copy()
    hidden_in = dict(zip(order, hidden.T, strict=True))
    for i, column in enumerate(schema.numbers):
        numbers[hidden_in[column.name], i] = np.nan
    for i, column in enumerate(schema.categoricals):
        named[hidden_in[column.name], i] = len(column.categories) + 1
    return Encoded(numbers, as_modelled(named, schema), encoded.rows, [], named)


def expectation(
    schema: Schema, name: str, numbers: NDArray[np.float64], codes: NDArray[np.int64]
) -> dict[str, Array]:
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


def is_expected(
    schema: Schema, name: str, own: Encoded, summary: Mapping[str, Array], codes: NDArray[np.int64]
) -> bool:
    """Whether the value that one row, `own`, has in a column is among what its DRAWS draws show, of
    which these are the `summary` and the codes int64[DRAWS, …].

    A number or a date is between `low` and `high`. A category is `expected`, or at least FEW of the
    draws. A missing value is at least FEW of the draws, and so are values where it is not.
    """
    missing, low, high = (summary[figure][0].as_py() for figure in ("missing", "low", "high"))
    for i, column in enumerate(schema.categoricals):
        if column.name == name:
            code = own.codes[0, i]
            alike = in_clusters(codes[:, i], column) == in_clusters(own.codes[:, i], column)
            return bool(alike.mean() >= FEW or code == np.bincount(codes[:, i]).argmax())
    value = decode(own.numbers, own.codes, schema).column(name)[0].as_py()
    if value is None:
        return bool(missing >= FEW)
    return bool(missing <= 1 - FEW and low <= value <= high)


def unusual_time(
    schema: Schema, name: str, own: Encoded, numbers: NDArray[np.float64]
) -> str | None:
    """What is unusual about the weekday or the time of day that one row, `own`, has in a column of
    datetimes, by its draws float64[DRAWS, …]: nearly none has that weekday, or none is within an
    HOUR of that time. None for other columns."""
    for i, column in enumerate(schema.numbers):
        if column.name == name and column.kind == "datetime":
            draws = absolute(numbers, schema)[:, i]
            return _unusual_time(absolute(own.numbers, schema)[0, i], draws[~np.isnan(draws)])
    return None


def _unusual_time(micros: float, draws: NDArray[np.float64]) -> str | None:
    if np.isnan(micros) or not len(draws):
        return None
    day = int(part_of(np.array([micros]), "weekday")[0])
    if (part_of(draws, "weekday") == day).mean() < FEW / len(WEEKDAYS):
        return f"{WEEKDAYS[day]} is an unusual day"
    apart = np.abs(draws - micros) % DAY
    if np.minimum(apart, DAY - apart).min() <= HOUR:
        return None
    minutes = int(micros % DAY * 60 // HOUR)
    return f"{minutes // 60:02}:{minutes % 60:02} is an unusual time of day"


def _interval(column: Column, draws: NDArray[np.float64]) -> dict[str, Array]:
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
        "missing": pa.array(1 - present / DRAWS),
    }


def _most_frequent(column: Column, draws: NDArray[np.int64]) -> dict[str, Array]:
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
        "share": pa.array(counts.max(1, initial=0) / DRAWS),
        "missing": pa.array(counts[:, missing] / DRAWS),
    }

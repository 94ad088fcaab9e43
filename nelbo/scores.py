"""Scores as a table, and the threshold below which a row is an anomaly: one place for jobs and for work in this process."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_HEAD: list["pa.Field[Any]"] = [
    pa.field("row", pa.int64(), nullable=False),
    pa.field("nelbo", pa.float64(), nullable=False),
    pa.field("p_value", pa.float64(), nullable=False),
    pa.field("anomaly", pa.bool_()),
]
SCORES = pa.schema(_HEAD)
"""`anomaly` is null until a job has its threshold. With `explain`: then term_<column> for each column, and kl."""


def score_schema(columns: Iterable[str] | None) -> pa.Schema:
    """The schema of scores; with the columns in the order of their terms, that of explained scores."""
    if columns is None:
        return SCORES
    names = [*(f"term_{column}" for column in columns), "kl"]
    return pa.schema([*SCORES, *(pa.field(name, pa.float64(), nullable=False) for name in names)])


def score_batch(
    rows: NDArray[np.int64],
    nelbo: Floats,
    p_value: Floats,
    threshold: float | None,
    columns: Sequence[str] | None = None,
    terms: Floats | None = None,
    kl: Floats | None = None,
) -> pa.RecordBatch:
    """Scores of n rows, float64[n] each; with `columns`, also their terms float64[n, d] and kl float64[n]."""
    flags = pa.nulls(len(rows), pa.bool_()) if threshold is None else pa.array(p_value <= threshold)
    arrays = [pa.array(rows), pa.array(nelbo), pa.array(p_value), flags]
    if columns is not None and terms is not None and kl is not None:
        by_column = terms.reshape(len(rows), len(columns)).T
        arrays += [*(pa.array(np.ascontiguousarray(term)) for term in by_column), pa.array(kl)]
    return pa.record_batch(arrays, schema=score_schema(columns))


def threshold_of(p_values: Counter[float], alpha: float, fdr: float | None) -> float:
    """alpha or, to bound the false discovery rate, the largest p-value p with p <= fdr * #{p-values <= p} / #p-values
    (Benjamini and Hochberg 1995), 0 where there is none. Conformal p-values have few distinct values: memory is small."""
    if fdr is None:
        return alpha
    threshold, rank, total = 0.0, 0, p_values.total()
    for p_value in sorted(p_values):
        rank += p_values[p_value]
        if p_value * total <= fdr * rank:
            threshold = p_value
    return threshold


def count(p_values: Counter[float], found: Floats) -> None:
    """Add p-values to their counts."""
    p_values.update(dict(zip(*(part.tolist() for part in np.unique(found, return_counts=True)), strict=True)))

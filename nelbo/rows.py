"""Results about rows: errors, scores, anomalies, made rows. The engine gives them, jobs store them,
the service sends them and commands write them, all in these classes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

Rank = Literal["surprise", "nelbo"]
"""The score by which rows are ranked, the highest first: a field of Scores and of Anomaly."""

_HEAD: list["pa.Field[Any]"] = [
    pa.field("row", pa.int64(), nullable=False),
    pa.field("nelbo", pa.float64(), nullable=False),
    pa.field("surprise", pa.float64(), nullable=False),
    pa.field("p_value", pa.float64(), nullable=False),
    pa.field("anomaly", pa.bool_()),
]
SCORES = pa.schema(_HEAD)
"""Scores as a table. `anomaly` is null until a job has its threshold."""
_CELLS: list["pa.Field[Any]"] = [
    pa.field("row", pa.int64(), nullable=False),
    *(pa.field(name, pa.float64()) for name in ("surprise", "p_value", "q_value")),
    *(pa.field(name, pa.string()) for name in ("column", "value", "expected", "low", "high")),
    pa.field("share", pa.float64()),
    pa.field("reason", pa.string()),
    pa.field("cell_surprise", pa.float64()),
]
SUSPICIOUS = pa.schema(_CELLS)
"""The suspicious cells of a table. The identifiers of the table come after `row`."""
LIKELY = 0.1
"""Rows with at most this q-value are called probably wrong."""


def count_suspicious(cells: Iterable[pa.RecordBatch]) -> dict[str, int]:
    """The number of rows with suspicious cells, and of those that are probably wrong."""
    q_values: dict[Any, Any] = {}
    for batch in cells:
        rows, of_rows = (batch.column(name).to_pylist() for name in ("row", "q_value"))
        q_values |= zip(rows, of_rows, strict=True)
    likely = sum(q_value <= LIKELY for q_value in q_values.values())
    return {"listed": len(q_values), "probably_wrong": likely}


class RowError(BaseModel):
    """One row that could not be done, and why."""

    model_config = ConfigDict(frozen=True)

    row: int
    column: str | None
    code: str
    message: str


class Anomaly(BaseModel):
    """A row of a score job that is among the least likely, with each column's share in nats: nelbo
    = sum(terms) + kl."""

    row: int
    nelbo: float
    surprise: float
    """Higher is more anomalous; the p-value is that of the surprise."""
    p_value: float
    anomaly: bool | None
    """p_value <= the job's threshold; None until the job has one."""
    kl: float
    terms: dict[str, float]
    surprises: dict[str, float]
    """The surprise of each cell, higher is odder; the most surprising first."""

    def highest(self, most: int) -> list[tuple[str, float]]:
        """The columns with the most surprising cells, with the surprise of each cell."""
        return _highest_first(self.surprises.items())[:most]


@dataclass(frozen=True)
class Scores:
    """Scores of n rows in row order. In nats, nelbo = terms.sum(1) + kl."""

    rows: Integers
    """[n] row numbers, ascending."""
    nelbo: Floats
    """[n] in nats."""
    surprise: Floats
    """[n], higher is more anomalous. P-values, anomalies and the default ranking rest on it."""
    p_value: Floats
    """[n] in (0, 1]."""
    kl: Floats
    """[n] in nats."""
    terms: Floats
    """[n, d] in nats."""
    surprises: Floats
    """[n, d] of the cells, higher is odder."""
    columns: Sequence[str]
    """[d] the column of each term and of each cell's surprise: the manifest's `order`."""
    errors: Sequence[RowError] = ()
    """One for each row without a score, in row order."""

    @staticmethod
    def schema(columns: Iterable[str] | None) -> pa.Schema:
        """The schema of scores as a table; with the columns in the order of their terms, that of
        explained scores, which have term_COLUMN for each column, then kl, then surprise_COLUMN for
        each column."""
        if columns is None:
            return SCORES
        order = list(columns)
        names = [
            *(f"term_{column}" for column in order),
            "kl",
            *(f"surprise_{column}" for column in order),
        ]
        explained = [pa.field(name, pa.float64(), nullable=False) for name in names]
        return pa.schema([*SCORES, *explained])

    @classmethod
    def without_terms(
        cls, rows: Integers, nelbo: Floats, surprise: Floats, p_value: Floats
    ) -> Self:
        """Scores of a job that kept nothing about its cells: `columns` is empty and `kl` is NaN."""
        n = len(rows)
        none = np.empty((n, 0))
        return cls(rows, nelbo, surprise, p_value, np.full(n, np.nan), none, none, ())

    def to_batch(self, threshold: float | None, explain: bool = False) -> pa.RecordBatch:
        """The scores as a table; `explain` adds each column's term, kl, and each cell's
        surprise."""
        anomaly = (
            pa.nulls(len(self.rows), pa.bool_())
            if threshold is None
            else pa.array(self.p_value <= threshold)
        )
        floats = [self.nelbo, self.surprise, self.p_value]
        arrays = [pa.array(self.rows), *(pa.array(values) for values in floats), anomaly]
        if explain:
            cells = [*self.terms.T, self.kl, *self.surprises.T]
            arrays += [pa.array(np.ascontiguousarray(values)) for values in cells]
        return pa.record_batch(arrays, schema=self.schema(self.columns if explain else None))

    def top(self, most: int, at_least: float = -np.inf, rank: Rank = "surprise") -> list[Anomaly]:
        """The rows with the largest surprise or nelbo, by `rank`: at most `most`, the largest first
        and of equal ones the first row; none below `at_least`. Whether they are anomalies is still
        open."""
        ranked: Floats = getattr(self, rank)
        high = np.flatnonzero(ranked >= at_least)
        best = high[np.lexsort((self.rows[high], -ranked[high]))][:most]
        by_row = (self.rows, self.nelbo, self.surprise, self.p_value, self.kl)
        by_cell = (self.terms, self.surprises)
        values = [array[best].tolist() for array in (*by_row, *by_cell)]
        return [
            Anomaly(
                row=row,
                nelbo=nelbo,
                surprise=surprise,
                p_value=p_value,
                anomaly=None,
                kl=kl,
                terms=dict(zip(self.columns, terms, strict=True)),
                surprises=dict(_highest_first(zip(self.columns, surprises, strict=True))),
            )
            for row, nelbo, surprise, p_value, kl, terms, surprises in zip(*values, strict=True)
        ]


def _highest_first(surprises: Iterable[tuple[str, float]]) -> list[tuple[str, float]]:
    return sorted(surprises, key=lambda cell: -cell[1])


@dataclass(frozen=True)
class MadeRows:
    """Rows that the engine made. Those made from a table begin with `row`, the number of their own
    row in it (augment: and `copy`)."""

    batch: pa.RecordBatch
    errors: Sequence[RowError] = ()
    """One for each row of the table that nothing could be made from, in row order."""

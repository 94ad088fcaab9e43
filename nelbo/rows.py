"""Results about rows: errors, scores, anomalies, made rows. The engine gives them, jobs store them,
the service sends them and commands write them, all in these classes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_HEAD: list["pa.Field[Any]"] = [
    pa.field("row", pa.int64(), nullable=False),
    pa.field("nelbo", pa.float64(), nullable=False),
    pa.field("p_value", pa.float64(), nullable=False),
    pa.field("anomaly", pa.bool_()),
]
SCORES = pa.schema(_HEAD)
"""Scores as a table. `anomaly` is null until a job has its threshold."""


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
    p_value: float
    anomaly: bool | None
    """p_value <= the job's threshold; None until the job has one."""
    kl: float
    terms: dict[str, float]

    def highest(self, most: int) -> list[tuple[str, float]]:
        """The columns that cost the most, with their terms."""
        return sorted(self.terms.items(), key=lambda term: -term[1])[:most]


@dataclass(frozen=True)
class Scores:
    """Scores of n rows in row order, in nats: nelbo = terms.sum(1) + kl."""

    rows: Integers
    """[n] row numbers, ascending."""
    nelbo: Floats
    """[n]"""
    p_value: Floats
    """[n] in (0, 1]."""
    kl: Floats
    """[n]"""
    terms: Floats
    """[n, d]"""
    columns: Sequence[str]
    """[d] the column of each term: the manifest's `order`."""
    errors: Sequence[RowError] = ()
    """One for each row without a score, in row order."""

    @staticmethod
    def schema(columns: Iterable[str] | None) -> pa.Schema:
        """The schema of scores as a table; with the columns in the order of their terms, that of
        explained scores, which have term_COLUMN for each column, then kl."""
        if columns is None:
            return SCORES
        names = [*(f"term_{column}" for column in columns), "kl"]
        terms = [pa.field(name, pa.float64(), nullable=False) for name in names]
        return pa.schema([*SCORES, *terms])

    @classmethod
    def without_terms(cls, rows: Integers, nelbo: Floats, p_value: Floats) -> Self:
        """Scores of a job that kept no terms: `columns` is empty and `kl` is NaN."""
        n = len(rows)
        return cls(rows, nelbo, p_value, np.full(n, np.nan), np.empty((n, 0)), ())

    def to_batch(self, threshold: float | None, explain: bool = False) -> pa.RecordBatch:
        """The scores as a table; `explain` adds each column's term, and kl."""
        anomaly = (
            pa.nulls(len(self.rows), pa.bool_())
            if threshold is None
            else pa.array(self.p_value <= threshold)
        )
        arrays = [pa.array(self.rows), pa.array(self.nelbo), pa.array(self.p_value), anomaly]
        if explain:
            arrays += [pa.array(np.ascontiguousarray(term)) for term in self.terms.T]
            arrays.append(pa.array(self.kl))
        return pa.record_batch(arrays, schema=self.schema(self.columns if explain else None))

    def top(self, most: int, at_least: float = -np.inf) -> list[Anomaly]:
        """The rows with the largest nelbo, at most `most`, the largest first and of equal ones the
        first row; none below `at_least`. Whether they are anomalies is still open."""
        best = np.lexsort((self.rows, -self.nelbo))[:most]
        return [
            Anomaly(
                row=int(self.rows[i]),
                nelbo=float(self.nelbo[i]),
                p_value=float(self.p_value[i]),
                anomaly=None,
                kl=float(self.kl[i]),
                terms=dict(zip(self.columns, self.terms[i].tolist(), strict=True)),
            )
            for i in best
            if self.nelbo[i] >= at_least
        ]


@dataclass(frozen=True)
class MadeRows:
    """Rows that the engine made. Those made from a table begin with `row`, the number of their own
    row in it (augment: and `copy`)."""

    batch: pa.RecordBatch
    errors: Sequence[RowError] = ()
    """One for each row of the table that nothing could be made from, in row order."""

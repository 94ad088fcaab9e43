"""A worker's input, a claim, and its output, an outcome, checked before anything is written."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nelbo.jobs import WHOLE_TABLE, InternalKind, Kind, Stage
from nelbo.rows import RowError, Scores


@dataclass(frozen=True)
class Claim:
    """A chunk that one worker holds until its lease ends."""

    chunk_id: int
    job_id: str
    owner: str
    kind: Kind | InternalKind
    stage: Stage
    row_from: int
    row_to: int
    attempt: int
    """1 for the first attempt."""
    failures: int
    """Number of transient errors of this chunk so far."""
    fence: int
    claimed_at: float
    """By the database's clock, in seconds since the epoch."""
    params: dict[str, Any]
    """The request without model, file and rows: alpha, seed, per_row …"""
    version_id: str | None
    file_id: str | None
    inline: list[dict[str, Any]] | None
    """All rows of the job, where the request carried them itself."""

    @property
    def rows(self) -> int:
        return self.row_to - self.row_from


@dataclass(frozen=True)
class TableOutcome:
    """The made rows of a chunk as one Parquet file, in row order; of a job about a whole table, its
    cells.

    `errors` are the source rows from which no row could be made.
    """

    data: bytes
    rows: int
    """Number of rows in `data`; an augment job has `per_row` for each source row, a job about a
    whole table one for each cell."""
    errors: Sequence[RowError] = ()


@dataclass(frozen=True)
class FinishOutcome:
    """The results that need the whole job; `results.finish` computes them."""

    summary: dict[str, Any]
    threshold: float | None = None


@dataclass(frozen=True)
class ReadOutcome:
    """A file that was read and is now ready."""

    rows: int
    digest: str
    columns: list[Any]
    notices: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class VerifyOutcome:
    """A pushed version that was verified and is now ready. `row_s` are the seconds that a row
    took."""

    manifest: dict[str, Any]
    digest: str
    row_s: float | None = None


Outcome = Scores | TableOutcome | FinishOutcome | ReadOutcome | VerifyOutcome


def check(claim: Claim, outcome: Outcome) -> None:
    """Raise ValueError unless the outcome belongs to this claim.

    Each row must be stored once or be an error, and no score may be NaN or infinite.
    """
    if not isinstance(outcome, _expected_type(claim)):
        raise ValueError(
            f"a {claim.kind} chunk ({claim.stage}) cannot end with a {type(outcome).__name__}"
        )
    if isinstance(outcome, Scores):
        _check_scores(claim, outcome)
    if isinstance(outcome, TableOutcome):
        _check_table(claim, outcome)


def _expected_type(claim: Claim) -> type[Outcome]:
    if claim.stage == "finish":
        return FinishOutcome
    by_kind: dict[Kind | InternalKind, type[Outcome]] = {
        "score": Scores,
        "read": ReadOutcome,
        "verify": VerifyOutcome,
    }
    return by_kind.get(claim.kind, TableOutcome)


def _check_scores(claim: Claim, scores: Scores) -> None:
    n = len(scores.rows)
    d = len(scores.columns)
    by_row = (scores.nelbo, scores.surprise, scores.p_value, scores.kl)
    by_cell = (scores.terms, scores.surprises)
    shapes = [values.shape for values in (*by_row, *by_cell)]
    if shapes != [(n,)] * 4 + [(n, d)] * 2:
        raise ValueError(
            f"shapes {shapes} of nelbo, surprise, p_value, kl, terms and surprises do not fit {n}"
            f" rows and {d} columns"
        )
    if not all(np.isfinite(values).all() for values in (*by_row, *by_cell)):
        raise ValueError("scores hold NaN or inf; such a row is an error, not a result")
    if not (np.diff(scores.rows) > 0).all():
        raise ValueError("scores must be in row order")

    failed = [error.row for error in scores.errors]
    if sorted([*scores.rows.tolist(), *failed]) != list(range(claim.row_from, claim.row_to)):
        raise ValueError(
            f"{n} scores and {len(failed)} errors are not rows {claim.row_from} to {claim.row_to}"
            " once each"
        )


def _check_table(claim: Claim, outcome: TableOutcome) -> None:
    failed = {error.row for error in outcome.errors}
    if len(failed) < len(outcome.errors) or not failed <= set(range(claim.row_from, claim.row_to)):
        raise ValueError(f"errors must be of rows {claim.row_from} to {claim.row_to}, one per row")
    if claim.kind in WHOLE_TABLE or (claim.kind == "augment" and "balance" in claim.params):
        return  # A row has any number of cells or copies, also none.
    copies = claim.params["per_row"] if claim.kind == "augment" else 1
    if outcome.rows != (claim.rows - len(failed)) * copies:
        raise ValueError(
            f"{outcome.rows} made rows and {len(failed)} errors do not add up to {claim.rows} rows,"
            f" {copies} for each"
        )

"""Work in this process: an artifact's engine over a table, batch by batch at constant memory."""

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from nelbo.commands.console import Tell
from nelbo.commands.row_errors import RowErrors
from nelbo.commands.shown_rows import ShownRows
from nelbo.conditions import Conditions
from nelbo.errors import TooLarge, needs_extra
from nelbo.files import Digest, Table
from nelbo.jobs import (
    AugmentRequest,
    ExplainRequest,
    GenerateRequest,
    ReconstructRequest,
    ScoreRequest,
    seed_of,
)
from nelbo.odd_rows import OddRows, find_odd_rows
from nelbo.row_copies import balanced_copies, check_balanced, copies_of_batch
from nelbo.rows import Anomaly, Rank, Scores
from nelbo.scores import count_p_values, threshold_of
from nelbo.settings import Settings

if TYPE_CHECKING:
    from nelbo.engine import Engine

TOP = 10
"""Least likely rows that a scoring keeps."""
BATCH_ROWS = 8_192


def load(folder: Path, command: str) -> "Engine":
    """The engine of an artifact. Raises MissingExtra where ONNX Runtime is not installed."""
    with needs_extra(f"nelbo {command} without a service", "engine", "onnxruntime"):
        from nelbo.engine import Engine
    return Engine.load(folder)


@dataclass
class Work:
    """What an engine makes of one table, batch by batch. Rows that it cannot use go to `faults`,
    and the counts are those of the rows so far."""

    engine: "Engine"
    faults: RowErrors
    rows: int = 0
    """Rows of the table that were read."""
    digest: Digest = field(default_factory=Digest)
    """Of those rows; a scoring alone needs it."""
    anomalies: int = 0
    threshold: float = 0.0
    """Rows with p-value <= threshold are anomalies."""
    top: list[Anomaly] = field(default_factory=list)
    """The least likely rows, the least likely first."""

    def __post_init__(self) -> None:
        self.shown = ShownRows(self.engine.schema)
        """The same rows as the table has them."""

    def results(
        self,
        request: ScoreRequest | AugmentRequest | ReconstructRequest,
        table: Table,
        tell: Tell,
    ) -> Iterator[pa.RecordBatch]:
        """The rows of a job about a table."""
        match request:
            case ScoreRequest():
                return self._score(request, table, tell)
            case AugmentRequest():
                return self._augment(request, table, tell)
            case ReconstructRequest():
                return self._reconstruct(request, table, tell)

    def generate(
        self, request: GenerateRequest, conditions: Conditions, settings: Settings, tell: Tell
    ) -> Iterator[pa.RecordBatch]:
        """The rows of a generate job."""
        _check_size(request.n, settings)
        seed = seed_of(request)
        for first_row in range(0, request.n, settings.chunk_rows):
            rows = min(settings.chunk_rows, request.n - first_row)
            yield self.engine.generate(
                seed, first_row, rows, conditions, identifiers=request.identifiers
            ).batch
            tell(first_row + rows, request.n)

    def odds(self, request: GenerateRequest, conditions: Conditions) -> dict[str, Any] | None:
        """What is said of the conditions of a generate job, if it has any."""
        if not conditions.has_odds:
            return None
        return self.engine.odds(conditions, seed_of(request)).as_json()

    def odd_rows(self, request: ExplainRequest, table: Table, tell: Tell) -> OddRows:
        """The rows of an explain job."""

        def batches() -> Iterator[pa.RecordBatch]:
            for _, batch in self._batches(table, tell):
                self.digest.update(batch)
                yield batch

        return find_odd_rows(self.engine, batches(), request, self.faults.add, name=table.name)

    def _score(self, request: ScoreRequest, table: Table, tell: Tell) -> Iterator[pa.RecordBatch]:
        parts = self._all_scored(table, request.rank, tell)
        if request.fdr is None:
            self.threshold = request.alpha
            batches = (part.to_batch(request.alpha, request.explain) for part in parts)
            yield from self._counted(batches)
        else:
            p_values: Counter[float] = Counter()
            columns = self.engine.manifest.order if request.explain else None
            with _spooled(parts, columns, p_values) as spooled:
                self.threshold = threshold_of(p_values, request.alpha, request.fdr)
                yield from self._counted(_flagged(batch, self.threshold) for batch in spooled)
        self.top = [
            row.model_copy(update={"anomaly": row.p_value <= self.threshold}) for row in self.top
        ]

    def _augment(
        self, request: AugmentRequest, table: Table, tell: Tell
    ) -> Iterator[pa.RecordBatch]:
        check_balanced(self.engine.schema, request.balance, request.per_row)
        copies = None
        if request.balance is not None:
            copies = balanced_copies(table.batches(), self.engine.schema, request.balance)
        for first_row, batch in self._batches(table, tell):
            for rows in copies_of_batch(self.engine, batch, first_row, request, copies):
                self.faults.add(rows.errors)
                yield rows.batch

    def _reconstruct(
        self, request: ReconstructRequest, table: Table, tell: Tell
    ) -> Iterator[pa.RecordBatch]:
        for first_row, batch in self._batches(table, tell):
            filled = self.engine.reconstruct(
                batch,
                first_row,
                seed_of(request),
                mode=request.mode,
                denoise=request.denoise,
                columns=request.columns,
                leave_usual=request.leave_usual,
            )
            self.faults.add(filled.errors)
            yield filled.batch

    def _all_scored(self, table: Table, rank: Rank, tell: Tell) -> Iterator[Scores]:
        for first_row, batch in self._batches(table, tell):
            self.digest.update(batch)
            scores = self.engine.score(batch, first_row)
            self.faults.add(scores.errors)
            self._keep_least_likely(scores, batch, first_row, rank)
            yield scores

    def _keep_least_likely(
        self, scores: Scores, batch: pa.RecordBatch, first_row: int, rank: Rank
    ) -> None:
        """The first of those so far and of the new ones, by the rank, then by row: the order of a
        job's anomalies. The new ones are rows of a batch."""
        rows = [*self.top, *scores.top(TOP, rank=rank)]
        self.top = sorted(rows, key=lambda row: (-getattr(row, rank), row.row))[:TOP]
        self.shown.keep([row.row for row in self.top], batch, first_row)

    def _counted(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            self.anomalies += int(np.asarray(batch.column("anomaly"), dtype=bool).sum())
            yield batch

    def _batches(self, table: Table, tell: Tell) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The table's batches, each with the number of its first row."""
        for batch in table.batches(BATCH_ROWS):
            first_row = self.rows
            if not first_row:
                self.shown.look(batch)
            self.rows += batch.num_rows
            yield first_row, batch
            tell(self.rows, table.rows)


def _check_size(rows: int, settings: Settings) -> None:
    if rows > settings.max_job_rows:
        raise TooLarge(
            f"{rows:,} rows; one job makes at most {settings.max_job_rows:,} (NELBO_MAX_JOB_ROWS):"
            " ask for fewer at a time"
        )


@contextmanager
def _spooled(
    parts: Iterable[Scores], columns: tuple[str, ...] | None, p_values: Counter[float]
) -> Iterator[pa.RecordBatchReader]:
    """All scores in a temporary file, read back, and their p-values counted: a threshold on the
    false discovery rate needs every p-value first. With `columns`, also their terms."""
    with tempfile.TemporaryFile(prefix="nelbo-") as copy:
        with pa.ipc.new_stream(copy, Scores.schema(columns)) as writer:
            for part in parts:
                count_p_values(p_values, part.p_value)
                writer.write_batch(part.to_batch(None, explain=columns is not None))
        copy.seek(0)
        with pa.ipc.open_stream(copy) as reader:
            yield reader


def _flagged(batch: pa.RecordBatch, threshold: float) -> pa.RecordBatch:
    flags = pa.array(np.asarray(batch.column("p_value")) <= threshold)
    return batch.set_column(
        batch.schema.get_field_index("anomaly"), batch.schema.field("anomaly"), flags
    )

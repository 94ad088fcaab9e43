"""Work in this process: an artifact's engine over a table, batch by batch at constant memory."""

import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from nelbo.cells import texts, written
from nelbo.commands.console import Tell
from nelbo.commands.row_errors import RowErrors
from nelbo.encoding import missing_in, spelled_field, written_as
from nelbo.errors import NotFound, TooLarge, needs_extra
from nelbo.files import Digest, Table
from nelbo.jobs import AugmentRequest, GenerateRequest, ReconstructRequest, ScoreRequest
from nelbo.rows import Anomaly, Rank, Scores
from nelbo.scores import count_p_values, threshold_of
from nelbo.settings import Settings
from nelbo.spelling.types import as_type

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
        self, request: GenerateRequest, settings: Settings, tell: Tell
    ) -> Iterator[pa.RecordBatch]:
        """The rows of a generate job."""
        _check_size(request.n, settings)
        for first_row in range(0, request.n, settings.chunk_rows):
            rows = min(settings.chunk_rows, request.n - first_row)
            yield self.engine.generate(request.seed, first_row, rows).batch
            tell(first_row + rows, request.n)

    def least_likely(
        self, table: Table, rows: Collection[int], most: int, rank: Rank, tell: Tell
    ) -> list[tuple[Anomaly, pa.RecordBatch]]:
        """The rows with these numbers or, where there are none, the `most` least likely ones, each
        with its cells, in the order of the rank."""
        numbers = sorted(set(rows))
        cells: dict[int, pa.RecordBatch] = {}
        for first_row, batch in self._batches(table, tell):
            self.digest.update(batch)
            end = first_row + batch.num_rows
            named = [row for row in numbers if first_row <= row < end]
            parts = [(row, batch.slice(row - first_row, 1)) for row in named]
            for first, part in parts if numbers else [(first_row, batch)]:
                self._keep_least_likely(self._scored(part, first), len(numbers) or most, rank)
                cells = {
                    row.row: cells[row.row] if row.row in cells else part.take([row.row - first])
                    for row in self.top
                }
        if numbers and numbers[-1] >= self.rows:
            raise NotFound(
                f"{table.name} has no row {numbers[-1]}; it has {self.rows:,}, and the first is"
                " row 0"
            )
        return [(row, cells[row.row]) for row in self.top]

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
        for first_row, batch in self._batches(table, tell, max(1, BATCH_ROWS // request.per_row)):
            copies = self.engine.augment(
                batch, first_row, request.per_row, request.seed, request.spread
            )
            self.faults.add(copies.errors)
            yield copies.batch

    def _reconstruct(
        self, request: ReconstructRequest, table: Table, tell: Tell
    ) -> Iterator[pa.RecordBatch]:
        for first_row, batch in self._batches(table, tell):
            filled = self.engine.reconstruct(
                batch, first_row, request.seed, mode=request.mode, denoise=request.denoise
            )
            self.faults.add(filled.errors)
            yield filled.batch

    def _all_scored(self, table: Table, rank: Rank, tell: Tell) -> Iterator[Scores]:
        for first_row, batch in self._batches(table, tell):
            self.digest.update(batch)
            scores = self._scored(batch, first_row)
            self._keep_least_likely(scores, TOP, rank)
            yield scores

    def _scored(self, batch: pa.RecordBatch, first_row: int) -> Scores:
        scores = self.engine.score(batch, first_row)
        self.faults.add(scores.errors)
        return scores

    def _keep_least_likely(self, scores: Scores, most: int, rank: Rank) -> None:
        """The first of those so far and of the new ones, by the rank, then by row: the order of a
        job's anomalies."""
        rows = [*self.top, *scores.top(most, rank=rank)]
        self.top = sorted(rows, key=lambda row: (-getattr(row, rank), row.row))[:most]

    def _counted(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            self.anomalies += int(np.asarray(batch.column("anomaly"), dtype=bool).sum())
            yield batch

    def _batches(
        self, table: Table, tell: Tell, rows: int = BATCH_ROWS
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The table's batches, each with the number of its first row."""
        for batch in table.batches(rows):
            first_row = self.rows
            self.rows += batch.num_rows
            yield first_row, batch
            tell(self.rows, table.rows)


EXPLAINED = pa.schema(
    [
        *(
            (name, pa.int64() if name == "row" else pa.float64())
            for name in ("row", "nelbo", "surprise", "p_value")
        ),
        *((name, pa.string()) for name in ("column", "value", "expected", "low", "high")),
        *((name, pa.float64()) for name in ("share", "missing", "term", "cell_surprise")),
    ]
)


def explained(
    engine: "Engine", rows: Iterable[tuple[Anomaly, pa.RecordBatch]], columns: int, seed: int
) -> pa.Table:
    """The most surprising cells of each row, with the value, what it should be (Engine.explain),
    the term and the surprise. Cells are texts."""
    lines = [
        _explained(engine, row, cells, column, seed)
        | {"term": row.terms[column], "cell_surprise": surprise}
        for row, cells in rows
        for column, surprise in row.highest(columns)
    ]
    return pa.Table.from_pylist(lines, schema=EXPLAINED)


def _explained(
    engine: "Engine", row: Anomaly, cells: pa.RecordBatch, name: str, seed: int
) -> dict[str, Any]:
    """One cell of a row beside what it should be, both spelled as the row's table has them."""
    (column,) = (column for column in engine.schema.columns if column.name == name)
    field = spelled_field(written_as(column, cells.schema.field(name)))
    value = texts(cells.column(name), missing_in(column, engine.schema))[0].as_py()
    summary = engine.explain(cells, name, row.row, seed).batch
    figures = {
        figure: written(as_type(summary[figure], field.type), field)[0].as_py()
        for figure in ("expected", "low", "high")
    }
    shares = {share: summary[share][0].as_py() for share in ("share", "missing")}
    head = {name: getattr(row, name) for name in ("row", "nelbo", "surprise", "p_value")}
    return head | {"column": name, "value": value} | figures | shares


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

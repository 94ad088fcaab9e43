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
from nelbo.commands.faults import Faults
from nelbo.encoding import missing_in, spelled_field, written_as
from nelbo.errors import MissingExtra, NotFound, TooLarge
from nelbo.files import Digest, Table
from nelbo.jobs import AugmentRequest, GenerateRequest, ReconstructRequest, ScoreRequest
from nelbo.rows import Anomaly, Scores
from nelbo.scores import count, threshold_of
from nelbo.settings import Settings
from nelbo.spelling.types import as_type

if TYPE_CHECKING:
    from nelbo.engine import Engine

TOP = 10


def load(folder: Path, command: str) -> "Engine":
    """The engine of an artifact. Raises MissingExtra where ONNX Runtime is not installed."""
    try:
        from nelbo.engine import Engine
    except ModuleNotFoundError as problem:
        if problem.name != "onnxruntime":
            raise
        raise MissingExtra(f"nelbo {command} without a service", "engine") from None
    return Engine.load(folder)


@dataclass
class Tally:
    """What a scoring came to; `top` are the least likely rows, the least likely first; `digest` is
    that of the table."""

    rows: int = 0
    anomalies: int = 0
    threshold: float = 0.0
    top: list[Anomaly] = field(default_factory=list)
    digest: Digest = field(default_factory=Digest)


def score(
    engine: "Engine", table: Table, request: ScoreRequest, tally: Tally, faults: Faults, tell: Tell
) -> Iterator[pa.RecordBatch]:
    """Scores in row order, as a job gives them."""

    def scored() -> Iterator[Scores]:
        for first_row, batch in _given(table, tell):
            tally.digest.update(batch)
            part = engine.score(batch, first_row)
            faults.add(part.errors)
            tally.rows += len(part.rows)
            tally.top = _least_likely(tally.top, part, TOP)
            yield part

    if request.fdr is None:
        tally.threshold = request.alpha
        batches: Iterable[pa.RecordBatch] = (
            part.to_batch(request.alpha, request.explain) for part in scored()
        )
        yield from _counted(batches, tally)
    else:
        p_values: Counter[float] = Counter()
        columns = engine.manifest.order if request.explain else None
        with _spooled(_watched(scored(), p_values), columns) as kept:
            tally.threshold = threshold_of(p_values, request.alpha, request.fdr)
            yield from _counted((_flagged(batch, tally.threshold) for batch in kept), tally)
    tally.top = [
        row.model_copy(update={"anomaly": row.p_value <= tally.threshold}) for row in tally.top
    ]


def chosen(
    engine: "Engine",
    table: Table,
    rows: Collection[int],
    most: int,
    faults: Faults,
    tell: Tell,
    digest: Digest,
) -> list[tuple[Anomaly, pa.RecordBatch]]:
    """The rows of these numbers, or else the least likely `most`, with their cells; the least
    likely first."""
    wanted, seen = sorted(set(rows)), 0
    top: list[Anomaly] = []
    cells: dict[int, pa.RecordBatch] = {}
    for first_row, batch in _given(table, tell):
        digest.update(batch)
        seen = first_row + batch.num_rows
        named = [
            (row, batch.slice(row - first_row, 1)) for row in wanted if first_row <= row < seen
        ]
        for first, part in named if wanted else [(first_row, batch)]:
            scores = engine.score(part, first)
            faults.add(scores.errors)
            top = _least_likely(top, scores, len(wanted) or most)
            cells = {
                row.row: cells[row.row] if row.row in cells else part.take([row.row - first])
                for row in top
            }
    if wanted and wanted[-1] >= seen:
        raise NotFound(
            f"{table.name} has no row {wanted[-1]}; it has {seen:,}, and the first is row 0"
        )
    return [(row, cells[row.row]) for row in top]


EXPLAINED = pa.schema(
    [
        *(
            (name, pa.int64() if name == "row" else pa.float64())
            for name in ("row", "nelbo", "p_value")
        ),
        *((name, pa.string()) for name in ("column", "value", "expected", "low", "high")),
        *((name, pa.float64()) for name in ("share", "missing", "term")),
    ]
)


def explained(
    engine: "Engine", found: Iterable[tuple[Anomaly, pa.RecordBatch]], columns: int, seed: int
) -> pa.Table:
    """The costliest columns of each row, with the value, what it should be (Engine.explain) and
    the term. Cells are texts."""
    known = {column.name: column for column in engine.schema.columns}
    rows: list[dict[str, Any]] = []
    for row, cells in found:
        for column, term in row.highest(columns):
            made = engine.explain(cells, column, row.row, seed).batch
            field = spelled_field(written_as(known[column], cells.schema.field(column)))
            told = {
                name: written(as_type(made[name], field.type), field)[0].as_py()
                for name in ("expected", "low", "high")
            }
            shares = {name: made[name][0].as_py() for name in ("share", "missing")}
            value = texts(cells.column(column), missing_in(known[column], engine.schema))[0].as_py()
            head = {"row": row.row, "nelbo": row.nelbo, "p_value": row.p_value}
            rows.append(head | {"column": column, "value": value, "term": term} | told | shares)
    return pa.Table.from_pylist(rows, schema=EXPLAINED)


def generate(
    engine: "Engine", request: GenerateRequest, settings: Settings, tell: Tell
) -> Iterator[pa.RecordBatch]:
    """The rows of a generate job."""
    _check_size(request.n, settings)
    for first_row in range(0, request.n, settings.chunk_rows):
        rows = min(settings.chunk_rows, request.n - first_row)
        yield engine.generate(request.seed, first_row, rows).batch
        tell(first_row + rows, request.n)


def augment(
    engine: "Engine", table: Table, request: AugmentRequest, faults: Faults, tell: Tell
) -> Iterator[pa.RecordBatch]:
    """The rows of an augment job."""
    for first_row, batch in _given(table, tell, max(1, 8_192 // request.per_row)):
        copies = engine.augment(batch, first_row, request.per_row, request.seed, request.spread)
        faults.add(copies.errors)
        yield copies.batch


def reconstruct(
    engine: "Engine", table: Table, request: ReconstructRequest, faults: Faults, tell: Tell
) -> Iterator[pa.RecordBatch]:
    """The rows of a reconstruct job."""
    for first_row, batch in _given(table, tell):
        filled = engine.reconstruct(
            batch, first_row, request.seed, mode=request.mode, denoise=request.denoise
        )
        faults.add(filled.errors)
        yield filled.batch


def _check_size(rows: int, settings: Settings) -> None:
    if rows > settings.max_job_rows:
        raise TooLarge(
            f"{rows:,} rows; one job makes at most {settings.max_job_rows:,} (NELBO_MAX_JOB_ROWS):"
            " ask for fewer at a time"
        )


def _given(table: Table, tell: Tell, rows: int = 8_192) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The table's batches, each with the number of its first row."""
    first_row = 0
    for batch in table.batches(rows):
        yield first_row, batch
        first_row += batch.num_rows
        tell(first_row, table.rows)


def _counted(batches: Iterable[pa.RecordBatch], tally: Tally) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if batch.num_rows:
            tally.anomalies += int(np.asarray(batch.column("anomaly"), dtype=bool).sum())
            yield batch


def _watched(parts: Iterable[Scores], p_values: Counter[float]) -> Iterator[Scores]:
    for part in parts:
        count(p_values, part.p_value)
        yield part


@contextmanager
def _spooled(
    parts: Iterable[Scores], columns: tuple[str, ...] | None
) -> Iterator[pa.RecordBatchReader]:
    """All scores in a temporary file, read back: a threshold on the false discovery rate needs
    every p-value first. With `columns`, also their terms."""
    with tempfile.TemporaryFile(prefix="nelbo-") as copy:
        with pa.ipc.new_stream(copy, Scores.schema(columns)) as writer:
            for part in parts:
                writer.write_batch(part.to_batch(None, explain=columns is not None))
        copy.seek(0)
        with pa.ipc.open_stream(copy) as reader:
            yield reader


def _flagged(batch: pa.RecordBatch, threshold: float) -> pa.RecordBatch:
    flags = pa.array(np.asarray(batch.column("p_value")) <= threshold)
    return batch.set_column(
        batch.schema.get_field_index("anomaly"), batch.schema.field("anomaly"), flags
    )


def _least_likely(top: list[Anomaly], scores: Scores, most: int) -> list[Anomaly]:
    """The first of those so far and of the new ones, by nelbo, then by row: the order of a job's
    anomalies."""
    return sorted([*top, *scores.top(most)], key=lambda row: (-row.nelbo, row.row))[:most]

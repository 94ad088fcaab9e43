"""Results and errors of jobs.

They are stored chunk by chunk, read back in row order with bounded memory, and summed up at the
end.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import (
    ColumnElement,
    Connection,
    LargeBinary,
    ScalarSelect,
    delete,
    func,
    insert,
    literal,
    select,
    tuple_,
)

from nelbo.jobs import WHOLE_TABLE
from nelbo.rows import Anomaly, Rank, RowError, Scores, count_suspicious
from nelbo.scores import count_p_values, threshold_of
from nelbo.store import arrays
from nelbo.store.chunks import (
    array_names,
    scores_from_arrays,
    scores_from_json,
    scores_to_arrays,
    scores_to_json,
    table_from_parquet,
)
from nelbo.store.claims import Claim, FinishOutcome, TableOutcome
from nelbo.store.session import Database
from nelbo.store.tables import (
    AnomalyRow,
    ChunkRow,
    ErrorRow,
    JobRow,
    TableChunkRow,
    VersionRow,
    score_arrays,
    score_json,
)
from nelbo.utf8 import clean

TOP_ANOMALIES = 1_000
HISTOGRAM_BINS = 50
FLOAT_BYTES = 8
ROW_BYTES = 100
"""Bytes per row in SQL beside its texts: the job's id, in the table and in its index."""
TERM_BYTES = 24
"""Bytes per number in the JSON of an anomaly's cells, beside its column's name."""
SURPRISE = func.coalesce(AnomalyRow.surprise, AnomalyRow.nelbo)
"""The surprise of an anomaly: a program of an older schema stores none."""
SURPRISES = func.coalesce(AnomalyRow.surprises, AnomalyRow.terms)


def scores(
    db: Database,
    job_id: str,
    *,
    after_row: int = -1,
    limit: int | None = None,
    explain: bool = False,
) -> Iterator[pa.RecordBatch]:
    """Scores in row order, one batch per chunk, of rows above `after_row`, at most `limit`.

    Each batch is read on its own, so that a slow reader holds neither memory nor a transaction.
    `explain` needs a job with explain.
    """
    with db.read() as connection:
        threshold, columns = _score_head(connection, job_id)
    remaining = limit
    while remaining is None or remaining > 0:
        with db.read() as connection:
            chunk = _next_scores(connection, job_id, after_row, columns if explain else None)
        if chunk is None:
            return
        row_to, scores = chunk
        batch = scores.to_batch(threshold, explain)
        batch = batch.filter(pc.greater(batch["row"], pa.scalar(after_row)))[slice(remaining)]
        if batch.num_rows:
            yield batch
        remaining = None if remaining is None else remaining - batch.num_rows
        after_row = row_to - 1


def score_schema(db: Database, job_id: str, *, explain: bool = False) -> pa.Schema:
    """The schema of the batches of `scores`, also for a job without scores."""
    with db.read() as connection:
        _, columns = _score_head(connection, job_id)
    return Scores.schema(columns if explain else None)


def tables(
    db: Database, job_id: str, *, after_row: int = -1, limit: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Made rows in row order, one batch per piece of a chunk, at most `limit` rows.

    Only source rows above `after_row` count (generate: row numbers). A chunk of which no row could
    be made gives an empty batch, which shows the columns.
    """
    remaining = limit
    while remaining is None or remaining > 0:
        with db.read() as connection:
            chunk = _next_table(connection, job_id, after_row)
        if chunk is None:
            return
        row_to, pieces = chunk
        for piece in pieces:
            batch = _one_batch(piece[slice(remaining)])
            yield batch
            remaining = None if remaining is None else remaining - batch.num_rows
        after_row = row_to - 1


def errors(db: Database, job_id: str, *, after_row: int = -1, limit: int = 1_000) -> list[RowError]:
    """Recorded errors in row order, for rows above `after_row`."""
    statement = (
        select(ErrorRow.row, ErrorRow.column, ErrorRow.code, ErrorRow.message)
        .where(ErrorRow.job_id == job_id, ErrorRow.row > after_row)
        .order_by(ErrorRow.row)
        .limit(limit)
    )
    with db.read() as connection:
        return [
            RowError(row=row.row, column=row.column, code=row.code, message=row.message)
            for row in connection.execute(statement)
        ]


def anomalies(db: Database, job_id: str, *, limit: int = TOP_ANOMALIES) -> list[Anomaly]:
    """The rows with the largest surprise, or nelbo by the job's rank, the largest first.

    At most 1,000 are kept.
    """
    with db.read() as connection:
        job = connection.execute(
            select(JobRow.threshold, JobRow.params).where(JobRow.id == job_id)
        ).one()
        statement = (
            select(
                AnomalyRow.row,
                AnomalyRow.nelbo,
                SURPRISE.label("surprise"),
                AnomalyRow.p_value,
                AnomalyRow.kl,
                AnomalyRow.terms,
                SURPRISES.label("surprises"),
            )
            .where(AnomalyRow.job_id == job_id)
            .order_by(_score_of(job.params.get("rank", "surprise")).desc(), AnomalyRow.row)
            .limit(limit)
        )
        return [
            Anomaly(
                anomaly=None if job.threshold is None else row.p_value <= job.threshold,
                **row._asdict(),
            )
            for row in connection.execute(statement)
        ]


def finish(db: Database, claim: Claim) -> FinishOutcome:
    """The results that need all chunks of the job.

    These are totals and, for scores, the threshold and a histogram.
    """
    with db.read() as connection:
        job = connection.execute(
            select(JobRow.rows, JobRow.rows_failed).where(JobRow.id == claim.job_id)
        ).one()
    totals = {"rows": job.rows, "rows_failed": job.rows_failed}
    if claim.kind == "score":
        return _finish_scores(db, claim, totals)
    if claim.kind == "clean":
        return FinishOutcome(totals | count_suspicious(tables(db, claim.job_id)))
    if claim.kind == "explain":
        numbers = set(claim.params.get("row_numbers", ()))
        most = len(numbers) - job.rows_failed if numbers else claim.params["top"]
        return FinishOutcome(totals | {"rows_explained": min(most, job.rows - job.rows_failed)})
    with db.read() as connection:
        rows = connection.scalars(
            select(TableChunkRow.rows).where(TableChunkRow.job_id == claim.job_id)
        ).all()
    return FinishOutcome(totals | {"rows_made": sum(rows)})


def store_scores(connection: Connection, claim: Claim, scores: Scores) -> int:
    """Insert a chunk's scores, inside the transaction that commits the chunk.

    Returns roughly the number of bytes added.
    """
    explain = bool(claim.params.get("explain"))
    key = {
        "chunk_id": claim.chunk_id,
        "job_id": claim.job_id,
        "row_from": claim.row_from,
        "fence": claim.fence,
    }
    if connection.dialect.name == "sqlite":
        text = scores_to_json(scores, explain)
        connection.execute(insert(score_json).values(**key, data=text, has_surprise=True))
        stored_bytes = len(text)
    else:
        values = {
            name: literal(array, arrays.Wire())
            for name, array in scores_to_arrays(scores, explain).items()
        }
        connection.execute(insert(score_arrays).values(**key, **values))
        numbers = (5 + 2 * len(scores.columns)) if explain else 4
        stored_bytes = FLOAT_BYTES * numbers * len(scores.rows)
    anomaly_bytes = 2 * sum(len(name) + TERM_BYTES for name in scores.columns)
    return stored_bytes + anomaly_bytes * _store_anomalies(connection, claim, scores)


def store_table(connection: Connection, claim: Claim, outcome: TableOutcome) -> None:
    """Insert a chunk's made rows, inside the transaction that commits the chunk."""
    connection.execute(
        insert(TableChunkRow).values(
            chunk_id=claim.chunk_id,
            job_id=claim.job_id,
            row_from=claim.row_from,
            fence=claim.fence,
            rows=outcome.rows,
            data=outcome.data,
        )
    )


def store_errors(connection: Connection, job_id: str, errors: Iterable[RowError]) -> int:
    """Insert recorded errors, inside the transaction that commits their chunk.

    Returns roughly the number of bytes added.
    """
    rows = [
        {
            "job_id": job_id,
            "row": error.row,
            "column": clean(error.column),
            "code": error.code,
            "message": clean(error.message),
        }
        for error in errors
    ]
    if rows:
        connection.execute(insert(ErrorRow), rows)
    return sum(ROW_BYTES + len(str(row["column"])) + len(str(row["message"])) for row in rows)


def delete_results(connection: Connection, job_id: str) -> None:
    """Remove everything that is stored for a job."""
    payload = score_json if connection.dialect.name == "sqlite" else score_arrays
    connection.execute(delete(payload).where(payload.c.job_id == job_id))
    for table in (TableChunkRow, ErrorRow, AnomalyRow):
        connection.execute(delete(table).where(table.job_id == job_id))


def delete_chunks(connection: Connection, job_id: str, limit: int) -> int:
    """Remove at most `limit` chunks of a deleted job, with their results.

    Returns the number of chunks removed.
    """
    payload = score_json if connection.dialect.name == "sqlite" else score_arrays
    first = (
        select(ChunkRow.id, ChunkRow.row_from, ChunkRow.row_to)
        .where(ChunkRow.job_id == job_id)
        .order_by(ChunkRow.row_from)
        .limit(limit)
    )
    chunks = connection.execute(first).all()
    ids = [chunk.id for chunk in chunks]
    row_to = max((chunk.row_to for chunk in chunks), default=0)
    connection.execute(delete(payload).where(payload.c.chunk_id.in_(ids)))
    connection.execute(delete(TableChunkRow).where(TableChunkRow.chunk_id.in_(ids)))
    for table in (ErrorRow, AnomalyRow):
        connection.execute(delete(table).where(table.job_id == job_id, table.row < row_to))
    connection.execute(delete(ChunkRow).where(ChunkRow.id.in_(ids)))
    return len(ids)


def _finish_scores(db: Database, claim: Claim, totals: dict[str, Any]) -> FinishOutcome:
    """Two passes over the stored scores, one chunk at a time.

    The first collects p-values, range and sum, the second the histogram.
    """
    rows = totals["rows"]
    p_values: Counter[float] = Counter()
    low = math.inf
    high = -math.inf

    def nelbos() -> Iterator[float]:
        nonlocal low, high
        for scores in _chunks(db, claim.job_id, rows):
            count_p_values(p_values, scores.p_value)
            low = min(low, float(scores.nelbo.min()))
            high = max(high, float(scores.nelbo.max()))
            yield from scores.nelbo.tolist()

    # fsum is exact in any order, so the mean does not depend on the chunks.
    total = math.fsum(nelbos())
    scored = p_values.total()
    threshold = threshold_of(p_values, claim.params["alpha"], claim.params.get("fdr"))
    flagged = sum(times for p_value, times in p_values.items() if p_value <= threshold)
    summary = totals | {"rows_scored": scored, "anomalies": flagged}
    if scored:
        summary["nelbo"] = {"mean": total / scored, "min": low, "max": high}
        summary["histogram"] = _histogram(db, claim.job_id, rows, low, high)
    return FinishOutcome(summary, threshold)


def _histogram(
    db: Database, job_id: str, rows: int, low: float, high: float
) -> dict[str, list[float] | list[int]]:
    edges = np.histogram_bin_edges(np.array([low, high]), bins=HISTOGRAM_BINS)
    counts = np.zeros(HISTOGRAM_BINS, dtype=np.int64)
    for scores in _chunks(db, job_id, rows):
        counts += np.histogram(scores.nelbo, bins=edges)[0]
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _chunks(db: Database, job_id: str, rows: int) -> Iterator[Scores]:
    """The scores of each chunk of a job with this number of rows."""
    after_row = -1
    while after_row < rows - 1:
        with db.read() as connection:
            chunk = _next_scores(connection, job_id, after_row, None)
        if chunk is None:
            return
        row_to, scores = chunk
        if len(scores.rows):
            yield scores
        after_row = row_to - 1


def _score_head(connection: Connection, job_id: str) -> tuple[float | None, tuple[str, ...]]:
    """The job's threshold, and the columns in the order of their terms."""
    statement = (
        select(JobRow.threshold, VersionRow.manifest["order"].label("columns"))
        .join_from(JobRow, VersionRow, JobRow.version_id == VersionRow.id)
        .where(JobRow.id == job_id)
    )
    head = connection.execute(statement).one()
    return head.threshold, tuple(head.columns)


def _next_scores(
    connection: Connection, job_id: str, after_row: int, columns: Sequence[str] | None
) -> tuple[int, Scores] | None:
    """The first stored chunk with rows above after_row: its row_to and its scores.

    With `columns`, the scores include kl, and the terms and surprises of the cells.
    """
    as_json = connection.dialect.name == "sqlite"
    payload = score_json if as_json else score_arrays
    values: list[ColumnElement[Any]] = [score_json.c.data, score_json.c.has_surprise]
    if not as_json:
        names = array_names(columns is not None)
        values = [func.array_send(payload.c[name], type_=LargeBinary).label(name) for name in names]
    statement = (
        select(ChunkRow.row_to, *values)
        .join_from(payload, ChunkRow, payload.c.chunk_id == ChunkRow.id)
        .where(payload.c.job_id == job_id, payload.c.row_from >= _chunk_of(job_id, after_row + 1))
        .where(ChunkRow.row_to > after_row + 1)
        .order_by(payload.c.row_from)
        .limit(1)
    )
    row = connection.execute(statement).first()
    if row is None:
        return None
    if as_json:
        return row.row_to, scores_from_json(row.data, columns, row.has_surprise)
    return row.row_to, scores_from_arrays(row._asdict(), columns)


def _chunk_of(job_id: str, row: int) -> ScalarSelect[int]:
    """The first row of the chunk that holds a row.

    The index finds it at once, however many chunks come before.
    """
    row_from = select(func.max(ChunkRow.row_from)).where(
        ChunkRow.job_id == job_id, ChunkRow.stage == "work", ChunkRow.row_from <= row
    )
    return row_from.scalar_subquery()


def _next_table(
    connection: Connection, job_id: str, after_row: int
) -> tuple[int, Iterator[pa.Table]] | None:
    """The first stored chunk with rows above after_row: its row_to and its made rows.

    The rows come piece by piece, without those up to after_row.
    """
    statement = (
        select(ChunkRow.row_from, ChunkRow.row_to, JobRow.kind, TableChunkRow.data)
        .join_from(TableChunkRow, ChunkRow, TableChunkRow.chunk_id == ChunkRow.id)
        .join(JobRow, TableChunkRow.job_id == JobRow.id)
        .where(
            TableChunkRow.job_id == job_id,
            TableChunkRow.row_from >= _chunk_of(job_id, after_row + 1),
        )
        .where(ChunkRow.row_to > after_row + 1)
        .order_by(TableChunkRow.row_from)
        .limit(1)
    )
    chunk = connection.execute(statement).first()
    if chunk is None:
        return None
    # Generated rows have no column `row`: they are the chunk's rows in order. The cells of a whole
    # table have one, which an identifier may have renamed; they are one chunk, read from its start.
    is_in_order = chunk.kind == "generate" or chunk.kind in WHOLE_TABLE
    skip = max(0, after_row + 1 - chunk.row_from) if is_in_order else None
    return chunk.row_to, table_from_parquet(chunk.data, after_row, skip)


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def _store_anomalies(connection: Connection, claim: Claim, scores: Scores) -> int:
    """Keep the 1,000 largest of the job, and return how many rows that adds.

    The rows of this chunk that may be among them are inserted first; then the rest is deleted.
    """
    rank: Rank = claim.params.get("rank", "surprise")
    last = _last_kept(connection, claim.job_id, rank)
    lowest = -math.inf if last is None else last[0]
    rows = [
        {"job_id": claim.job_id} | {name: value for name, value in anomaly if name != "anomaly"}
        for anomaly in scores.top(TOP_ANOMALIES, lowest, rank)
    ]
    if not rows:
        return 0
    connection.execute(insert(AnomalyRow), rows)
    last = _last_kept(connection, claim.job_id, rank)
    if last is None:
        return len(rows)
    order = tuple_(-_score_of(rank), AnomalyRow.row)
    rest = delete(AnomalyRow).where(
        AnomalyRow.job_id == claim.job_id, order > tuple_(-last[0], last[1])
    )
    return len(rows) - connection.execute(rest).rowcount


def _last_kept(connection: Connection, job_id: str, rank: Rank) -> tuple[float, int] | None:
    """Score and row of the last of the 1,000, or None while there are fewer."""
    score = _score_of(rank)
    statement = (
        select(score.label("score"), AnomalyRow.row)
        .where(AnomalyRow.job_id == job_id)
        .order_by(score.desc(), AnomalyRow.row)
        .offset(TOP_ANOMALIES - 1)
        .limit(1)
    )
    last = connection.execute(statement).first()
    return None if last is None else (last.score, last.row)


def _score_of(rank: Rank) -> ColumnElement[float]:
    """What anomalies of this rank are ordered by."""
    return AnomalyRow.nelbo.expression if rank == "nelbo" else SURPRISE

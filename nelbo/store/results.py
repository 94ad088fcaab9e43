"""Results and errors of jobs: stored chunk by chunk, read back in row order at bounded memory,
summed up at the end."""

import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sqlalchemy import (
    ColumnElement,
    Connection,
    LargeBinary,
    Row,
    ScalarSelect,
    delete,
    func,
    insert,
    literal,
    select,
    tuple_,
)

from nelbo.rows import Anomaly, RowError, Scores
from nelbo.scores import count, threshold_of
from nelbo.store import arrays
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

TOP_ANOMALIES = 1_000
HISTOGRAM_BINS = 50
FLOAT_BYTES = 8
ROW_BYTES = 100
"""Of a row in SQL, beside its texts: the job's id, in the table and in its index."""
TERM_BYTES = 24
"""Of a term in the JSON of an anomaly, beside its column's name."""


def scores(
    db: Database,
    job_id: str,
    *,
    after_row: int = -1,
    limit: int | None = None,
    explain: bool = False,
) -> Iterator[pa.RecordBatch]:
    """Scores in row order, a batch a chunk, of rows above `after_row`, at most `limit`. Each batch
    is read on its own, so that a slow reader holds neither memory nor a transaction. `explain`
    needs a job with explain."""
    with db.read() as connection:
        threshold, columns = _score_head(connection, job_id)
    left = limit
    while left is None or left > 0:
        with db.read() as connection:
            found = _next_scores(connection, job_id, after_row, columns if explain else None)
        if found is None:
            return
        row_to, chunk = found
        batch = chunk.to_batch(threshold, explain)
        batch = batch.filter(pc.greater(batch["row"], pa.scalar(after_row)))[slice(left)]
        if batch.num_rows:
            yield batch
        left = None if left is None else left - batch.num_rows
        after_row = row_to - 1


def score_schema(db: Database, job_id: str, *, explain: bool = False) -> pa.Schema:
    """The schema of the batches of `scores`, for a job without any, too."""
    with db.read() as connection:
        _, columns = _score_head(connection, job_id)
    return Scores.schema(columns if explain else None)


def tables(
    db: Database, job_id: str, *, after_row: int = -1, limit: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Made rows in row order, a batch for each piece of a chunk, of source rows above `after_row`
    (generate: of row numbers), at most `limit` made rows. A chunk of which no row could be made
    gives a batch of none, so that the columns are known."""
    left = limit
    while left is None or left > 0:
        with db.read() as connection:
            found = _next_table(connection, job_id, after_row)
        if found is None:
            return
        row_to, pieces = found
        for piece in pieces:
            batch = _one_batch(piece[slice(left)])
            yield batch
            left = None if left is None else left - batch.num_rows
        after_row = row_to - 1


def errors(db: Database, job_id: str, *, after_row: int = -1, limit: int = 1_000) -> list[RowError]:
    """Recorded errors in row order, of rows above `after_row`."""
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
    """The rows with the largest nelbo, the largest first; at most 1,000 are kept."""
    statement = (
        select(
            AnomalyRow.row,
            AnomalyRow.nelbo,
            AnomalyRow.p_value,
            AnomalyRow.kl,
            AnomalyRow.terms,
            JobRow.threshold,
        )
        .join_from(AnomalyRow, JobRow, AnomalyRow.job_id == JobRow.id)
        .where(AnomalyRow.job_id == job_id)
        .order_by(AnomalyRow.nelbo.desc(), AnomalyRow.row)
        .limit(limit)
    )
    with db.read() as connection:
        return [
            Anomaly(
                row=row.row,
                nelbo=row.nelbo,
                p_value=row.p_value,
                anomaly=None if row.threshold is None else row.p_value <= row.threshold,
                kl=row.kl,
                terms=row.terms,
            )
            for row in connection.execute(statement)
        ]


def finish(db: Database, claim: Claim) -> FinishOutcome:
    """What needs all chunks of the claim's job: totals and, of scores, threshold and histogram."""
    with db.read() as connection:
        job = connection.execute(
            select(JobRow.rows, JobRow.rows_failed).where(JobRow.id == claim.job_id)
        ).one()
    totals = {"rows": job.rows, "rows_failed": job.rows_failed}
    if claim.kind == "score":
        return _finish_scores(db, claim, totals)
    with db.read() as connection:
        made = connection.scalars(
            select(TableChunkRow.rows).where(TableChunkRow.job_id == claim.job_id)
        ).all()
    return FinishOutcome(totals | {"rows_made": sum(made)})


def store_scores(connection: Connection, claim: Claim, chunk: Scores) -> int:
    """Insert a chunk's scores, inside the transaction that commits the chunk; about how many bytes
    that adds."""
    explain = bool(claim.params.get("explain"))
    key = {
        "chunk_id": claim.chunk_id,
        "job_id": claim.job_id,
        "row_from": claim.row_from,
        "fence": claim.fence,
    }
    if connection.dialect.name == "sqlite":
        data = _to_json(chunk, explain)
        connection.execute(insert(score_json).values(**key, data=data))
        stored_bytes = len(data)
    else:
        connection.execute(insert(score_arrays).values(**key, **_to_arrays(chunk, explain)))
        numbers = 3 * len(chunk.rows) + (chunk.kl.size + chunk.terms.size if explain else 0)
        stored_bytes = FLOAT_BYTES * numbers
    anomaly_bytes = sum(len(name) + TERM_BYTES for name in chunk.columns)
    return stored_bytes + anomaly_bytes * _store_anomalies(connection, claim.job_id, chunk)


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
    """Insert recorded errors, inside the transaction that commits their chunk; about how many bytes
    that adds."""
    rows = [
        {
            "job_id": job_id,
            "row": error.row,
            "column": None if error.column is None else clean(error.column),
            "code": error.code,
            "message": clean(error.message),
        }
        for error in errors
    ]
    if rows:
        connection.execute(insert(ErrorRow), rows)
    return sum(ROW_BYTES + len(str(row["column"])) + len(str(row["message"])) for row in rows)


def delete_results(connection: Connection, job_id: str) -> None:
    """Remove all that was stored for a job."""
    payload = score_json if connection.dialect.name == "sqlite" else score_arrays
    connection.execute(delete(payload).where(payload.c.job_id == job_id))
    for table in (TableChunkRow, ErrorRow, AnomalyRow):
        connection.execute(delete(table).where(table.job_id == job_id))


def delete_chunks(connection: Connection, job_id: str, limit: int) -> int:
    """Remove so many chunks of a job that was deleted, with all that was stored for their rows; the
    number of chunks."""
    payload = score_json if connection.dialect.name == "sqlite" else score_arrays
    first = (
        select(ChunkRow.id, ChunkRow.row_from, ChunkRow.row_to)
        .where(ChunkRow.job_id == job_id)
        .order_by(ChunkRow.row_from)
        .limit(limit)
    )
    chunks = connection.execute(first).all()
    ids, row_to = [chunk.id for chunk in chunks], max((chunk.row_to for chunk in chunks), default=0)
    connection.execute(delete(payload).where(payload.c.chunk_id.in_(ids)))
    connection.execute(delete(TableChunkRow).where(TableChunkRow.chunk_id.in_(ids)))
    for table in (ErrorRow, AnomalyRow):
        connection.execute(delete(table).where(table.job_id == job_id, table.row < row_to))
    connection.execute(delete(ChunkRow).where(ChunkRow.id.in_(ids)))
    return len(ids)


def _finish_scores(db: Database, claim: Claim, totals: dict[str, Any]) -> FinishOutcome:
    """Two passes over the stored scores, each a chunk at a time: p-values, range and sum, then the
    histogram."""
    p_values: Counter[float] = Counter()
    low, high = math.inf, -math.inf

    def nelbos() -> Iterator[float]:
        nonlocal low, high
        for chunk in _chunks(db, claim.job_id):
            count(p_values, chunk.p_value)
            low, high = min(low, float(chunk.nelbo.min())), max(high, float(chunk.nelbo.max()))
            yield from chunk.nelbo.tolist()

    # fsum is exact whatever the order, so the mean does not depend on how the rows were cut into
    # chunks.
    total, scored = math.fsum(nelbos()), p_values.total()
    threshold = threshold_of(p_values, claim.params["alpha"], claim.params.get("fdr"))
    flagged = sum(times for p_value, times in p_values.items() if p_value <= threshold)
    summary = totals | {"rows_scored": scored, "anomalies": flagged}
    if scored:
        summary["nelbo"] = {"mean": total / scored, "min": low, "max": high}
        summary["histogram"] = _histogram(db, claim.job_id, low, high)
    return FinishOutcome(summary, threshold)


def _histogram(
    db: Database, job_id: str, low: float, high: float
) -> dict[str, list[float] | list[int]]:
    edges = np.histogram_bin_edges(np.array([low, high]), bins=HISTOGRAM_BINS)
    counts = np.zeros(HISTOGRAM_BINS, dtype=np.int64)
    for chunk in _chunks(db, job_id):
        counts += np.histogram(chunk.nelbo, bins=edges)[0]
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _chunks(db: Database, job_id: str) -> Iterator[Scores]:
    after_row = -1
    while True:
        with db.read() as connection:
            found = _next_scores(connection, job_id, after_row, None)
        if found is None:
            return
        row_to, chunk = found
        if len(chunk.rows):
            yield chunk
        after_row = row_to - 1


def _score_head(connection: Connection, job_id: str) -> tuple[float | None, tuple[str, ...]]:
    """Threshold, and the columns in the order of their terms."""
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
    """The first stored chunk with rows above after_row: its row_to and its scores; with `columns`,
    also their terms and kl."""
    if connection.dialect.name == "sqlite":
        payload, decode = score_json, _from_json
        values: list[ColumnElement[Any]] = [score_json.c.data]
    else:
        payload, decode = score_arrays, _from_arrays
        names = ["rows", "nelbo", "p_value", *([] if columns is None else ["kl", "terms"])]
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
    return None if row is None else (row.row_to, decode(row, columns))


def _chunk_of(job_id: str, row: int) -> ScalarSelect[int]:
    """Where the chunk that holds a row begins; the index finds it at once, however many chunks
    stand before."""
    found = select(func.max(ChunkRow.row_from)).where(
        ChunkRow.job_id == job_id, ChunkRow.stage == "work", ChunkRow.row_from <= row
    )
    return found.scalar_subquery()


def _to_json(chunk: Scores, explain: bool) -> str:
    """[[row, nelbo, p_value], …]: Python writes a float so that it is read back bit by bit, and
    SQLite does read it so."""
    values = [chunk.rows.tolist(), chunk.nelbo.tolist(), chunk.p_value.tolist()]
    if explain:
        values += [chunk.kl.tolist(), *chunk.terms.T.tolist()]
    return json.dumps(list(zip(*values, strict=True)), allow_nan=False, separators=(",", ":"))


def _from_json(row: Row[*tuple[Any, ...]], columns: Sequence[str] | None) -> Scores:
    values = np.array(json.loads(row.data), dtype=np.float64)
    if values.size == 0:
        values = values.reshape(0, 4 + len(columns or ()))
    # Row numbers are exact as float64: there are far fewer than 2^53.
    rows = values[:, 0].astype(np.int64)
    nelbo, p_value = values[:, 1:3].T
    if columns is None:
        return Scores.without_terms(rows, nelbo, p_value)
    return Scores(rows, nelbo, p_value, values[:, 3], values[:, 4:], columns)


def _to_arrays(chunk: Scores, explain: bool) -> dict[str, ColumnElement[Any]]:
    values = {"rows": chunk.rows, "nelbo": chunk.nelbo, "p_value": chunk.p_value}
    if explain:
        values |= {"kl": chunk.kl, "terms": chunk.terms.ravel()}
    return {name: literal(arrays.wire(array), arrays.Wire()) for name, array in values.items()}


def _from_arrays(row: Row[*tuple[Any, ...]], columns: Sequence[str] | None) -> Scores:
    values: dict[str, Any] = {
        name: arrays.unwire(data) for name, data in row._asdict().items() if name != "row_to"
    }
    if columns is None:
        return Scores.without_terms(**values)
    terms = values.pop("terms").reshape(len(values["rows"]), len(columns))
    return Scores(**values, terms=terms, columns=columns)


def _next_table(
    connection: Connection, job_id: str, after_row: int
) -> tuple[int, Iterator[pa.Table]] | None:
    """The first stored chunk with rows above after_row: its row_to and its made rows above
    after_row, piece by piece."""
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
    found = connection.execute(statement).first()
    if found is None:
        return None
    skip = max(0, after_row + 1 - found.row_from)
    return found.row_to, _made_rows(
        found.data, after_row, skip if found.kind == "generate" else None
    )


def _made_rows(data: bytes, after_row: int, skip: int | None) -> Iterator[pa.Table]:
    """The pieces of a stored chunk, without its first `skip` rows or, where that is None, with rows
    above after_row alone."""
    file = pq.ParquetFile(io.BytesIO(data))
    for at in range(file.num_row_groups):
        piece = file.read_row_group(at, use_threads=False)
        if skip is None:
            yield piece.filter(pc.greater(piece["row"], pa.scalar(after_row)))
        else:
            yield piece.slice(skip)
            skip = max(0, skip - piece.num_rows)


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def _store_anomalies(connection: Connection, job_id: str, chunk: Scores) -> int:
    """Keep the 1,000 largest of the job: first insert those of this chunk that may be among them,
    then delete the rest. How many more there are than before."""
    last = _last_kept(connection, job_id)
    lowest = -math.inf if last is None else last[0]
    rows = [
        {"job_id": job_id} | anomaly.model_dump(exclude={"anomaly"})
        for anomaly in chunk.top(TOP_ANOMALIES, lowest)
    ]
    if not rows:
        return 0
    connection.execute(insert(AnomalyRow), rows)
    last = _last_kept(connection, job_id)
    if last is None:
        return len(rows)
    rank = tuple_(-AnomalyRow.nelbo, AnomalyRow.row)
    rest = delete(AnomalyRow).where(AnomalyRow.job_id == job_id, rank > tuple_(-last[0], last[1]))
    return len(rows) - connection.execute(rest).rowcount


def _last_kept(connection: Connection, job_id: str) -> tuple[float, int] | None:
    """nelbo and row of the last of the 1,000, or None while there are fewer."""
    statement = (
        select(AnomalyRow.nelbo, AnomalyRow.row)
        .where(AnomalyRow.job_id == job_id)
        .order_by(AnomalyRow.nelbo.desc(), AnomalyRow.row)
        .offset(TOP_ANOMALIES - 1)
        .limit(1)
    )
    found = connection.execute(statement).first()
    return None if found is None else (found.nelbo, found.row)


def clean(value: str) -> str:
    """Text that both databases can hold: neither NUL (PostgreSQL) nor lone surrogates (UTF-8)."""
    return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()

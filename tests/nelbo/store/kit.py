"""What the tests of the store share: jobs, workers without a model, and what must hold of a
database at any time."""

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import insert, select, text, update

from nelbo.ids import new_id
from nelbo.jobs import JobRequest, ScoreRequest
from nelbo.rows import Floats, RowError, Scores
from nelbo.store import catalog, ledger, results
from nelbo.store.catalog import VersionEntry
from nelbo.store.claims import (
    Claim,
    Outcome,
    ReadOutcome,
    TableOutcome,
    VerifyOutcome,
)
from nelbo.store.session import Database, now
from nelbo.store.tables import ChunkRow, FileRow, JobRow
from nelbo.views import Job

OWNER = "local"
COLUMNS = ("length", "colour")
SCORE = ScoreRequest(model="adult")


def add_version(db: Database, owner: str = OWNER, model: str = "adult") -> VersionEntry:
    return catalog.add_version(db, owner, model, {"order": list(COLUMNS)}, "digest")


def add_job(
    db: Database,
    rows: int = 10,
    chunk_rows: int = 4,
    request: JobRequest = SCORE,
    owner: str = OWNER,
    **more: Any,
) -> Job:
    """A queued job."""
    version = more.pop("version", None) or add_version(db, owner)
    job, _ = ledger.submit(
        db, owner, request, version_id=version.id, rows=rows, chunk_rows=chunk_rows, **more
    )
    return job


def add_file(db: Database, state: str = "ready", rows: int = 10) -> str:
    """A file in any state, without the way that leads there."""
    file_id = new_id()
    values = {
        "owner": OWNER,
        "name": "a.csv",
        "format": "csv",
        "options": {},
        "notices": [],
        "digest": "d",
        "rows": rows,
    }
    with db.write() as connection:
        connection.execute(
            insert(FileRow).values(id=file_id, state=state, created_at=now(), **values)
        )
    return file_id


def take(db: Database, worker: str = "worker", lease_s: float = 60.0) -> Claim:
    """A claim, where there must be one. A lease of -1 s has run out when it is given."""
    claim = ledger.claim(db, worker, lease_s=lease_s)
    assert claim is not None
    return claim


def work(db: Database, claim: Claim) -> Outcome:
    """The outcome of a claim, as a worker would make it."""
    return results.finish(db, claim) if claim.stage == "finish" else outcome_of(claim)


def work_off(db: Database) -> int:
    """Do all chunks that are due and give their number."""
    done = 0
    while claim := ledger.claim(db, "worker", lease_s=60):
        assert ledger.commit(db, claim, work(db, claim))
        done += 1
    return done


def outcome_of(claim: Claim, failed: Sequence[int] = ()) -> Outcome:
    """Results that depend on the row alone, and an error for each failed row."""
    rows = np.array(
        [row for row in range(claim.row_from, claim.row_to) if row not in failed], dtype=np.int64
    )
    errors = [
        RowError(row=row, column="length", code="not-a-number", message="column 'length' holds 'x'")
        for row in failed
    ]
    match claim.kind:
        case "score":
            return score_outcome(rows, errors)
        case "read":
            return ReadOutcome(rows=7, digest="d", columns=list(COLUMNS), notices=["a notice"])
        case "verify":
            return VerifyOutcome({"order": list(COLUMNS)}, "digest")
    copies = claim.params.get("per_row", 1)
    return table_outcome(np.repeat(rows, copies), errors, with_row=claim.kind != "generate")


def score_outcome(
    rows: np.ndarray[Any, np.dtype[np.int64]], errors: Sequence[RowError] = ()
) -> Scores:
    terms, kl, surprises = terms_of(rows), kl_of(rows), surprises_of(rows)
    return Scores(
        rows=rows,
        nelbo=terms.sum(axis=1) + kl,
        surprise=surprises.max(axis=1),
        p_value=(1 + rows % 97) / 98,
        kl=kl,
        terms=terms,
        surprises=surprises,
        columns=COLUMNS,
        errors=errors,
    )


def terms_of(rows: np.ndarray[Any, np.dtype[np.int64]]) -> Floats:
    """[n, 2] nats."""
    return np.asarray(
        np.stack([np.sin(rows * 12.9898) * 43.758, np.cos(rows * 78.233) / 3.0], axis=1)
    )


def surprises_of(rows: np.ndarray[Any, np.dtype[np.int64]]) -> Floats:
    """[n, 2], in another order than the terms."""
    return np.asarray(np.stack([np.sin(rows * 5.1), np.cos(rows * 0.7) * 2.0], axis=1))


def kl_of(rows: np.ndarray[Any, np.dtype[np.int64]]) -> Floats:
    return np.asarray(np.exp(np.sin(rows * 1.7)))


def table_outcome(
    rows: np.ndarray[Any, np.dtype[np.int64]],
    errors: Sequence[RowError] = (),
    with_row: bool = True,
) -> TableOutcome:
    columns = {"row": pa.array(rows)} if with_row else {}
    table = pa.table(columns | {"value": pa.array(rows * 10)})
    stored = io.BytesIO()
    pq.write_table(table, stored)
    return TableOutcome(stored.getvalue(), len(rows), errors)


def expire(db: Database, claim: Claim) -> None:
    """Let the lease run out now."""
    with db.write() as connection:
        connection.execute(
            update(ChunkRow).where(ChunkRow.id == claim.chunk_id).values(lease_until=now() - 1)
        )


def end_pause(db: Database, claim: Claim) -> None:
    """Let a chunk's pause after a crash or a failure be over now."""
    with db.write() as connection:
        connection.execute(
            update(ChunkRow).where(ChunkRow.id == claim.chunk_id).values(not_before=now())
        )


def chunks(db: Database, job_id: str) -> list[Any]:
    statement = select(
        ChunkRow.stage,
        ChunkRow.row_from,
        ChunkRow.row_to,
        ChunkRow.state,
        ChunkRow.attempt,
        ChunkRow.crashes,
        ChunkRow.fence,
        ChunkRow.problem,
    )
    with db.read() as connection:
        found = connection.execute(
            statement.where(ChunkRow.job_id == job_id).order_by(
                ChunkRow.stage.desc(), ChunkRow.row_from
            )
        )
        return list(found)


def stored_rows(db: Database, job_id: str) -> list[int]:
    """Rows of the view `score`, in row order."""
    with db.read() as connection:
        return list(
            connection.execute(
                text("SELECT row FROM score WHERE job_id = :id ORDER BY row"), {"id": job_id}
            ).scalars()
        )


def at_once(tasks: Sequence[Callable[[], Any]]) -> list[Any]:
    """What the tasks give, all started at the same moment, each in its thread."""
    barrier = Barrier(len(tasks))

    def start(task: Callable[[], Any]) -> Any:
        barrier.wait()
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(start, tasks))


def assert_sound(db: Database) -> None:
    """What must hold of every job at any time, whoever was killed."""
    with db.read() as connection:
        jobs = connection.execute(select(JobRow.id, JobRow.kind)).all()
    for job in jobs:
        _assert_sound_job(db, job.id, internal=job.kind in ("read", "verify"))


def _assert_sound_job(db: Database, job_id: str, internal: bool) -> None:
    with db.read() as connection:
        job = connection.execute(select(JobRow.__table__).where(JobRow.id == job_id)).one()
    if job.deleted_at is not None:
        return
    found = chunks(db, job_id)
    work_chunks = [chunk for chunk in found if chunk.stage == "work"]
    finish_chunks = [chunk for chunk in found if chunk.stage == "finish"]
    done = [chunk for chunk in work_chunks if chunk.state == "done"]
    edges = [0, *(chunk.row_to for chunk in work_chunks)]
    assert edges == [*(chunk.row_from for chunk in work_chunks), job.rows], (
        "the chunks are the job's rows, each once"
    )
    assert (job.chunks, job.chunks_done) == (len(work_chunks), len(done))
    assert job.rows_done == sum(chunk.row_to - chunk.row_from for chunk in done)
    assert len(finish_chunks) == (not internal and len(done) == len(work_chunks)), (
        "the finish chunk follows the last"
    )
    states = {chunk.state for chunk in found}
    if job.state in ("succeeded", "failed", "cancelled"):
        assert not states & {"queued", "running"}, "a job that has ended has nothing left to do"
    if job.state == "succeeded":
        assert states == {"done"}
    if "running" in states:
        assert job.state == "running"
    if job.kind == "score":
        _assert_each_row_once(db, job, done)


def _assert_each_row_once(db: Database, job: Any, done: Sequence[Any]) -> None:
    errors = [error.row for error in results.errors(db, job.id, limit=1_000_000)]
    assert len(errors) == job.rows_failed
    answered = sorted([*stored_rows(db, job.id), *errors])
    assert answered == [row for chunk in done for row in range(chunk.row_from, chunk.row_to)], (
        "each row done once"
    )

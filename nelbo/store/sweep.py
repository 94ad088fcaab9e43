"""The sweep: takes back chunks whose worker died, with the transitions of the ledger."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, Update, insert, or_, select, update

from nelbo import crash
from nelbo.jobs import KINDS, WHOLE_TABLE
from nelbo.rows import RowError
from nelbo.store import queue
from nelbo.store.ledger import backoff_s, chunk_to, end_chunk, fail_job, lock_job, store_progress
from nelbo.store.session import Database, now
from nelbo.store.tables import ChunkRow, JobRow

CRASHES_TO_SPLIT = 2
"""After this number of dead workers, a chunk is halved, and a single row becomes an error."""
CRASHES_TO_FAIL = 5
"""Reading, verifying and cleaning cannot be halved: after this number of dead workers, the job
fails."""
CRASHES_TO_FAIL_FINISH = 20
"""The same for the finish of a job, which has more tries.

It only sums up stored results, so it hardly killed its workers, and all rows of the job are done
already.
"""
WORKER_DIED = "worker-died"
Fate = Literal["requeued", "split", "row", "job", "none"]


@dataclass(frozen=True)
class Swept:
    """The number of expired leases by the fate of their chunks."""

    requeued: int = 0
    split: int = 0
    rows_failed: int = 0
    jobs_failed: int = 0


def sweep(
    db: Database, *, dead: Collection[str] = (), blind: bool = False, limit: int = 1_000
) -> Swept:
    """Take back the chunks whose lease ran out. Any process may do this at any time.

    A chunk that keeps killing its worker is halved, down to a single row, which becomes an error. A
    chunk that cannot be halved fails its job.

    `dead` names workers whose process is gone for good: their leases end at once. `blind` means
    that the caller could not reach the database for a while. Other workers may not have been able
    to renew either, so a lease that ran out is not a crash then.
    """
    orphaned = _Orphaned(frozenset(dead), blind)
    expired = (
        select(ChunkRow.id, ChunkRow.job_id)
        .where(*orphaned.condition)
        .order_by(ChunkRow.lease_until)
        .limit(limit)
    )
    with db.read() as connection:
        chunks = connection.execute(expired).all()
    fates = [_sweep_chunk(db, chunk.id, chunk.job_id, orphaned) for chunk in chunks]
    return Swept(
        fates.count("requeued"), fates.count("split"), fates.count("row"), fates.count("job")
    )


@dataclass(frozen=True)
class _Orphaned:
    """The running chunks on which nobody works any longer."""

    dead: frozenset[str]
    blind: bool

    @property
    def condition(self) -> tuple[ColumnElement[bool], ...]:
        """The condition for such a chunk.

        A dead process never comes back, so this is safe in an UPDATE, however long ago its death
        was seen.
        """
        return ChunkRow.state == "running", or_(
            ChunkRow.lease_until < now(), ChunkRow.worker.in_(sorted(self.dead))
        )

    def crashed(self, worker: str | None) -> bool:
        return worker in self.dead or not self.blind

    def only(self, statement: Update, chunk: Row[*tuple[Any, ...]]) -> Update:
        """The UPDATE, for this chunk only, if it is still orphaned.

        A renewal does not lock the job and may have happened since the query.
        """
        return statement.where(ChunkRow.id == chunk.id, *self.condition)


def _sweep_chunk(db: Database, chunk_id: int, job_id: str, orphaned: _Orphaned) -> Fate:
    with db.write() as connection:
        lock_job(connection, job_id)
        statement = select(
            ChunkRow.id,
            ChunkRow.job_id,
            ChunkRow.stage,
            ChunkRow.row_from,
            ChunkRow.row_to,
            ChunkRow.crashes,
            ChunkRow.worker,
            ChunkRow.claimed_at,
            JobRow.kind,
        ).join_from(ChunkRow, JobRow, ChunkRow.job_id == JobRow.id)
        chunk = connection.execute(
            statement.where(ChunkRow.id == chunk_id, *orphaned.condition)
        ).first()
        if chunk is None:
            return "none"
        queue.charge(connection, job_id, chunk.claimed_at)
        fate = _take_back(connection, chunk, orphaned)
        crash.point("sweep")
        return fate


def _take_back(connection: Connection, chunk: Row[*tuple[Any, ...]], orphaned: _Orphaned) -> Fate:
    if not orphaned.crashed(chunk.worker):
        return _requeue(connection, chunk, orphaned, chunk.crashes)
    crashes = chunk.crashes + 1
    divisible = chunk.stage == "work" and chunk.kind in {*KINDS} - WHOLE_TABLE
    if crashes < (CRASHES_TO_SPLIT if divisible else _crashes_to_fail(chunk)):
        return _requeue(connection, chunk, orphaned, crashes)
    problem = f"the worker died {crashes} times in a row on this chunk; the last was {chunk.worker}"
    if not divisible:
        return _give_up_job(connection, chunk, orphaned, f"{chunk.kind} ({chunk.stage}): {problem}")
    if chunk.row_to - chunk.row_from > 1:
        return _split(connection, chunk, orphaned)
    return _give_up_row(connection, chunk, orphaned, problem)


def _crashes_to_fail(chunk: Row[*tuple[Any, ...]]) -> int:
    return CRASHES_TO_FAIL_FINISH if chunk.stage == "finish" else CRASHES_TO_FAIL


def _requeue(
    connection: Connection, chunk: Row[*tuple[Any, ...]], orphaned: _Orphaned, crashes: int
) -> Fate:
    how = "died" if chunk.worker in orphaned.dead else "did not renew its lease"
    values = {
        "lease_until": None,
        "crashes": crashes,
        "problem": f"the worker {chunk.worker} {how}",
    }
    pause_s = backoff_s(max(1, crashes))
    statement = orphaned.only(chunk_to("queued"), chunk).values(
        not_before=now() + pause_s, **values
    )
    return "requeued" if connection.execute(statement).rowcount else "none"


def _split(connection: Connection, chunk: Row[*tuple[Any, ...]], orphaned: _Orphaned) -> Fate:
    """Halve the rows.

    A half splits again after one more crash; a single row becomes an error only after two crashes
    of its own.
    """
    middle = (chunk.row_from + chunk.row_to) // 2
    values = {"state": "queued", "problem": "halved: its worker died repeatedly"}

    def crashes(row_from: int, row_to: int) -> int:
        return CRASHES_TO_SPLIT - 1 if row_to - row_from > 1 else 0

    first = orphaned.only(chunk_to("queued"), chunk).values(
        row_to=middle,
        lease_until=None,
        crashes=crashes(chunk.row_from, middle),
        problem=values["problem"],
    )
    if connection.execute(first).rowcount == 0:
        return "none"
    crash.point("split")
    second = insert(ChunkRow).values(
        job_id=chunk.job_id, stage="work", row_from=middle, row_to=chunk.row_to, **values
    )
    connection.execute(second.values(crashes=crashes(middle, chunk.row_to)))
    connection.execute(
        update(JobRow).where(JobRow.id == chunk.job_id).values(chunks=JobRow.chunks + 1)
    )
    return "split"


def _give_up_row(
    connection: Connection, chunk: Row[*tuple[Any, ...]], orphaned: _Orphaned, problem: str
) -> Fate:
    # If the worker is alive after all, the new fence keeps it from taking this for its own commit.
    done = orphaned.only(end_chunk("done", problem), chunk).values(fence=ChunkRow.fence + 1)
    if connection.execute(done).rowcount == 0:
        return "none"
    error = RowError(row=chunk.row_from, column=None, code=WORKER_DIED, message=problem)
    store_progress(connection, chunk.job_id, 1, [error])
    return "row"


def _give_up_job(
    connection: Connection, chunk: Row[*tuple[Any, ...]], orphaned: _Orphaned, problem: str
) -> Fate:
    if connection.execute(orphaned.only(end_chunk("failed", problem), chunk)).rowcount == 0:
        return "none"
    fail_job(connection, chunk.job_id, problem)
    return "job"

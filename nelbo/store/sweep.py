"""The sweep: takes back the chunks whose worker died, with the transitions of the ledger."""

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, Update, insert, select, update

from nelbo import crash
from nelbo.jobs import Error
from nelbo.store.ledger import backoff_s, chunk_to, end_chunk, fail_job, lock_job, store_progress
from nelbo.store.session import Database, now
from nelbo.store.tables import Chunk, Job
from nelbo.store.views import LISTED

CRASHES_TO_SPLIT = 2
"""A chunk whose worker died this often is halved; one row whose worker died this often is an error."""
CRASHES_TO_FAIL = 5
"""What cannot be halved (reading, verifying, finishing) fails its job when its worker died this often."""
WORKER_DIED = "worker-died"
Fate = Literal["requeued", "split", "row", "job", "none"]
_EXPIRED = (Chunk.state == "running", Chunk.lease_until < now())


@dataclass(frozen=True)
class Swept:
    """Expired leases by what became of their chunks."""

    requeued: int = 0
    split: int = 0
    rows_failed: int = 0
    jobs_failed: int = 0


def sweep(db: Database, *, limit: int = 1_000) -> Swept:
    """Take back the chunks whose lease ran out. One that keeps killing its worker is halved, down to the one row, which
    becomes an error; what cannot be halved fails its job. Any process may do this at any time."""
    expired = select(Chunk.id, Chunk.job_id).where(*_EXPIRED).order_by(Chunk.lease_until).limit(limit)
    with db.read() as connection:
        found = connection.execute(expired).all()
    fates = [_sweep_chunk(db, chunk.id, chunk.job_id) for chunk in found]
    return Swept(fates.count("requeued"), fates.count("split"), fates.count("row"), fates.count("job"))


def _sweep_chunk(db: Database, chunk_id: int, job_id: str) -> Fate:
    with db.write() as connection:
        lock_job(connection, job_id)
        statement = select(
            Chunk.id, Chunk.job_id, Chunk.stage, Chunk.row_from, Chunk.row_to, Chunk.crashes, Chunk.worker, Job.kind
        ).join_from(Chunk, Job, Chunk.job_id == Job.id)
        chunk = connection.execute(statement.where(Chunk.id == chunk_id, *_EXPIRED)).first()
        if chunk is None:
            return "none"
        fate = _take_back(connection, chunk)
        crash.point("sweep")
        return fate


def _take_back(connection: Connection, chunk: Row[*tuple[Any, ...]]) -> Fate:
    crashes = chunk.crashes + 1
    divisible = chunk.stage == "work" and chunk.kind in LISTED
    if crashes < (CRASHES_TO_SPLIT if divisible else CRASHES_TO_FAIL):
        return _requeue(connection, chunk, crashes)
    problem = f"the worker died {crashes} times in a row on this; the last was {chunk.worker}"
    if not divisible:
        return _give_up_job(connection, chunk, f"{chunk.kind} ({chunk.stage}): {problem}")
    if chunk.row_to - chunk.row_from > 1:
        return _split(connection, chunk)
    return _give_up_row(connection, chunk, problem)


def _expired(statement: Update, chunk: Row[*tuple[Any, ...]]) -> Update:
    """The lease is looked at again in the UPDATE itself: a renewal does not lock the job and may have come between."""
    return statement.where(Chunk.id == chunk.id, *_EXPIRED)


def _requeue(connection: Connection, chunk: Row[*tuple[Any, ...]], crashes: int) -> Fate:
    values = {"lease_until": None, "crashes": crashes, "problem": f"the worker {chunk.worker} did not renew its lease"}
    statement = _expired(chunk_to("queued"), chunk).values(not_before=now() + backoff_s(crashes), **values)
    return "requeued" if connection.execute(statement).rowcount else "none"


def _split(connection: Connection, chunk: Row[*tuple[Any, ...]]) -> Fate:
    """Halve the rows. One more crash halves a half again; one row alone has to be there for two crashes of its own."""
    middle = (chunk.row_from + chunk.row_to) // 2
    values = {"state": "queued", "problem": "halved: its worker died repeatedly"}

    def crashes(row_from: int, row_to: int) -> int:
        return CRASHES_TO_SPLIT - 1 if row_to - row_from > 1 else 0

    first = _expired(chunk_to("queued"), chunk).values(
        row_to=middle, lease_until=None, crashes=crashes(chunk.row_from, middle), problem=values["problem"]
    )
    if connection.execute(first).rowcount == 0:
        return "none"
    crash.point("split")
    second = insert(Chunk).values(job_id=chunk.job_id, stage="work", row_from=middle, row_to=chunk.row_to, **values)
    connection.execute(second.values(crashes=crashes(middle, chunk.row_to)))
    connection.execute(update(Job).where(Job.id == chunk.job_id).values(chunks=Job.chunks + 1))
    return "split"


def _give_up_row(connection: Connection, chunk: Row[*tuple[Any, ...]], problem: str) -> Fate:
    # With a new fence the dead worker, should it live, cannot take this for a commit of its own.
    done = _expired(end_chunk("done", problem), chunk).values(fence=Chunk.fence + 1)
    if connection.execute(done).rowcount == 0:
        return "none"
    error = Error(row=chunk.row_from, column=None, code=WORKER_DIED, message=problem)
    store_progress(connection, chunk.job_id, 1, [error])
    return "row"


def _give_up_job(connection: Connection, chunk: Row[*tuple[Any, ...]], problem: str) -> Fate:
    if connection.execute(_expired(end_chunk("failed", problem), chunk)).rowcount == 0:
        return "none"
    fail_job(connection, chunk.job_id, problem)
    return "job"

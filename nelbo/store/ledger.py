"""The ledger of jobs: each transition of a job or a chunk is one function here, and one conditional UPDATE.

    job    queued -> running -> succeeded | failed | cancelled      retry: failed | cancelled -> queued
    chunk  queued -> running -> done | failed | cancelled           given back, lease over, retry: -> queued

Whoever changes a job locks its row first, then its chunks; a claim locks one chunk alone and skips what is locked. A
job that has ended has no chunk that is queued or running.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from sqlalchemy import ColumnElement, Connection, Row, Select, Update, case, func, insert, select, update
from sqlalchemy import delete as sql_delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute

from nelbo import crash
from nelbo.errors import Conflict, Gone, IdempotencyMismatch, NotFound, Unavailable
from nelbo.jobs import (
    CHUNK_TRANSITIONS,
    JOB_TRANSITIONS,
    ChunkState,
    Error,
    JobRequest,
    Kind,
    Progress,
    State,
    chunk_ranges,
    new_id,
)
from nelbo.jobs import Job as JobView
from nelbo.store import catalog, claims, results
from nelbo.store.claims import Claim, FinishOutcome, Outcome, ReadOutcome, ScoreOutcome, TableOutcome, VerifyOutcome
from nelbo.store.session import Database, now
from nelbo.store.tables import Chunk, File, Job, Version, Worker

CRASHES_TO_SPLIT = 2
"""A chunk whose worker died this often is halved; one row whose worker died this often is an error."""
CRASHES_TO_FAIL = 5
"""What cannot be halved (reading, verifying, finishing) fails its job when its worker died this often."""
BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
CANDIDATES = 32
"""Jobs that one claim looks at; the chunks of all of them would have to be locked by others for it to find none."""
LISTED: tuple[Kind, ...] = ("score", "generate", "augment", "reconstruct")
WORKER_DIED = "worker-died"
FORGET_WORKER_S = 86_400.0


@dataclass(frozen=True)
class Page:
    """Some jobs, the newest first, and where the next page begins."""

    jobs: list[JobView]
    cursor: str | None


@dataclass(frozen=True)
class Swept:
    """Expired leases by what became of their chunks."""

    requeued: int = 0
    split: int = 0
    rows_failed: int = 0
    jobs_failed: int = 0


@dataclass(frozen=True)
class Backlog:
    """Rows accepted and not done yet, and how long the oldest chunk that could be claimed has waited."""

    rows: int
    rows_of_owner: int
    oldest_s: float


@dataclass(frozen=True)
class Heartbeat:
    """A worker and when it was last seen, by the database's clock."""

    worker: str
    host: str
    pid: int
    started_at: float
    age_s: float


# Accept


def submit(
    db: Database,
    owner: str,
    request: JobRequest,
    *,
    version_id: str,
    rows: int,
    chunk_rows: int,
    file_id: str | None = None,
    inline: Sequence[dict[str, Any]] | None = None,
    idempotency_key: str | None = None,
    request_digest: str | None = None,
) -> tuple[JobView, bool]:
    """Accept a job: the job, all its chunks and its idempotency key in one transaction.

    `rows` is the number of rows in the file or inline, or to generate. Gives the job and whether it was made: with a key
    that was used before, the job of then. Raises IdempotencyMismatch where that was another request, NotReady or Conflict
    where version or file cannot be used (any more).
    """
    if rows <= 0 or chunk_rows <= 0:
        raise ValueError(f"rows ({rows}) and chunk_rows ({chunk_rows}) must be positive")
    known = job_by_key(db, owner, idempotency_key, request_digest)
    if known is not None:
        return known, False
    params = request.model_dump(mode="json", exclude={"kind", "model", "file", "rows"})
    values: dict[str, Any] = {"version_id": version_id, "file_id": file_id, "params": params, "request_digest": request_digest}
    values |= {"inline": None if inline is None else list(inline), "idempotency_key": idempotency_key}
    try:
        with db.write() as connection:
            catalog.need_ready_version(connection, owner, version_id)
            if file_id is not None:
                catalog.need_ready_file(connection, owner, file_id)
            job_id = _enqueue(connection, owner, request.kind, rows, chunk_rows, values)
            crash.point("submit")
            return _view(connection, owner, job_id), True
    except IntegrityError:
        # Someone else used the key between the look above and the insert.
        known = job_by_key(db, owner, idempotency_key, request_digest)
        if known is None:
            raise
        return known, False


def submit_file(db: Database, owner: str, file_id: str, bytes: int) -> None:
    """receiving -> reading, with the internal job that reads the file. Raises Conflict unless it was receiving."""
    received = (
        update(File)
        .where(File.owner == owner, File.id == file_id, File.state == "receiving", File.deleted_at.is_(None))
        .values(state="reading", bytes=bytes)
    )
    with db.write() as connection:
        if connection.execute(received).rowcount == 0:
            raise Conflict(f"file {file_id} is not being received (any more); upload it again")
        _enqueue(connection, owner, "read", 1, 1, {"file_id": file_id, "params": {}})


def submit_version(
    db: Database, owner: str, model: str, manifest: dict[str, Any], digest: str, *, version_id: str | None = None
) -> catalog.VersionEntry:
    """Register a pushed artifact as a pending version, with the internal job that verifies it."""
    with db.write() as connection:
        place = version_id or new_id()
        version = catalog.insert_version(connection, owner, model, manifest, digest, "pending", place)
        _enqueue(connection, owner, "verify", 1, 1, {"version_id": version.id, "params": {}})
        return version


# Work


def claim(db: Database, worker: str, *, lease_s: float, job_id: str | None = None) -> Claim | None:
    """Take a chunk for `lease_s` seconds: of the hinted job if it has one, else of the job with the fewest running chunks.
    None where there is nothing to do. The attempt counts from here on: a crash never reports itself."""
    with db.write() as connection:
        jobs = _in_claim_order(select(Job.id, Job.state), job_id).limit(CANDIDATES)
        for job in connection.execute(jobs).all():
            if job.state == "queued" and not _start_job(connection, job.id):
                continue
            taken = connection.execute(_claim_chunk(job.id, worker, lease_s)).first()
            if taken is not None:
                return _claimed(connection, taken)
    return None


def renew(db: Database, claim: Claim, lease_s: float) -> bool:
    """Hold the chunk for `lease_s` seconds from now. False: it is no longer this claim's (expired and taken by someone
    else, or the job ended or was cancelled): stop working on it."""
    statement = update(Chunk).where(*_held(claim)).values(lease_until=now() + lease_s)
    with db.write() as connection:
        return connection.execute(statement).rowcount == 1


def release(db: Database, claim: Claim, *, delay_s: float = 0.0, problem: str | None = None) -> bool:
    """Give the chunk back, to be claimed again after `delay_s`: with the problem for a transient error, which counts as
    an attempt and in `claim.failures`; without one for a worker that shuts down, which does not."""
    statement = (
        _chunk_to("queued")
        .where(*_held(claim))
        .values(lease_until=None, worker=None, not_before=now() + delay_s, problem=_clean(problem))
        .values(attempt=Chunk.attempt - int(problem is None), failures=Chunk.failures + int(problem is not None))
    )
    with db.write() as connection:
        return connection.execute(statement).rowcount == 1


def commit(db: Database, claim: Claim, outcome: Outcome) -> bool:
    """Store a chunk's outcome, its state and the job's progress in one transaction.

    False: refused, nothing was written, for the chunk is no longer this claim's. To commit the same claim again is
    harmless and True, so Unavailable can be answered by another try. Raises ValueError for an outcome that is not one of
    this claim: a row missing or twice, NaN or inf.
    """
    claims.check(claim, outcome)
    try:
        with db.write() as connection:
            stored = _commit(connection, claim, outcome)
            crash.point("commit" if claim.stage == "work" else "finishing")
            return stored
    except Unavailable:
        # The answer to COMMIT may have been lost on its way; only the database knows.
        if was_committed(db, claim):
            return True
        raise


def was_committed(db: Database, claim: Claim) -> bool:
    """Whether the chunk is done by this very claim."""
    with db.read() as connection:
        return _is_done(connection, claim)


def fail(db: Database, claim: Claim, problem: str) -> bool:
    """End the chunk and its job as failed, for an error that another try would not cure. False: no longer this claim's.
    A file that cannot be read and a version that cannot be verified are rejected with the problem as the reason."""
    with db.write() as connection:
        _lock_job(connection, claim.job_id)
        if connection.execute(_end_chunk("failed", problem).where(*_held(claim))).rowcount == 0:
            return False
        _fail_job(connection, claim.job_id, problem)
        return True


# Steer


def cancel(db: Database, owner: str, job_id: str) -> JobView:
    """Cancel a job at once: nothing of it is claimed or committed any more, and whoever works on it learns so at the next
    renewal. Raises Conflict where it has ended already."""
    with db.write() as connection:
        before = _view(connection, owner, job_id, lock=True)
        statement = _job_to("cancelled").where(Job.id == job_id).values(cancel_requested_at=now(), finished_at=now())
        if connection.execute(statement).rowcount == 0:
            raise Conflict(f"job {job_id} is {before.state} already; only a queued or running job can be cancelled")
        connection.execute(_end_chunk("cancelled").where(Chunk.job_id == job_id))
        return _view(connection, owner, job_id)


def retry(db: Database, owner: str, job_id: str) -> JobView:
    """Go on with a failed or cancelled job; what is done stays. Raises Conflict for other states and for a deleted file."""
    with db.write() as connection:
        before = _view(connection, owner, job_id, lock=True)
        statement = (
            _job_to("queued")
            .where(Job.id == job_id)
            .values(problem=None, cancel_requested_at=None, started_at=None, finished_at=None, hinted_at=None)
            .returning(Job.version_id, Job.file_id)
        )
        job = connection.execute(statement).first()
        if job is None:
            raise Conflict(f"job {job_id} is {before.state}; only a failed or cancelled job can be retried")
        catalog.need_ready_version(connection, owner, job.version_id)
        if job.file_id is not None:
            catalog.need_ready_file(connection, owner, job.file_id)
        missing = _chunk_to("queued").where(Chunk.job_id == job_id, Chunk.state.in_(("failed", "cancelled")))
        connection.execute(missing.values(crashes=0, failures=0, not_before=0, worker=None, problem=None))
        return _view(connection, owner, job_id)


def delete(db: Database, owner: str, job_id: str) -> None:
    """Remove a job that has ended, with its results. Raises Conflict for one that has not."""
    ended = (Job.id == job_id, Job.state.not_in(catalog.UNFINISHED))
    with db.write() as connection:
        before = _view(connection, owner, job_id, lock=True)
        if connection.execute(update(Job).where(*ended).values(deleted_at=now(), inline=None)).rowcount == 0:
            raise Conflict(f"job {job_id} is {before.state}; cancel it first")
        results.delete_results(connection, job_id)
        connection.execute(sql_delete(Chunk).where(Chunk.job_id == job_id))


def sweep(db: Database, *, limit: int = 1_000) -> Swept:
    """Take back the chunks whose lease ran out. One that keeps killing its worker is halved, down to the one row, which
    becomes an error; what cannot be halved fails its job. Any process may do this at any time."""
    expired = select(Chunk.id, Chunk.job_id).where(*_EXPIRED).order_by(Chunk.lease_until).limit(limit)
    with db.read() as connection:
        found = connection.execute(expired).all()
    fates = [_sweep_chunk(db, chunk.id, chunk.job_id) for chunk in found]
    return Swept(fates.count("requeued"), fates.count("split"), fates.count("row"), fates.count("job"))


# Look


def get(db: Database, owner: str, job_id: str) -> JobView:
    """A job. Raises NotFound for an unknown or foreign one, Gone for a deleted one."""
    with db.read() as connection:
        return _view(connection, owner, job_id)


def list_jobs(
    db: Database,
    owner: str,
    *,
    state: State | None = None,
    kind: Kind | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> Page:
    """Jobs, the newest first; `cursor` is that of the page before."""
    statement = _views().where(Job.owner == owner, Job.kind.in_(LISTED), Job.deleted_at.is_(None))
    if state is not None:
        statement = statement.where(Job.state == state)
    if kind is not None:
        statement = statement.where(Job.kind == kind)
    if cursor is not None:
        statement = statement.where(Job.id < cursor)
    with db.read() as connection:
        found = connection.execute(statement.order_by(Job.id.desc()).limit(limit + 1)).all()
    jobs = [_job(row) for row in found[:limit]]
    return Page(jobs, jobs[-1].id if len(found) > limit else None)


def backlog(db: Database, owner: str) -> Backlog:
    """How much waits, for admission by counts."""
    left = func.coalesce(func.sum(Job.rows - Job.rows_done), 0)
    active = Job.state.in_(catalog.UNFINISHED)
    oldest = select(func.min(Job.created_at)).where(active, _has_due_chunk())
    with db.read() as connection:
        return Backlog(
            rows=int(connection.scalars(select(left).where(active)).one()),
            rows_of_owner=int(connection.scalars(select(left).where(active, Job.owner == owner)).one()),
            oldest_s=max(0.0, connection.scalars(select(func.coalesce(now() - oldest.scalar_subquery(), 0.0))).one()),
        )


# Hints and heartbeats


def due_for_hint(db: Database, limit: int, *, again_s: float = 2.0) -> list[tuple[str, int]]:
    """Jobs with chunks that nobody was told of for `again_s`, in the order of claims, and how many hints each deserves;
    about `limit` in all, at least one a job."""
    quiet = (Job.hinted_at.is_(None)) | (Job.hinted_at < now() - again_s)
    count = select(func.count()).where(*_due(Job.id)).scalar_subquery()
    statement = _in_claim_order(select(Job.id, count).where(quiet)).limit(limit)
    with db.read() as connection:
        found = connection.execute(statement).all()
    share = max(1, limit // max(1, len(found)))
    return [(job_id, min(count, share)) for job_id, count in found]


def mark_hinted(db: Database, job_ids: Sequence[str]) -> None:
    """Remember that hints for these jobs were sent just now."""
    with db.write() as connection:
        for job_id in sorted(job_ids):
            connection.execute(update(Job).where(Job.id == job_id).values(hinted_at=now()))


def heartbeat(db: Database, worker: str, *, host: str, pid: int) -> None:
    """Say that a worker is alive."""
    seen = update(Worker).where(Worker.name == worker).values(seen_at=now(), host=host, pid=pid)
    with db.write() as connection:
        if connection.execute(seen).rowcount == 0:
            connection.execute(sql_delete(Worker).where(Worker.seen_at < now() - FORGET_WORKER_S))
            connection.execute(insert(Worker).values(name=worker, host=host, pid=pid, started_at=now(), seen_at=now()))


def heartbeats(db: Database, *, within_s: float = 60.0) -> list[Heartbeat]:
    """Workers that were seen within so many seconds."""
    age = (now() - Worker.seen_at).label("age_s")
    statement = select(Worker.name, Worker.host, Worker.pid, Worker.started_at, age).where(age <= within_s)
    with db.read() as connection:
        return [Heartbeat(*row) for row in connection.execute(statement.order_by(Worker.name))]


def backoff_s(times: int) -> float:
    """Seconds to wait after so many failures in a row: doubled each time, and random, so that not all come at once."""
    return min(LONGEST_BACKOFF_S, BACKOFF_S * 2.0 ** (times - 1)) * random.uniform(0.5, 1.0)


# Statements: conditions


def _sources(table: dict[Any, frozenset[Any]], state: str) -> list[str]:
    """The states that may become `state`."""
    return [source for source, targets in table.items() if state in targets]


def _job_to(state: State) -> Update:
    """UPDATE job SET state, of those jobs alone whose state may become it."""
    return update(Job).where(Job.state.in_(_sources(JOB_TRANSITIONS, state))).values(state=state)


def _chunk_to(state: ChunkState) -> Update:
    """UPDATE chunk SET state, of those chunks alone whose state may become it."""
    return update(Chunk).where(Chunk.state.in_(_sources(CHUNK_TRANSITIONS, state))).values(state=state)


def _end_chunk(state: Literal["done", "failed", "cancelled"], problem: str | None = None) -> Update:
    return _chunk_to(state).values(lease_until=None, problem=_clean(problem))


def _held(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    """The chunk is still this claim's: nobody claimed it since, and nobody took it back."""
    return Chunk.id == claim.chunk_id, Chunk.fence == claim.fence, Chunk.state == "running"


def _due(job_id: str | InstrumentedAttribute[str]) -> tuple[ColumnElement[bool], ...]:
    return Chunk.job_id == job_id, Chunk.state == "queued", Chunk.not_before <= now()


_EXPIRED = (Chunk.state == "running", Chunk.lease_until < now())


def _has_due_chunk() -> ColumnElement[bool]:
    return select(Chunk.id).where(*_due(Job.id)).exists()


# Statements: claim


def _in_claim_order(statement: Select[*tuple[Any, ...]], hinted: str | None = None) -> Select[*tuple[Any, ...]]:
    """Active jobs with a chunk to claim: the hinted one, then those with the fewest running chunks. Among those with none
    the oldest is first, so that no stream of small jobs starves it; among the others the one that got the least so far."""
    running = (
        select(Chunk.job_id, func.count().label("chunks")).where(Chunk.state == "running").group_by(Chunk.job_id).subquery()
    )
    chunks = func.coalesce(running.c.chunks, 0)
    return (
        statement.select_from(Job)
        .outerjoin(running, running.c.job_id == Job.id)
        .where(Job.state.in_(catalog.UNFINISHED), _has_due_chunk())
        .order_by(Job.id != (hinted or ""), chunks, case((chunks == 0, 0), else_=Job.chunks_done), Job.created_at, Job.id)
    )


def _start_job(connection: Connection, job_id: str) -> bool:
    """queued -> running; True also where another claim was faster."""
    statement = _job_to("running").where(Job.id == job_id).values(started_at=now())
    if connection.execute(statement).rowcount:
        return True
    return connection.scalars(select(Job.state).where(Job.id == job_id)).one() == "running"


def _claim_chunk(job_id: str, worker: str, lease_s: float) -> Any:
    first = select(Chunk.id).where(*_due(job_id)).order_by(Chunk.row_from).limit(1).with_for_update(skip_locked=True)
    return (
        _chunk_to("running")
        .where(Chunk.id == first.scalar_subquery())
        .values(attempt=Chunk.attempt + 1, fence=Chunk.fence + 1, lease_until=now() + lease_s, worker=worker)
        .returning(
            Chunk.id,
            Chunk.job_id,
            Chunk.stage,
            Chunk.row_from,
            Chunk.row_to,
            Chunk.attempt,
            Chunk.failures,
            Chunk.fence,
        )
    )


def _claimed(connection: Connection, chunk: Row[*tuple[Any, ...]]) -> Claim:
    statement = select(Job.owner, Job.kind, Job.params, Job.version_id, Job.file_id, Job.inline)
    job = connection.execute(statement.where(Job.id == chunk.job_id)).one()
    return Claim(chunk_id=chunk.id, **{k: v for k, v in chunk._asdict().items() if k != "id"}, **job._asdict())


# Statements: commit and fail


def _lock_job(connection: Connection, job_id: str) -> None:
    """Two commits of one job go one after the other, so that the last sees that it is the last."""
    connection.execute(select(Job.id).where(Job.id == job_id).with_for_update())


def _commit(connection: Connection, claim: Claim, outcome: Outcome) -> bool:
    _lock_job(connection, claim.job_id)
    if connection.execute(_end_chunk("done").where(*_held(claim))).rowcount == 0:
        return _is_done(connection, claim)
    match outcome:
        case ScoreOutcome():
            results.store_scores(connection, claim, outcome)
            _store_progress(connection, claim.job_id, claim.rows, outcome.errors)
        case TableOutcome():
            results.store_table(connection, claim, outcome)
            _store_progress(connection, claim.job_id, claim.rows, outcome.errors)
        case ReadOutcome():
            _end_reading(connection, claim, outcome)
            _store_progress(connection, claim.job_id, claim.rows)
        case VerifyOutcome():
            catalog.settle_version(connection, _need(claim.version_id), "ready")
            _store_progress(connection, claim.job_id, claim.rows)
        case FinishOutcome():
            _succeed(connection, claim.job_id, outcome)
    return True


def _is_done(connection: Connection, claim: Claim) -> bool:
    mine = (Chunk.id == claim.chunk_id, Chunk.fence == claim.fence, Chunk.state == "done")
    return connection.execute(select(Chunk.id).where(*mine)).first() is not None


def _store_progress(connection: Connection, job_id: str, rows: int, faults: Sequence[claims.RowFault] = ()) -> None:
    """One more chunk is done; after the last, the job is finished by a chunk of its own, or at once if it is internal."""
    results.store_errors(connection, job_id, faults)
    statement = (
        update(Job)
        .where(Job.id == job_id)
        .values(rows_done=Job.rows_done + rows, rows_failed=Job.rows_failed + len(faults))
        .values(chunks_done=Job.chunks_done + 1)
        .returning(Job.kind, Job.chunks, Job.chunks_done)
    )
    job = connection.execute(statement).one()
    if job.chunks_done < job.chunks:
        return
    if job.kind in LISTED:
        connection.execute(insert(Chunk).values(job_id=job_id, stage="finish", row_from=0, row_to=0, state="queued"))
    else:
        _succeed(connection, job_id, FinishOutcome(summary={}))


def _succeed(connection: Connection, job_id: str, outcome: FinishOutcome) -> None:
    statement = _job_to("succeeded").where(Job.id == job_id)
    values = {"threshold": outcome.threshold, "summary": outcome.summary}
    connection.execute(statement.values(finished_at=now(), **values))


def _end_reading(connection: Connection, claim: Claim, outcome: ReadOutcome) -> None:
    values = {"rows": outcome.rows, "digest": outcome.digest, "columns": outcome.columns, "notices": outcome.notices}
    reading = update(File).where(File.id == claim.file_id, File.state == "reading")
    connection.execute(reading.values(state="ready", **values))


def _fail_job(connection: Connection, job_id: str, problem: str) -> None:
    """running -> failed. The job's row is locked already."""
    statement = (
        _job_to("failed")
        .where(Job.id == job_id)
        .values(problem=_clean(problem), finished_at=now())
        .returning(Job.kind, Job.version_id, Job.file_id)
    )
    job = connection.execute(statement).one()
    connection.execute(_end_chunk("cancelled").where(Chunk.job_id == job_id))
    if job.kind == "read":
        reading = update(File).where(File.id == job.file_id, File.state == "reading")
        connection.execute(reading.values(state="rejected", reason=_clean(problem)))
    if job.kind == "verify":
        catalog.settle_version(connection, job.version_id, "rejected", problem)


# Statements: sweep

Fate = Literal["requeued", "split", "row", "job", "none"]


def _sweep_chunk(db: Database, chunk_id: int, job_id: str) -> Fate:
    with db.write() as connection:
        _lock_job(connection, job_id)
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
    statement = _expired(_chunk_to("queued"), chunk).values(not_before=now() + backoff_s(crashes), **values)
    return "requeued" if connection.execute(statement).rowcount else "none"


def _split(connection: Connection, chunk: Row[*tuple[Any, ...]]) -> Fate:
    """Halve the rows. One more crash halves a half again; one row alone has to be there for two crashes of its own."""
    middle = (chunk.row_from + chunk.row_to) // 2
    values = {"state": "queued", "problem": "halved: its worker died repeatedly"}

    def crashes(row_from: int, row_to: int) -> int:
        return CRASHES_TO_SPLIT - 1 if row_to - row_from > 1 else 0

    first = _expired(_chunk_to("queued"), chunk).values(
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
    done = _expired(_end_chunk("done", problem), chunk).values(fence=Chunk.fence + 1)
    if connection.execute(done).rowcount == 0:
        return "none"
    error = Error(row=chunk.row_from, column=None, code=WORKER_DIED, message=problem)
    _store_progress(connection, chunk.job_id, 1, [error])
    return "row"


def _give_up_job(connection: Connection, chunk: Row[*tuple[Any, ...]], problem: str) -> Fate:
    if connection.execute(_expired(_end_chunk("failed", problem), chunk)).rowcount == 0:
        return "none"
    _fail_job(connection, chunk.job_id, problem)
    return "job"


# Statements: accept and look


def _enqueue(
    connection: Connection, owner: str, kind: claims.WorkKind, rows: int, chunk_rows: int, values: dict[str, Any]
) -> str:
    """Insert a job with its chunks."""
    job_id, ranges = new_id(), list(chunk_ranges(rows, chunk_rows))
    place = {"id": job_id, "owner": owner, "kind": kind, "state": "queued", "rows": rows, "chunks": len(ranges)}
    connection.execute(insert(Job).values(created_at=now(), **place, **values))
    chunks = [
        {"job_id": job_id, "stage": "work", "row_from": row_from, "row_to": row_to, "state": "queued"}
        for row_from, row_to in ranges
    ]
    connection.execute(insert(Chunk), chunks)
    return job_id


def job_by_key(db: Database, owner: str, key: str | None, request_digest: str | None) -> JobView | None:
    """The job that was accepted under this idempotency key, if any. Raises IdempotencyMismatch for another request."""
    if key is None:
        return None
    with db.read() as connection:
        statement = select(Job.id, Job.request_digest).where(Job.owner == owner, Job.idempotency_key == key)
        found = connection.execute(statement).first()
        if found is None:
            return None
        if found.request_digest != request_digest:
            raise IdempotencyMismatch(f"idempotency key {key!r} was used for another request; take a new one for this one")
        return _view(connection, owner, found.id)


def _views() -> Select[*tuple[Any, ...]]:
    return select(
        Job.id,
        Job.kind,
        Job.state,
        Version.model,
        Version.number,
        Job.params,
        Job.file_id,
        Job.rows,
        Job.rows_done,
        Job.rows_failed,
        Job.threshold,
        Job.summary,
        Job.problem,
        Job.cancel_requested_at,
        Job.created_at,
        Job.started_at,
        Job.finished_at,
        Job.deleted_at,
        (now() - Job.started_at).label("elapsed_s"),
    ).join_from(Job, Version, Job.version_id == Version.id)


def _view(connection: Connection, owner: str, job_id: str, *, lock: bool = False) -> JobView:
    statement = _views().where(Job.owner == owner, Job.id == job_id, Job.kind.in_(LISTED))
    found = connection.execute(statement.with_for_update(of=Job) if lock else statement).first()
    if found is None:
        raise NotFound(f"no job {job_id}")
    if found.deleted_at is not None:
        raise Gone(f"job {job_id} was deleted")
    return _job(found)


def _job(found: Row[*tuple[Any, ...]]) -> JobView:
    progress = Progress(rows=found.rows, rows_done=found.rows_done, rows_failed=found.rows_failed, eta_s=_eta_s(found))
    return JobView(
        id=found.id,
        kind=found.kind,
        state=found.state,
        model=f"{found.model}@{found.number}",
        params=found.params,
        file=found.file_id,
        progress=progress,
        threshold=found.threshold,
        summary=found.summary,
        problem=found.problem,
        cancel_requested=found.cancel_requested_at is not None,
        created_at=found.created_at,
        started_at=found.started_at,
        finished_at=found.finished_at,
    )


def _eta_s(found: Row[*tuple[Any, ...]]) -> float | None:
    """Seconds that are left at the pace so far."""
    if found.state != "running" or not found.rows_done or found.elapsed_s is None:
        return None
    return cast(float, max(0.0, found.elapsed_s) / found.rows_done * (found.rows - found.rows_done))


def _clean(problem: str | None) -> str | None:
    return None if problem is None else results.clean(problem)


def _need(version_id: str | None) -> str:
    if version_id is None:
        raise ValueError("a verify job without a version")
    return version_id

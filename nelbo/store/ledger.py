"""The ledger of jobs: each transition of a job or a chunk is one function, and the state changes by
a conditional UPDATE.

    job    queued -> running -> succeeded | failed | cancelled   retry: failed | cancelled -> queued
    chunk  queued -> running -> done | failed | cancelled   released, lost, retry: -> queued

A change of a job locks the job's row first, then its chunks. A claim locks one chunk and skips
locked ones; the first claim of a job also starts the job. A job that has ended has no queued or
running chunk. The sweep, which ends leases, is a module of its own.
"""

import functools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Update,
    func,
    insert,
    select,
    update,
)
from sqlalchemy import delete as sql_delete
from sqlalchemy.exc import IntegrityError

from nelbo import crash
from nelbo.audit import ITSELF, Actor
from nelbo.errors import Conflict, Overloaded, OverQuota, Unavailable
from nelbo.ids import new_id
from nelbo.jobs import (
    CHUNK_TRANSITIONS,
    JOB_TRANSITIONS,
    KINDS,
    UNFINISHED,
    ChunkState,
    InternalKind,
    JobRequest,
    Kind,
    State,
    chunk_ranges,
    with_seed,
)
from nelbo.rows import RowError, Scores
from nelbo.store import audit, catalog, claims, files, lookup, queue, results
from nelbo.store.claims import (
    Claim,
    FinishOutcome,
    Outcome,
    ReadOutcome,
    TableOutcome,
    VerifyOutcome,
)
from nelbo.store.session import Database, now
from nelbo.store.tables import ChunkRow, FileRow, JobRow
from nelbo.utf8 import clean
from nelbo.views import Job

BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
CANDIDATES = 32
"""Number of jobs that one claim tries.

It finds nothing only if other processes have locked the chunks of all of them.
"""


_CLAIMED = (
    ChunkRow.id.label("chunk_id"),
    ChunkRow.job_id,
    ChunkRow.stage,
    ChunkRow.row_from,
    ChunkRow.row_to,
    ChunkRow.attempt,
    ChunkRow.failures,
    ChunkRow.fence,
    ChunkRow.claimed_at,
)
"""What a claim says of its chunk."""


@dataclass(frozen=True)
class NextLease:
    """The worker that wants the next chunk of a job, and the seconds for which it holds it."""

    worker: str
    lease_s: float


@dataclass(frozen=True)
class Committed:
    """Whether a chunk's outcome is stored, and a claim on the finish of its job."""

    stored: bool
    finish: Claim | None = None


# Accept


def submit(
    db: Database,
    owner: str,
    request: JobRequest,
    *,
    version_id: str | None,
    rows: int,
    chunk_rows: int,
    file_id: str | None = None,
    inline: Sequence[dict[str, Any]] | None = None,
    idempotency_key: str | None = None,
    request_digest: str | None = None,
    limits: queue.QueueLimits | None = None,
) -> tuple[Job, bool]:
    """Accept a job: insert the job, its chunks and its idempotency key in one transaction.

    `rows` is the number of rows in the file, inline, or to generate. Returns the job and whether it
    is new: a key that was used before gives the job of that request. Raises IdempotencyMismatch
    where that request was different, NotReady or Conflict where the version or the file cannot be
    used, and OverQuota or Overloaded where too much work is waiting already (`limits`).
    """
    if rows <= 0 or chunk_rows <= 0:
        raise ValueError(f"rows ({rows}) and chunk_rows ({chunk_rows}) must be positive")
    earlier = lookup.job_by_key(db, owner, idempotency_key, request_digest)
    if earlier is not None:
        return earlier, False

    request = with_seed(request)
    params = request.model_dump(mode="json", exclude={"kind", "model", "file", "rows"})
    inline_rows = None if inline is None else list(inline)
    values: dict[str, Any] = {
        "version_id": version_id,
        "file_id": file_id,
        "params": params,
        "request_digest": request_digest,
        "inline": inline_rows,
        "idempotency_key": idempotency_key,
        "bytes": 0 if inline_rows is None else len(json.dumps(inline_rows)),
    }
    try:
        with db.write() as connection:
            if limits is not None:
                queue.admit(connection, owner, rows, params.get("per_row", 1), limits)
            _need_sources(connection, owner, version_id, file_id)
            job_id = _enqueue(connection, owner, request.kind, rows, chunk_rows, values)
            crash.point("submit")
            return lookup.need_job(connection, owner, job_id), True
    except (IntegrityError, OverQuota, Overloaded):
        # Another request may have used the key between the query above and the insert.
        earlier = lookup.job_by_key(db, owner, idempotency_key, request_digest)
        if earlier is None:
            raise
        return earlier, False


def submit_file(db: Database, owner: str, file_id: str, bytes: int) -> None:
    """receiving -> reading, with the internal job that reads the file.

    Raises Conflict unless the file was receiving.
    """
    received = (
        update(FileRow)
        .where(
            FileRow.owner == owner,
            FileRow.id == file_id,
            FileRow.state == "receiving",
            FileRow.deleted_at.is_(None),
        )
        .values(state="reading", bytes=bytes)
    )
    with db.write() as connection:
        if connection.execute(received).rowcount == 0:
            raise Conflict(f"file {file_id} is not being received; upload it again")
        _enqueue(connection, owner, "read", 1, 1, {"file_id": file_id, "params": {}})


def submit_version(
    db: Database, owner: str, model: str, *, version_id: str | None = None, by: Actor = ITSELF
) -> catalog.VersionEntry:
    """Register a pushed artifact as a pending version, with the internal job that verifies it."""
    with db.write() as connection:
        version = catalog.insert_version(
            connection, owner, model, {}, "", "pending", version_id or new_id(), by
        )
        _enqueue(connection, owner, "verify", 1, 1, {"version_id": version.id, "params": {}})
        return version


# Work


def claim(db: Database, worker: str, *, lease_s: float, can_clean: bool = True) -> Claim | None:
    """Take a chunk for `lease_s` seconds, from the job whose turn it is (`queue.in_claim_order`).

    A worker that cannot clean tables takes none of a clean job.

    None where no chunk is due. The attempt counts from now on, because a crash never reports
    itself.
    """
    with db.work() as connection:
        for job in connection.execute(_next_jobs(can_clean)).all():
            if job.state == "queued" and not _start_job(connection, job.id):
                continue
            taken = connection.execute(_claim_chunk(job.id, worker, lease_s)).first()
            if taken is not None:
                return _claimed(connection, taken)
    return None


def renew(db: Database, claim: Claim, lease_s: float) -> bool:
    """Hold the chunk for `lease_s` seconds from now.

    False where the claim is over, so that its work must stop: the lease ran out and another worker
    has the chunk, or the job has ended.
    """
    statement = update(ChunkRow).where(*_held(claim)).values(lease_until=now() + lease_s)
    with db.work() as connection:
        return connection.execute(statement).rowcount == 1


def release(
    db: Database,
    claim: Claim,
    *,
    delay_s: float = 0.0,
    problem: str | None = None,
    failed: bool = True,
) -> bool:
    """Give the chunk back, to be claimed again after `delay_s`.

    - A worker shuts down (no `problem`): neither an attempt nor a failure.
    - The database failed (`failed` False): an attempt.
    - Any other transient error: an attempt, and one of `claim.failures`.
    """
    statement = (
        chunk_to("queued")
        .where(*_held(claim))
        .values(lease_until=None, worker=None, not_before=now() + delay_s, problem=clean(problem))
        .values(
            attempt=ChunkRow.attempt - int(problem is None),
            failures=ChunkRow.failures + int(problem is not None and failed),
        )
    )
    with db.work() as connection:
        queue.charge(connection, claim.job_id, claim.claimed_at)
        return connection.execute(statement).rowcount == 1


def backoff_s(times: int) -> float:
    """Seconds to wait after this number of failures in a row.

    The wait doubles each time. It is random, so that retries do not all come at once.
    """
    return min(LONGEST_BACKOFF_S, BACKOFF_S * 2.0 ** (times - 1)) * random.uniform(0.5, 1.0)


def commit(db: Database, claim: Claim, outcome: Outcome) -> bool:
    """Store a chunk's outcome, its state and the job's progress in one transaction.

    False where the claim is over; nothing was written then. A second commit of the same claim is
    harmless and returns True, so that the caller can try again after Unavailable. Raises ValueError
    for an outcome that does not belong to the claim: a row is missing or repeated, or a value is
    NaN or infinite.
    """
    return commit_and_go_on(db, claim, outcome).stored


def commit_and_go_on(
    db: Database, claim: Claim, outcome: Outcome, next_lease: NextLease | None = None
) -> Committed:
    """Like `commit`. After the last chunk of a job, the worker of a `next_lease` also claims the
    job's finish, which then waits for no turn."""
    claims.check(claim, outcome)
    # What a file or an artifact was stored from may be removed once it is ready.
    transaction = db.work if claim.kind in KINDS else db.write
    try:
        with transaction() as connection:
            stored, has_finish = _commit(connection, claim, outcome)
            finish = None
            if has_finish and next_lease is not None:
                statement = _claim_chunk(claim.job_id, next_lease.worker, next_lease.lease_s)
                finish = _finish_of(connection, claim, statement)
            crash.point("commit" if claim.stage == "work" else "finishing")
        return Committed(stored, finish)
    except Unavailable:
        # The answer to COMMIT may be lost; only the database knows whether it succeeded.
        if not was_committed(db, claim):
            raise
        if next_lease is None:
            return Committed(True)
        with db.read() as connection:
            statement = _held_finish(claim.job_id, next_lease.worker)
            return Committed(True, _finish_of(connection, claim, statement))


def was_committed(db: Database, claim: Claim) -> bool:
    """Whether this very claim has completed the chunk."""
    with db.read() as connection:
        return _is_done(connection, claim)


def fail(db: Database, claim: Claim, problem: str) -> bool:
    """End the chunk and its job as failed, for an error that another try would not cure.

    False where the claim is over. A file that cannot be read, or a version that cannot be verified,
    is rejected with the problem as the reason.
    """
    with db.write() as connection:
        lock_job(connection, claim.job_id)
        queue.charge(connection, claim.job_id, claim.claimed_at)
        if connection.execute(end_chunk("failed", problem).where(*_held(claim))).rowcount == 0:
            return False
        fail_job(connection, claim.job_id, problem)
        return True


# Steer


def cancel(db: Database, owner: str, job_id: str) -> Job:
    """Cancel a job at once: no chunk of it is claimed or committed after this.

    Workers learn of it at their next renewal. Raises Conflict where the job has ended already.
    """
    with db.write() as connection:
        before = lookup.need_job(connection, owner, job_id, lock=True)
        statement = (
            _job_to("cancelled")
            .where(JobRow.id == job_id)
            .values(cancel_requested_at=now(), finished_at=now())
        )
        if connection.execute(statement).rowcount == 0:
            raise Conflict(
                f"job {job_id} is {before.state} already; only a queued or running job can be"
                " cancelled"
            )
        connection.execute(end_chunk("cancelled").where(ChunkRow.job_id == job_id))
        return lookup.need_job(connection, owner, job_id)


def retry(db: Database, owner: str, job_id: str, *, limits: queue.QueueLimits | None = None) -> Job:
    """Continue a failed or cancelled job; completed chunks stay.

    Raises Conflict for other states and for a deleted file, and OverQuota or Overloaded where too
    much work is waiting already (`limits`).
    """
    with db.write() as connection:
        before = lookup.need_job(connection, owner, job_id, lock=True)
        if limits is not None and before.state in _sources(JOB_TRANSITIONS, "queued"):
            rows = before.progress.rows - before.progress.rows_done
            queue.admit(connection, owner, rows, before.params.get("per_row", 1), limits)
        statement = (
            _job_to("queued")
            .where(JobRow.id == job_id)
            .values(
                problem=None,
                cancel_requested_at=None,
                started_at=None,
                finished_at=None,
                hinted_at=None,
            )
            .returning(JobRow.version_id, JobRow.file_id)
        )
        job = connection.execute(statement).first()
        if job is None:
            raise Conflict(
                f"job {job_id} is {before.state}; only a failed or cancelled job can be retried"
            )
        _need_sources(connection, owner, job.version_id, job.file_id)
        missing = chunk_to("queued").where(
            ChunkRow.job_id == job_id, ChunkRow.state.in_(("failed", "cancelled"))
        )
        connection.execute(
            missing.values(crashes=0, failures=0, not_before=now(), worker=None, problem=None)
        )
        return lookup.need_job(connection, owner, job_id)


def delete(db: Database, owner: str, job_id: str, *, by: Actor = ITSELF) -> None:
    """Remove a job that has ended, with its results. Raises Conflict for one that has not."""
    ended = (JobRow.id == job_id, JobRow.state.not_in(UNFINISHED))
    with db.write() as connection:
        before = lookup.need_job(connection, owner, job_id, lock=True)
        deleted = update(JobRow).where(*ended).values(deleted_at=now(), inline=None)
        if connection.execute(deleted).rowcount == 0:
            raise Conflict(f"job {job_id} is {before.state}; cancel it first")
        results.delete_results(connection, job_id)
        connection.execute(sql_delete(ChunkRow).where(ChunkRow.job_id == job_id))
        audit.record(connection, by, "job.delete", owner, job_id)


# Statements: conditions


def _sources(table: dict[Any, frozenset[Any]], state: str) -> list[str]:
    """The states that may become `state`."""
    return [source for source, targets in table.items() if state in targets]


def _job_to(state: State) -> Update:
    """UPDATE job SET state, for those jobs only whose state may become it."""
    return (
        update(JobRow).where(JobRow.state.in_(_sources(JOB_TRANSITIONS, state))).values(state=state)
    )


def chunk_to(state: ChunkState) -> Update:
    """UPDATE chunk SET state, for those chunks only whose state may become it."""
    return (
        update(ChunkRow)
        .where(ChunkRow.state.in_(_sources(CHUNK_TRANSITIONS, state)))
        .values(state=state)
    )


def end_chunk(state: Literal["done", "failed", "cancelled"], problem: str | None = None) -> Update:
    return chunk_to(state).values(lease_until=None, problem=clean(problem))


def _held(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    """The condition that this claim still holds the chunk.

    It does not where another worker has claimed the chunk since, or the sweep took it back.
    """
    return ChunkRow.id == claim.chunk_id, ChunkRow.fence == claim.fence, ChunkRow.state == "running"


# Statements: claim


def _start_job(connection: Connection, job_id: str) -> bool:
    """queued -> running; also True where another claim has just started the job."""
    statement = _job_to("running").where(JobRow.id == job_id).values(started_at=now())
    if connection.execute(statement).rowcount:
        return True
    return connection.scalars(select(JobRow.state).where(JobRow.id == job_id)).one() == "running"


@functools.cache
def _next_jobs(can_clean: bool) -> Select[*tuple[Any, ...]]:
    """Built once: that takes longer than to run it."""
    return queue.in_claim_order(select(JobRow.id, JobRow.state), can_clean).limit(CANDIDATES)


def _claim_chunk(job_id: str, worker: str, lease_s: float) -> Any:
    """Claims the first due chunk of a job."""
    first = (
        select(ChunkRow.id)
        .where(*queue.due(job_id))
        .order_by(ChunkRow.row_from)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    return (
        chunk_to("running")
        .where(ChunkRow.id == first.scalar_subquery())
        .values(attempt=ChunkRow.attempt + 1, fence=ChunkRow.fence + 1, worker=worker)
        .values(claimed_at=now(), lease_until=now() + lease_s)
        .returning(*_CLAIMED)
    )


def _claimed(connection: Connection, chunk: Row[*tuple[Any, ...]]) -> Claim:
    statement = select(
        JobRow.owner, JobRow.kind, JobRow.params, JobRow.version_id, JobRow.file_id, JobRow.inline
    )
    job = connection.execute(statement.where(JobRow.id == chunk.job_id)).one()
    return Claim(
        **chunk._asdict(),
        **job._asdict(),
    )


def _finish_of(connection: Connection, claim: Claim, statement: Any) -> Claim | None:
    """The finish of the claim's job, if the statement returns that chunk."""
    chunk = connection.execute(statement).first()
    return None if chunk is None else replace(claim, **chunk._asdict())


def _held_finish(job_id: str, worker: str) -> Select[*tuple[Any, ...]]:
    """Selects the finish of a job, if the worker has claimed it."""
    mine = (ChunkRow.stage == "finish", ChunkRow.state == "running", ChunkRow.worker == worker)
    return select(*_CLAIMED).where(ChunkRow.job_id == job_id, *mine)


# Statements: commit and fail


def lock_job(connection: Connection, job_id: str) -> None:
    """Lock the job, so that its commits follow one another.

    The last one then sees that it is the last.
    """
    connection.execute(select(JobRow.id).where(JobRow.id == job_id).with_for_update())


def _commit(connection: Connection, claim: Claim, outcome: Outcome) -> tuple[bool, bool]:
    """Whether the outcome is stored, and whether the job's finish is queued with it."""
    lock_job(connection, claim.job_id)
    queue.charge(connection, claim.job_id, claim.claimed_at)
    if connection.execute(end_chunk("done").where(*_held(claim))).rowcount == 0:
        return _is_done(connection, claim), False
    has_finish = False
    match outcome:
        case Scores():
            size = results.store_scores(connection, claim, outcome)
            has_finish = store_progress(connection, claim.job_id, claim.rows, outcome.errors, size)
        case TableOutcome():
            results.store_table(connection, claim, outcome)
            size = len(outcome.data)
            has_finish = store_progress(connection, claim.job_id, claim.rows, outcome.errors, size)
        case ReadOutcome():
            _end_reading(connection, claim, outcome)
            store_progress(connection, claim.job_id, claim.rows)
        case VerifyOutcome():
            catalog.accept_version(connection, _need(claim.version_id), outcome)
            store_progress(connection, claim.job_id, claim.rows)
        case FinishOutcome():
            _succeed(connection, claim.job_id, outcome)
    return True, has_finish


def _is_done(connection: Connection, claim: Claim) -> bool:
    mine = (ChunkRow.id == claim.chunk_id, ChunkRow.fence == claim.fence, ChunkRow.state == "done")
    return connection.execute(select(ChunkRow.id).where(*mine)).first() is not None


def store_progress(
    connection: Connection,
    job_id: str,
    rows: int,
    errors: Sequence[RowError] = (),
    result_bytes: int = 0,
) -> bool:
    """Count one more completed chunk.

    After the last one, a finish chunk is queued, which returns True, or an internal job succeeds at
    once.
    """
    stored_bytes = result_bytes + results.store_errors(connection, job_id, errors)
    statement = (
        update(JobRow)
        .where(JobRow.id == job_id)
        .values(rows_done=JobRow.rows_done + rows, rows_failed=JobRow.rows_failed + len(errors))
        .values(
            chunks_done=JobRow.chunks_done + 1, bytes=func.coalesce(JobRow.bytes, 0) + stored_bytes
        )
        .returning(JobRow.kind, JobRow.chunks, JobRow.chunks_done)
    )
    job = connection.execute(statement).one()
    if job.chunks_done < job.chunks:
        return False
    if job.kind not in KINDS:
        _succeed(connection, job_id, FinishOutcome(summary={}))
        return False
    finish = {"stage": "finish", "row_from": 0, "row_to": 0, "state": "queued"}
    connection.execute(insert(ChunkRow).values(job_id=job_id, **finish))
    return True


def _succeed(connection: Connection, job_id: str, outcome: FinishOutcome) -> None:
    statement = _job_to("succeeded").where(JobRow.id == job_id)
    values = {"threshold": outcome.threshold, "summary": outcome.summary}
    connection.execute(statement.values(finished_at=now(), **values))


def _end_reading(connection: Connection, claim: Claim, outcome: ReadOutcome) -> None:
    values = {
        "rows": outcome.rows,
        "digest": outcome.digest,
        "columns": outcome.columns,
        "notices": outcome.notices,
    }
    reading = update(FileRow).where(FileRow.id == claim.file_id, FileRow.state == "reading")
    connection.execute(reading.values(state="ready", **values))


def fail_job(connection: Connection, job_id: str, problem: str) -> None:
    """running -> failed. The caller has locked the job's row."""
    statement = (
        _job_to("failed")
        .where(JobRow.id == job_id)
        .values(problem=clean(problem), finished_at=now())
        .returning(JobRow.kind, JobRow.version_id, JobRow.file_id)
    )
    job = connection.execute(statement).one()
    connection.execute(end_chunk("cancelled").where(ChunkRow.job_id == job_id))
    if job.kind == "read":
        reading = update(FileRow).where(FileRow.id == job.file_id, FileRow.state == "reading")
        connection.execute(reading.values(state="rejected", reason=clean(problem)))
    if job.kind == "verify":
        catalog.reject_version(connection, job.version_id, problem)


# Statements: accept


def _need_sources(
    connection: Connection, owner: str, version_id: str | None, file_id: str | None
) -> None:
    """Raise unless a job can use its version and its file, where it has them."""
    if version_id is not None:
        catalog.need_ready_version(connection, owner, version_id)
    if file_id is not None:
        files.need_ready_file(connection, owner, file_id)


def _enqueue(
    connection: Connection,
    owner: str,
    kind: Kind | InternalKind,
    rows: int,
    chunk_rows: int,
    values: dict[str, Any],
) -> str:
    """Insert a job with its chunks."""
    job_id = new_id()
    ranges = list(chunk_ranges(rows, chunk_rows))
    job = {
        "id": job_id,
        "owner": owner,
        "kind": kind,
        "state": "queued",
        "rows": rows,
        "chunks": len(ranges),
    }
    connection.execute(insert(JobRow).values(created_at=now(), **job, **values))

    chunks = [
        {
            "job_id": job_id,
            "stage": "work",
            "row_from": row_from,
            "row_to": row_to,
            "state": "queued",
        }
        for row_from, row_to in ranges
    ]
    connection.execute(insert(ChunkRow), chunks)
    return job_id


def _need(version_id: str | None) -> str:
    if version_id is None:
        raise ValueError("a verify job without a version")
    return version_id

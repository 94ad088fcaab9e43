"""The queue: which chunks wait, in which order, how many rows they are, and which need a hint."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Subquery,
    and_,
    bindparam,
    case,
    func,
    select,
    update,
)
from sqlalchemy.orm import InstrumentedAttribute, aliased

from nelbo.errors import Overloaded, OverQuota, TooLarge
from nelbo.jobs import KINDS, UNFINISHED, WHOLE_TABLE
from nelbo.store.session import Database, now
from nelbo.store.tables import ChunkRow, JobRow

QUOTA_S = 10.0
"""Retry-After of a quota: a job of the owner may end at any moment."""
FULL_S = 30.0
"""Retry-After of a full service, which takes longer to recover."""
LONG_S = 5.0
"""Chunks that take less time than this count only as turns."""
ADMISSION_LOCK = 0x6E656C62
"""First key of PostgreSQL's advisory lock that lets one submission per owner in at a time."""


@dataclass(frozen=True)
class Backlog:
    """The accepted work that has not ended.

    Rows to be made count: an augment job has `per_row` for each source row.
    """

    rows: int
    rows_of_owner: int
    jobs_of_owner: int
    oldest_s: float
    """Seconds that the oldest job has waited without being started.

    It grows for ever where no worker runs. Running jobs and clean jobs do not count, however long
    they take.
    """


@dataclass(frozen=True)
class QueueLimits:
    """The largest backlog beside which a new job is accepted."""

    rows_of_owner: int
    rows: int
    jobs_of_owner: int
    wait_s: float


def admit(connection: Connection, owner: str, rows: int, per_row: int, limits: QueueLimits) -> None:
    """Raise OverQuota, Overloaded or TooLarge unless this transaction may queue `rows` more.

    On both databases, no owner exceeds their own limits by submitting many jobs at once. The limit
    over all owners is exact on SQLite. On PostgreSQL owners do not wait for each other, so each may
    exceed it by one job.
    """
    rows *= per_row
    if rows > limits.rows_of_owner:
        raise TooLarge(
            f"the job has {rows:,} rows; at most {limits.rows_of_owner:,} rows per owner may wait"
            " at a time (the setting max_queued_rows): split the job, and submit each part when the"
            " one before has ended"
        )
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(ADMISSION_LOCK, func.hashtext(owner))))

    waiting = backlog(connection, owner)
    if waiting.rows_of_owner + rows > limits.rows_of_owner:
        raise OverQuota(
            f"{waiting.rows_of_owner:,} of your rows are waiting already; {rows:,} more would"
            f" exceed {limits.rows_of_owner:,} (the setting max_queued_rows): try again when one of"
            " your jobs has ended",
            retry_after=QUOTA_S,
        )
    if waiting.jobs_of_owner >= limits.jobs_of_owner:
        raise OverQuota(
            f"{waiting.jobs_of_owner:,} of your jobs have not ended (the setting"
            " max_unfinished_jobs): try again when one has ended, or put more rows into one job",
            retry_after=QUOTA_S,
        )
    if waiting.rows + rows > limits.rows:
        raise Overloaded(
            f"{waiting.rows:,} rows of all owners are waiting already; {rows:,} more would exceed"
            f" {limits.rows:,} (the setting max_queued_rows_in_all): try again later",
            retry_after=FULL_S,
        )
    if waiting.oldest_s > limits.wait_s:
        raise Overloaded(
            f"a job has waited {waiting.oldest_s:,.0f} s for a worker, longer than"
            f" {limits.wait_s:,.0f} s (the setting max_queue_s): try again later, or start more"
            " workers",
            retry_after=FULL_S,
        )


def backlog(connection: Connection, owner: str) -> Backlog:
    """The backlog as a transaction sees it."""
    waiting = connection.execute(_backlog(), {"owner": owner}).one()
    return Backlog(
        int(waiting.rows),
        int(waiting.rows_of_owner),
        int(waiting.jobs_of_owner),
        max(0.0, waiting.oldest_s),
    )


@functools.cache
def _backlog() -> Select[*tuple[Any, ...]]:
    """Built once: that takes longer than to run it."""
    copies = case((JobRow.kind == "augment", JobRow.params["per_row"].as_integer()), else_=1)
    rows = (JobRow.rows - JobRow.rows_done) * copies
    mine = JobRow.owner == bindparam("owner")

    # A retried job has waited since its retry, not since its submission.
    first = (
        select(ChunkRow.not_before)
        .where(ChunkRow.job_id == JobRow.id, ChunkRow.state == "queued")
        .order_by(ChunkRow.row_from)
        .limit(1)
    )
    again_at = func.coalesce(first.scalar_subquery(), 0.0)
    since = case((again_at > JobRow.created_at, again_at), else_=JobRow.created_at)

    own_rows = case((mine, rows), else_=0)
    own_jobs = case((mine & JobRow.kind.in_(KINDS), 1), else_=0)
    # Clean jobs take minutes, one after the other, and may wait for a worker that can do them.
    oldest = func.min(case(((JobRow.state == "queued") & (JobRow.kind != "clean"), since)))
    sums = select(
        func.coalesce(func.sum(rows), 0).label("rows"),
        func.coalesce(func.sum(own_rows), 0).label("rows_of_owner"),
        func.coalesce(func.sum(own_jobs), 0).label("jobs_of_owner"),
        func.coalesce(now() - oldest, 0.0).label("oldest_s"),
    )
    return sums.where(JobRow.state.in_(UNFINISHED))


def due_for_hint(
    db: Database, limit: int, *, again_s: float = 2.0, can_clean: bool = True
) -> list[tuple[str, int]]:
    """Jobs with due chunks but no hint for `again_s`, and the number of hints that each gets.

    They come in claim order; about `limit` hints in all, at least one per job. A host that cannot
    clean tables gives no hint of a clean job.
    """
    quiet = (JobRow.hinted_at.is_(None)) | (JobRow.hinted_at < now() - again_s)
    count = select(func.count()).where(*due(JobRow.id)).scalar_subquery()
    statement = in_claim_order(select(JobRow.id, count).where(quiet), can_clean).limit(limit)
    with db.read() as connection:
        jobs = connection.execute(statement).all()
    share = max(1, limit // max(1, len(jobs)))
    return [(job_id, min(count, share)) for job_id, count in jobs]


def mark_hinted(db: Database, job_ids: Sequence[str]) -> None:
    """Record that hints for these jobs were sent just now."""
    with db.work() as connection:
        for job_id in sorted(job_ids):
            connection.execute(update(JobRow).where(JobRow.id == job_id).values(hinted_at=now()))


def holders(db: Database) -> set[str]:
    """The names of the workers that hold chunks."""
    statement = (
        select(ChunkRow.worker)
        .where(ChunkRow.state == "running", ChunkRow.worker.is_not(None))
        .distinct()
    )
    with db.read() as connection:
        return set(connection.scalars(statement))


def charge(connection: Connection, job_id: str, claimed_at: float) -> None:
    """Record that a chunk has occupied a worker from `claimed_at` until now, if that was long.

    While others have work, the job's owner then waits as long as the chunk took: owners share the
    workers' time, not only the turns.
    """
    took = now() - claimed_at
    long = (
        update(JobRow).where(JobRow.id == job_id, took > LONG_S).values(served_until=now() + took)
    )
    connection.execute(long)


def in_claim_order(
    statement: Select[*tuple[Any, ...]], can_clean: bool = True
) -> Select[*tuple[Any, ...]]:
    """Active jobs with a due chunk, in the order of their turns.

    First comes the owner who was served longest ago, then the job of theirs that was served longest
    ago; an owner or job that was never served counts from its submission. So no job waits for more
    claims than there are other jobs, however large or many these are. A chunk that takes long
    counts by its time (`charge`), also while it is running. The query reads indexes only: no claim
    locks or counts what others have claimed.
    """
    turns = _turns()
    if not can_clean:
        statement = statement.where(JobRow.kind != "clean")
    return (
        statement.select_from(JobRow)
        .join(turns, turns.c.id == JobRow.id)
        .where(_has_due_chunk(), ~_one_is_running())
        .order_by(turns.c.of_owner, turns.c.of_job, JobRow.created_at, JobRow.id)
    )


def _turns() -> Subquery:
    """For each active job, the times when its owner and when the job were last served."""
    claimed_at = (
        select(func.max(ChunkRow.claimed_at)).where(ChunkRow.job_id == JobRow.id).scalar_subquery()
    )
    other = aliased(JobRow)
    # Ended jobs count too, so that an owner of many small jobs does not seem new with each.
    started_at = (
        select(func.max(other.started_at)).where(other.owner == JobRow.owner).scalar_subquery()
    )
    served_until = (
        select(func.max(other.served_until)).where(other.owner == JobRow.owner).scalar_subquery()
    )
    running = (
        ChunkRow.job_id == JobRow.id,
        ChunkRow.state == "running",
        ChunkRow.claimed_at < now() - LONG_S,
    )
    occupied_since = select(func.min(ChunkRow.claimed_at)).where(*running).scalar_subquery()
    moments = {
        "claimed_at": claimed_at,
        "started_at": started_at,
        "served_until": served_until,
        "occupied_until": 2 * now() - occupied_since,
    }
    columns = (
        JobRow.id,
        JobRow.owner,
        JobRow.created_at,
        *(moment.label(name) for name, moment in moments.items()),
    )
    active = select(*columns).where(JobRow.state.in_(UNFINISHED)).subquery()
    columns_of_moments: list[ColumnElement[float]] = [active.c[name] for name in moments]
    served = functools.reduce(_later, columns_of_moments)
    of_owner = func.coalesce(
        func.max(served).over(partition_by=active.c.owner),
        func.min(active.c.created_at).over(partition_by=active.c.owner),
    )
    of_job = func.coalesce(active.c.claimed_at, active.c.created_at)
    return select(active.c.id, of_owner.label("of_owner"), of_job.label("of_job")).subquery()


def _later(first: ColumnElement[float], second: ColumnElement[float]) -> ColumnElement[float]:
    """The later of two moments; one or both may be NULL."""
    return case((first.is_(None), second), (second > first, second), else_=first)


def due(job_id: str | InstrumentedAttribute[str]) -> tuple[ColumnElement[bool], ...]:
    """The condition for a chunk of the job that can be claimed now."""
    return ChunkRow.job_id == job_id, ChunkRow.state == "queued", ChunkRow.not_before <= now()


def _one_is_running() -> ColumnElement[bool]:
    """Whether the job reads a file or is about a whole table while its owner has another such job
    running.

    A file's size does not tell how long either takes, and no owner may occupy all workers with it.
    """
    other = aliased(JobRow)
    running = select(ChunkRow.id).join(other, ChunkRow.job_id == other.id)
    running = running.where(
        other.owner == JobRow.owner, other.kind == JobRow.kind, ChunkRow.state == "running"
    )
    return and_(JobRow.kind.in_(("read", *sorted(WHOLE_TABLE))), running.exists())


def _has_due_chunk() -> ColumnElement[bool]:
    return select(ChunkRow.id).where(*due(JobRow.id)).exists()

"""The queue: what waits to be claimed, in which order, how much it is, and which of it nobody was
told of."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Subquery, and_, case, func, select, update
from sqlalchemy.orm import InstrumentedAttribute, aliased

from nelbo.errors import Overloaded, OverQuota, TooLarge
from nelbo.jobs import KINDS, UNFINISHED
from nelbo.store.session import Database, now
from nelbo.store.tables import ChunkRow, JobRow

QUOTA_S, FULL_S = 10.0, 30.0
"""When to come back: something of one's own may end any moment; a full service takes longer."""
LONG_S = 5.0
"""Chunks that take less count as turns alone."""
ADMISSION_LOCK = 0x6E656C62
"""First key of PostgreSQL's advisory lock that lets an owner's submissions in one after the
other."""


@dataclass(frozen=True)
class Backlog:
    """What was accepted and has not ended. Rows to be made count: an augmentation has `per_row` for
    each that it is given."""

    rows: int
    rows_of_owner: int
    jobs_of_owner: int
    oldest_s: float
    """How long the oldest job has waited that nobody has begun with. It grows for ever where no
    worker runs; a job that is under way, however long it takes, does not count."""


@dataclass(frozen=True)
class Limits:
    """The most of each that a job is accepted beside."""

    rows_of_owner: int
    rows: int
    jobs_of_owner: int
    wait_s: float


def admit(connection: Connection, owner: str, rows: int, per_row: int, limits: Limits) -> None:
    """Raise OverQuota, Overloaded or TooLarge unless `rows` more may be queued by the transaction
    that asks.

    On both databases no owner gets past their own limits by submitting many at once. The limit of
    all together is exact on SQLite; on PostgreSQL owners do not wait for each other, and each may
    exceed it by one job.
    """
    rows *= per_row
    if rows > limits.rows_of_owner:
        raise TooLarge(
            f"the job is about {rows:,} rows; of one owner at most {limits.rows_of_owner:,} may"
            " wait at a time (the setting"
            " max_queued_rows): split it, and submit a part when the one before has ended"
        )
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(ADMISSION_LOCK, func.hashtext(owner))))
    found = backlog(connection, owner)
    if found.rows_of_owner + rows > limits.rows_of_owner:
        raise OverQuota(
            f"{found.rows_of_owner:,} rows of yours wait already; with these {rows:,} there would"
            " be more than"
            f" {limits.rows_of_owner:,} (the setting max_queued_rows): try again when one of your"
            " jobs has ended",
            retry_after=QUOTA_S,
        )
    if found.jobs_of_owner >= limits.jobs_of_owner:
        raise OverQuota(
            f"{found.jobs_of_owner:,} jobs of yours have not ended (the setting"
            " max_unfinished_jobs): try again when one"
            " has, or put more rows into one job",
            retry_after=QUOTA_S,
        )
    if found.rows + rows > limits.rows:
        raise Overloaded(
            f"{found.rows:,} rows of all owners wait already; with these {rows:,} there would be"
            f" more than {limits.rows:,}"
            " (the setting max_queued_rows_in_all): try again later",
            retry_after=FULL_S,
        )
    if found.oldest_s > limits.wait_s:
        raise Overloaded(
            f"a job has waited {found.oldest_s:,.0f} s for a worker, longer than"
            f" {limits.wait_s:,.0f} s (the setting"
            " max_queue_s): try again later, or start more workers",
            retry_after=FULL_S,
        )


def backlog(connection: Connection, owner: str) -> Backlog:
    """How much waits, in the eyes of a transaction."""
    copies = case((JobRow.kind == "augment", JobRow.params["per_row"].as_integer()), else_=1)
    left, mine = (JobRow.rows - JobRow.rows_done) * copies, JobRow.owner == owner
    # What a retry queued again waits since then, not since its submission.
    first = (
        select(ChunkRow.not_before)
        .where(ChunkRow.job_id == JobRow.id, ChunkRow.state == "queued")
        .order_by(ChunkRow.row_from)
        .limit(1)
    )
    again_at = func.coalesce(first.scalar_subquery(), 0.0)
    since = case((again_at > JobRow.created_at, again_at), else_=JobRow.created_at)
    found = connection.execute(
        select(
            func.coalesce(func.sum(left), 0).label("rows"),
            func.coalesce(func.sum(case((mine, left), else_=0)), 0).label("rows_of_owner"),
            func.coalesce(func.sum(case((mine & JobRow.kind.in_(KINDS), 1), else_=0)), 0).label(
                "jobs_of_owner"
            ),
            func.coalesce(now() - func.min(case((JobRow.state == "queued", since))), 0.0).label(
                "oldest_s"
            ),
        ).where(JobRow.state.in_(UNFINISHED))
    ).one()
    return Backlog(
        int(found.rows),
        int(found.rows_of_owner),
        int(found.jobs_of_owner),
        max(0.0, found.oldest_s),
    )


def due_for_hint(db: Database, limit: int, *, again_s: float = 2.0) -> list[tuple[str, int]]:
    """Jobs with chunks that nobody was told of for `again_s`, in the order of claims, and how many
    hints each deserves; about `limit` in all, at least one a job."""
    quiet = (JobRow.hinted_at.is_(None)) | (JobRow.hinted_at < now() - again_s)
    count = select(func.count()).where(*due(JobRow.id)).scalar_subquery()
    statement = in_claim_order(select(JobRow.id, count).where(quiet)).limit(limit)
    with db.read() as connection:
        found = connection.execute(statement).all()
    share = max(1, limit // max(1, len(found)))
    return [(job_id, min(count, share)) for job_id, count in found]


def mark_hinted(db: Database, job_ids: Sequence[str]) -> None:
    """Remember that hints for these jobs were sent just now."""
    with db.write() as connection:
        for job_id in sorted(job_ids):
            connection.execute(update(JobRow).where(JobRow.id == job_id).values(hinted_at=now()))


def holders(db: Database) -> set[str]:
    """The workers that hold chunks, by name."""
    with db.read() as connection:
        return set(
            connection.scalars(
                select(ChunkRow.worker)
                .where(ChunkRow.state == "running", ChunkRow.worker.is_not(None))
                .distinct()
            )
        )


def charge(connection: Connection, job_id: str, claimed_at: float) -> None:
    """Remember that a chunk of a job occupied a worker from `claimed_at` until now, if that was
    long.

    Its owner then waits as long as the chunk took while others have work: owners share the workers'
    time, not only the turns.
    """
    took = now() - claimed_at
    long = (
        update(JobRow).where(JobRow.id == job_id, took > LONG_S).values(served_until=now() + took)
    )
    connection.execute(long)


def in_claim_order(statement: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
    """Active jobs with a chunk to claim, each in its turn: first the owner who was served longest
    ago, then the job of theirs that was. So no job waits for more claims than there are other jobs,
    however huge or many these are; who was never served stands where they came. A chunk that takes
    long counts by its time (`charge`), also while it is worked on. Read from indexes alone: no
    claim locks or counts what others claimed."""
    turns = _turns()
    return (
        statement.select_from(JobRow)
        .join(turns, turns.c.id == JobRow.id)
        .where(_has_due_chunk(), ~_reads_another())
        .order_by(turns.c.of_owner, turns.c.of_job, JobRow.created_at, JobRow.id)
    )


def _turns() -> Subquery:
    """Of each active job when its owner was served last, and when it was."""
    claimed_at = (
        select(func.max(ChunkRow.claimed_at)).where(ChunkRow.job_id == JobRow.id).scalar_subquery()
    )
    other = aliased(JobRow)
    # Jobs that have ended count as well: many small ones, one after the other, are no new owner
    # each.
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


def _later(one: ColumnElement[float], other: ColumnElement[float]) -> ColumnElement[float]:
    """The later of two moments, of which one or both may be NULL."""
    return case((one.is_(None), other), (other > one, other), else_=one)


def due(job_id: str | InstrumentedAttribute[str]) -> tuple[ColumnElement[bool], ...]:
    """A chunk of the job that could be claimed now."""
    return ChunkRow.job_id == job_id, ChunkRow.state == "queued", ChunkRow.not_before <= now()


def _reads_another() -> ColumnElement[bool]:
    """Whether the job is to read a file while another file of its owner is being read. How long
    that takes cannot be told from a file's size, and no owner may hold all workers with it."""
    other = aliased(JobRow)
    reading = select(ChunkRow.id).join(other, ChunkRow.job_id == other.id)
    reading = reading.where(
        other.owner == JobRow.owner, other.kind == "read", ChunkRow.state == "running"
    )
    return and_(JobRow.kind == "read", reading.exists())


def _has_due_chunk() -> ColumnElement[bool]:
    return select(ChunkRow.id).where(*due(JobRow.id)).exists()

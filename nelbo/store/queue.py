"""The queue: what waits to be claimed, in which order, how much it is, and which of it nobody was told of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, Subquery, case, func, select, update
from sqlalchemy.orm import InstrumentedAttribute, aliased

from nelbo.store.session import Database, now
from nelbo.store.tables import Chunk, Job
from nelbo.store.views import UNFINISHED


@dataclass(frozen=True)
class Backlog:
    """Rows accepted and not done yet, and how long the oldest chunk that could be claimed has waited."""

    rows: int
    rows_of_owner: int
    oldest_s: float


def backlog(db: Database, owner: str) -> Backlog:
    """How much waits, for admission by counts."""
    left = func.coalesce(func.sum(Job.rows - Job.rows_done), 0)
    active = Job.state.in_(UNFINISHED)
    oldest = select(func.min(Job.created_at)).where(active, _has_due_chunk())
    with db.read() as connection:
        return Backlog(
            rows=int(connection.scalars(select(left).where(active)).one()),
            rows_of_owner=int(connection.scalars(select(left).where(active, Job.owner == owner)).one()),
            oldest_s=max(0.0, connection.scalars(select(func.coalesce(now() - oldest.scalar_subquery(), 0.0))).one()),
        )


def due_for_hint(db: Database, limit: int, *, again_s: float = 2.0) -> list[tuple[str, int]]:
    """Jobs with chunks that nobody was told of for `again_s`, in the order of claims, and how many hints each deserves;
    about `limit` in all, at least one a job."""
    quiet = (Job.hinted_at.is_(None)) | (Job.hinted_at < now() - again_s)
    count = select(func.count()).where(*due(Job.id)).scalar_subquery()
    statement = in_claim_order(select(Job.id, count).where(quiet)).limit(limit)
    with db.read() as connection:
        found = connection.execute(statement).all()
    share = max(1, limit // max(1, len(found)))
    return [(job_id, min(count, share)) for job_id, count in found]


def mark_hinted(db: Database, job_ids: Sequence[str]) -> None:
    """Remember that hints for these jobs were sent just now."""
    with db.write() as connection:
        for job_id in sorted(job_ids):
            connection.execute(update(Job).where(Job.id == job_id).values(hinted_at=now()))


def holders(db: Database) -> set[str]:
    """The workers that hold chunks, by name."""
    with db.read() as connection:
        return set(
            connection.scalars(select(Chunk.worker).where(Chunk.state == "running", Chunk.worker.is_not(None)).distinct())
        )


def in_claim_order(statement: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
    """Active jobs with a chunk to claim, each in its turn: first the owner who was served longest ago, then the job of
    theirs that was. So no job waits for more claims than there are other jobs, however huge or many these are; who was
    never served stands where they came. Read from indexes alone: no claim locks or counts what others claimed."""
    turns = _turns()
    return (
        statement.select_from(Job)
        .join(turns, turns.c.id == Job.id)
        .where(_has_due_chunk())
        .order_by(turns.c.of_owner, turns.c.of_job, Job.created_at, Job.id)
    )


def _turns() -> Subquery:
    """Of each active job when its owner was served last, and when it was."""
    claimed_at = select(func.max(Chunk.claimed_at)).where(Chunk.job_id == Job.id).scalar_subquery()
    other = aliased(Job)
    # Jobs that have ended count as well: many small ones, one after the other, are no new owner each.
    started_at = select(func.max(other.started_at)).where(other.owner == Job.owner).scalar_subquery()
    columns = (Job.id, Job.owner, Job.created_at, claimed_at.label("claimed_at"), started_at.label("started_at"))
    active = select(*columns).where(Job.state.in_(UNFINISHED)).subquery()
    served = case((active.c.started_at.is_(None), active.c.claimed_at), else_=active.c.started_at)
    served = case((active.c.claimed_at > active.c.started_at, active.c.claimed_at), else_=served)
    of_owner = func.coalesce(
        func.max(served).over(partition_by=active.c.owner), func.min(active.c.created_at).over(partition_by=active.c.owner)
    )
    of_job = func.coalesce(active.c.claimed_at, active.c.created_at)
    return select(active.c.id, of_owner.label("of_owner"), of_job.label("of_job")).subquery()


def due(job_id: str | InstrumentedAttribute[str]) -> tuple[ColumnElement[bool], ...]:
    """A chunk of the job that could be claimed now."""
    return Chunk.job_id == job_id, Chunk.state == "queued", Chunk.not_before <= now()


def _has_due_chunk() -> ColumnElement[bool]:
    return select(Chunk.id).where(*due(Job.id)).exists()

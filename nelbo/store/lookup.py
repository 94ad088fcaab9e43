"""Looks up jobs as their owners see them: by id, as a list, by idempotency key. Changes nothing."""

import functools
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import ColumnElement, Connection, Row, Select, select

from nelbo.errors import Gone, IdempotencyMismatch, NotFound
from nelbo.jobs import KINDS, UNFINISHED, Kind, State
from nelbo.store.session import Database, now
from nelbo.store.tables import JobRow, VersionRow
from nelbo.views import Job, Progress


@dataclass(frozen=True)
class JobPage:
    """A page of jobs, newest first, and the cursor of the next page."""

    jobs: list[Job]
    cursor: str | None


def get_job(db: Database, owner: str, job_id: str) -> Job:
    """A job. Raises NotFound for an unknown or foreign job, Gone for a deleted one."""
    with db.read() as connection:
        return need_job(connection, owner, job_id)


def list_jobs(
    db: Database,
    owner: str,
    *,
    state: State | None = None,
    kind: Kind | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> JobPage:
    """Jobs, newest first. `cursor` comes from the page before."""
    statement = _jobs().where(
        JobRow.owner == owner, JobRow.kind.in_(KINDS), JobRow.deleted_at.is_(None)
    )
    if state is not None:
        statement = statement.where(JobRow.state == state)
    if kind is not None:
        statement = statement.where(JobRow.kind == kind)
    if cursor is not None:
        statement = statement.where(JobRow.id < cursor)
    with db.read() as connection:
        rows = connection.execute(statement.order_by(JobRow.id.desc()).limit(limit + 1)).all()
    jobs = [_job(row) for row in rows[:limit]]
    return JobPage(jobs, jobs[-1].id if len(rows) > limit else None)


def job_by_key(db: Database, owner: str, key: str | None, request_digest: str | None) -> Job | None:
    """The job that was accepted with this idempotency key, or None.

    Raises IdempotencyMismatch where the key belongs to another request.
    """
    if key is None:
        return None
    with db.read() as connection:
        statement = select(JobRow.id, JobRow.request_digest).where(
            JobRow.owner == owner, JobRow.idempotency_key == key
        )
        row = connection.execute(statement).first()
        if row is None:
            return None
        if row.request_digest != request_digest:
            raise IdempotencyMismatch(
                f"idempotency key {key!r} was used for another request; take a new one for this one"
            )
        return need_job(connection, owner, row.id)


def need_job(connection: Connection, owner: str, job_id: str, *, lock: bool = False) -> Job:
    """A job, in the caller's transaction. `lock` locks its row."""
    statement = _jobs().where(JobRow.owner == owner, JobRow.id == job_id, JobRow.kind.in_(KINDS))
    row = connection.execute(statement.with_for_update(of=JobRow) if lock else statement).first()
    if row is None:
        raise NotFound(f"no job {job_id}")
    if row.deleted_at is not None:
        raise Gone(f"job {job_id} was deleted")
    return _job(row)


def ended(db: Database, job_ids: Collection[str]) -> set[str]:
    """Those of the jobs that have ended."""
    statement = select(JobRow.id).where(JobRow.id.in_(job_ids), JobRow.state.not_in(UNFINISHED))
    with db.read() as connection:
        return set(connection.scalars(statement))


def unfinished_jobs(connection: Connection, condition: ColumnElement[bool]) -> str:
    """The first unfinished jobs that meet a condition, as text for a message; empty for none."""
    jobs = connection.execute(
        select(JobRow.id, JobRow.kind).where(condition, JobRow.state.in_(UNFINISHED)).limit(3)
    ).all()
    return ", ".join(f"{job.kind} job {job.id}" for job in jobs)


@functools.cache
def _jobs() -> Select[*tuple[Any, ...]]:
    return select(
        JobRow.id,
        JobRow.kind,
        JobRow.state,
        VersionRow.model,
        VersionRow.number,
        JobRow.params,
        JobRow.file_id,
        JobRow.rows,
        JobRow.rows_done,
        JobRow.rows_failed,
        JobRow.threshold,
        JobRow.summary,
        JobRow.problem,
        JobRow.cancel_requested_at,
        JobRow.created_at,
        JobRow.started_at,
        JobRow.finished_at,
        JobRow.deleted_at,
        (now() - JobRow.started_at).label("elapsed_s"),
    ).join_from(JobRow, VersionRow, JobRow.version_id == VersionRow.id, isouter=True)


def _job(row: Row[*tuple[Any, ...]]) -> Job:
    progress = Progress(
        rows=row.rows,
        rows_done=row.rows_done,
        rows_failed=row.rows_failed,
        eta_s=_eta_s(row),
    )
    return Job(
        id=row.id,
        kind=row.kind,
        state=row.state,
        model=None if row.model is None else f"{row.model}@{row.number}",
        params=row.params,
        file=row.file_id,
        progress=progress,
        threshold=row.threshold,
        summary=row.summary,
        problem=row.problem,
        cancel_requested=row.cancel_requested_at is not None,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def _eta_s(row: Row[*tuple[Any, ...]]) -> float | None:
    """Estimated seconds until the end, at the pace so far."""
    if row.state != "running" or not row.rows_done or row.elapsed_s is None:
        return None
    return cast(float, max(0.0, row.elapsed_s) / row.rows_done * (row.rows - row.rows_done))

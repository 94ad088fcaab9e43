"""An owner's stored bytes and unread uploads: the sums that quotas limit."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, func, select, update

from nelbo.jobs import UNFINISHED
from nelbo.store.session import Database
from nelbo.store.tables import FileRow, JobRow, VersionRow


@dataclass(frozen=True)
class Usage:
    """An owner's use of the storage and of the workers that read."""

    stored_bytes: int
    """Bytes of uploads and artifacts as sent, and of inline rows and results in the database."""
    unread: int
    """Number of uploads and pushes that are not yet read or verified."""


def usage(db: Database, owner: str) -> Usage:
    """The owner's current usage."""
    stored = _kept_bytes(FileRow, owner) + _kept_bytes(VersionRow, owner) + _job_bytes(owner)
    internal = (
        JobRow.owner == owner,
        JobRow.kind.in_(("read", "verify")),
        JobRow.state.in_(UNFINISHED),
    )
    unread = select(func.count()).select_from(JobRow).where(*internal).scalar_subquery()
    with db.read() as connection:
        stored_bytes, unread_jobs = connection.execute(select(stored, unread)).one()
    return Usage(int(stored_bytes), int(unread_jobs))


def note_bytes(db: Database, version_id: str, bytes: int) -> None:
    """Record the size of a version's artifact."""
    with db.write() as connection:
        connection.execute(
            update(VersionRow).where(VersionRow.id == version_id).values(bytes=bytes)
        )


def _kept_bytes(kind: type[FileRow] | type[VersionRow], owner: str) -> ColumnElement[int]:
    kept = and_(kind.owner == owner, kind.deleted_at.is_(None), kind.state != "rejected")
    return func.coalesce(select(func.sum(kind.bytes)).where(kept).scalar_subquery(), 0)


def _job_bytes(owner: str) -> ColumnElement[int]:
    """The bytes of the owner's jobs, in any state, that were not deleted."""
    kept = (JobRow.owner == owner, JobRow.deleted_at.is_(None))
    return func.coalesce(select(func.sum(JobRow.bytes)).where(*kept).scalar_subquery(), 0)

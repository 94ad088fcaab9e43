"""What an owner has stored, and what of it still waits to be read: the sums that quotas are held
against."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, func, select, update

from nelbo.jobs import UNFINISHED
from nelbo.store.session import Database
from nelbo.store.tables import FileRow, JobRow, VersionRow


@dataclass(frozen=True)
class Usage:
    """An owner's part of the storage and of the workers that read."""

    stored_bytes: int
    """Uploads and artifacts as they were sent, inline rows and results as they lie in the
    database."""
    unread: int
    """Uploads that wait to be read or are read, and pushes that wait to be verified or are."""


def usage(db: Database, owner: str) -> Usage:
    """What the owner takes up now."""
    stored = _kept_bytes(FileRow, owner) + _kept_bytes(VersionRow, owner) + _job_bytes(owner)
    internal = (
        JobRow.owner == owner,
        JobRow.kind.in_(("read", "verify")),
        JobRow.state.in_(UNFINISHED),
    )
    unread = select(func.count()).select_from(JobRow).where(*internal).scalar_subquery()
    with db.read() as connection:
        found = connection.execute(select(stored, unread)).one()
    return Usage(int(found[0]), int(found[1]))


def note_bytes(db: Database, version_id: str, bytes: int) -> None:
    """Remember how large a version's artifact is."""
    with db.write() as connection:
        connection.execute(
            update(VersionRow).where(VersionRow.id == version_id).values(bytes=bytes)
        )


def _kept_bytes(kind: type[FileRow] | type[VersionRow], owner: str) -> ColumnElement[int]:
    kept = and_(kind.owner == owner, kind.deleted_at.is_(None), kind.state != "rejected")
    return func.coalesce(select(func.sum(kind.bytes)).where(kept).scalar_subquery(), 0)


def _job_bytes(owner: str) -> ColumnElement[int]:
    """Of jobs that were not deleted, whatever became of them."""
    kept = (JobRow.owner == owner, JobRow.deleted_at.is_(None))
    return func.coalesce(select(func.sum(JobRow.bytes)).where(*kept).scalar_subquery(), 0)

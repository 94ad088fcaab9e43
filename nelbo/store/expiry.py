"""Removes what is old: results of jobs that ended long ago, and the remains of deleted things.

Each function does one bounded batch in a transaction of its own and returns its size, so that
nobody waits long for a lock. Any process may call any of them at any time: each DELETE states its
own condition, which is checked as it deletes.
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Delete, Select, Text, and_, cast, delete, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute

from nelbo.jobs import KINDS, UNFINISHED, InternalKind, Kind
from nelbo.store.catalog import rest_of_manifest
from nelbo.store.results import delete_chunks
from nelbo.store.session import Database, now
from nelbo.store.tables import ChunkRow, FileRow, JobRow, VersionRow


def expire_jobs(
    db: Database, age_s: float, *, kinds: Sequence[Kind | InternalKind] = KINDS, limit: int = 100
) -> int:
    """Delete jobs that ended `age_s` ago, as their owners could.

    `purge` removes their chunks and results.
    """
    old = (
        JobRow.kind.in_(kinds),
        JobRow.state.not_in(UNFINISHED),
        JobRow.deleted_at.is_(None),
        JobRow.finished_at < now() - age_s,
    )
    oldest = select(JobRow.id).where(*old).order_by(JobRow.finished_at).limit(limit)
    with db.write() as connection:
        expired = (
            update(JobRow).where(JobRow.id.in_(oldest), *old).values(deleted_at=now(), inline=None)
        )
        return connection.execute(expired).rowcount


def purge(db: Database, age_s: float, *, limit: int = 50) -> int:
    """Remove some chunks of a job that was deleted `age_s` ago, with their results.

    Returns the number of chunks. The age lets those who were reading at the deletion finish.
    """
    with db.write() as connection:
        waiting = (
            select(JobRow.id)
            .where(JobRow.deleted_at < now() - age_s, _has_chunks())
            .order_by(JobRow.deleted_at)
            .limit(1)
        )
        job_id = connection.scalars(waiting.with_for_update(skip_locked=True)).first()
        return 0 if job_id is None else delete_chunks(connection, job_id, limit)


def forget_jobs(db: Database, age_s: float, *, limit: int = 500) -> int:
    """Forget jobs that were deleted `age_s` ago and have no chunks left.

    Their ids are then unknown, and their idempotency keys can be used again.
    """
    return _forget(db, JobRow.id, (JobRow.deleted_at < now() - age_s, ~_has_chunks()), limit)


def forget_files(db: Database, age_s: float, *, limit: int = 500) -> int:
    """Forget files that were deleted or rejected `age_s` ago and that no job names."""
    gone = or_(
        FileRow.deleted_at < now() - age_s,
        and_(FileRow.state == "rejected", FileRow.created_at < now() - age_s),
    )
    has_jobs = select(JobRow.id).where(JobRow.file_id == FileRow.id).exists()
    return _forget(db, FileRow.id, (gone, ~has_jobs), limit)


def dead_files(db: Database, ids: Sequence[str]) -> set[str]:
    """The files among these that were rejected or deleted, so that their bytes can go.

    Files that this database does not know are left out: they may belong to another one.
    """
    dead = or_(FileRow.deleted_at.is_not(None), FileRow.state == "rejected")
    return _selected(db, select(FileRow.id).where(FileRow.id.in_(ids), dead))


def dead_versions(db: Database, ids: Sequence[str]) -> set[str]:
    """The versions among these that were rejected or deleted, so that their artifacts can go."""
    dead = or_(VersionRow.deleted_at.is_not(None), VersionRow.state == "rejected")
    return _selected(db, select(VersionRow.id).where(VersionRow.id.in_(ids), dead))


def live_digests(db: Database, digests: Sequence[str]) -> set[str]:
    """The digests among these that a version of any owner still has."""
    live = (
        VersionRow.digest.in_(digests),
        VersionRow.deleted_at.is_(None),
        VersionRow.state != "rejected",
    )
    return _selected(db, select(VersionRow.digest).where(*live))


def empty_manifests(db: Database, *, limit: int = 50) -> int:
    """Reduce the manifests of deleted versions to what results still need.

    Returns the number of versions. Versions that an older Nelbo deleted still have the whole
    manifest.
    """
    scored = (
        select(JobRow.id).where(JobRow.version_id == VersionRow.id, JobRow.kind == "score").exists()
    )
    whole = VersionRow.manifest["table_schema"].as_string().is_not(None)
    unneeded = and_(cast(VersionRow.manifest, Text) != "{}", ~scored)
    fat = (
        select(VersionRow.id)
        .where(VersionRow.deleted_at.is_not(None), or_(whole, unneeded))
        .limit(limit)
    )
    with db.write() as connection:
        versions = connection.scalars(fat).all()
        for version_id in versions:
            rest = rest_of_manifest(connection, version_id)
            connection.execute(
                update(VersionRow).where(VersionRow.id == version_id).values(manifest=rest)
            )
    return len(versions)


def _has_chunks() -> ColumnElement[bool]:
    return select(ChunkRow.id).where(ChunkRow.job_id == JobRow.id).exists()


def _forget(
    db: Database, key: InstrumentedAttribute[str], old: tuple[ColumnElement[bool], ...], limit: int
) -> int:
    forget: Delete = delete(key.class_).where(key.in_(select(key).where(*old).limit(limit)), *old)
    with db.write() as connection:
        return connection.execute(forget).rowcount


def _selected(db: Database, statement: Select[str]) -> set[str]:
    with db.read() as connection:
        return set(connection.scalars(statement))

"""Erases an owner: all rows that hold data of theirs.

The transactions may be interrupted and started again. Files, versions and keys leave a row that
holds nothing but an id. It lets the sweep by age find stored bytes that appear later, such as those
of an upload in progress, and it keeps a keys file from restoring a key.
"""

from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, delete, func, insert, or_, select, update

from nelbo.audit import Actor
from nelbo.errors import Conflict, Gone, NotFound
from nelbo.store import audit, ledger
from nelbo.store.results import delete_chunks, delete_results
from nelbo.store.session import Database, now
from nelbo.store.tables import (
    AliasRow,
    AuditRow,
    ChunkRow,
    FileRow,
    JobRow,
    KeyRow,
    ModelRow,
    VersionRow,
)

NOBODY = ""
"""The owner of the remaining rows; no real owner has an empty name."""
CHUNKS_PER_TRANSACTION = 50
"""Number of chunks whose results one transaction removes."""


@dataclass(frozen=True)
class Holdings:
    """The number of rows of each kind that name an owner, including those of deleted things."""

    jobs: int
    files: int
    models: int
    versions: int
    keys: int
    changes: int

    def __bool__(self) -> bool:
        return any(asdict(self).values())

    def __str__(self) -> str:
        return ", ".join(f"{number:,} {what}" for what, number in asdict(self).items())


def holdings(db: Database, owner: str) -> Holdings:
    """The number of rows of an owner."""
    tables = (JobRow, FileRow, ModelRow, VersionRow, KeyRow)
    conditions = [(table, table.owner == owner) for table in tables] + [(AuditRow, _about(owner))]
    with db.read() as connection:
        numbers = [
            connection.scalars(select(func.count()).select_from(table).where(condition)).one()
            for table, condition in conditions
        ]
    return Holdings(*numbers)


def revoke_keys(db: Database, owner: str) -> int:
    """Revoke all keys of an owner; returns the number that were not revoked before."""
    with db.write() as connection:
        live = update(KeyRow).where(KeyRow.owner == owner, KeyRow.revoked_at.is_(None))
        return connection.execute(live.values(revoked_at=now())).rowcount


def erase_jobs(db: Database, owner: str) -> None:
    """Cancel and remove all jobs of an owner, with their results.

    A worker that still works on one of them cannot commit.
    """
    with db.read() as connection:
        jobs = connection.scalars(
            select(JobRow.id).where(JobRow.owner == owner).order_by(JobRow.id)
        ).all()
    for job_id in jobs:
        # The job may have ended, be internal, or be deleted already.
        with suppress(Conflict, NotFound, Gone):
            ledger.cancel(db, owner, job_id)
        while _erase_chunks(db, job_id):
            pass
        with db.write() as connection:
            ledger.lock_job(connection, job_id)
            delete_results(connection, job_id)
            connection.execute(delete(ChunkRow).where(ChunkRow.job_id == job_id))
            connection.execute(delete(JobRow).where(JobRow.id == job_id))


def erase_files(db: Database, owner: str) -> list[str]:
    """Empty the rows of an owner's files and return their ids, whose bytes the caller removes."""
    content: dict[str, Any] = {
        "name": "",
        "options": {},
        "digest": "",
        "columns": None,
        "notices": [],
        "reason": None,
    }
    emptied = (
        update(FileRow)
        .where(FileRow.owner == owner)
        .values(owner=NOBODY, deleted_at=now(), **content)
        .returning(FileRow.id)
    )
    with db.write() as connection:
        return list(connection.scalars(emptied))


def erase_models(db: Database, owner: str) -> list[str]:
    """Remove an owner's models and aliases, and empty the rows of their versions.

    Returns the ids of the versions, whose bytes the caller removes. The owner's jobs must be erased
    before.
    """
    with db.write() as connection:
        connection.execute(delete(AliasRow).where(AliasRow.owner == owner))
        versions = list(connection.scalars(select(VersionRow.id).where(VersionRow.owner == owner)))
        content: dict[str, Any] = {"owner": NOBODY, "digest": "", "manifest": {}, "reason": None}
        for version_id in versions:
            # A version needs a model. Each gets its own, so that no two have the same number.
            model = {"owner": NOBODY, "name": version_id}
            connection.execute(insert(ModelRow).values(created_at=now(), deleted_at=now(), **model))
            emptied = update(VersionRow).where(VersionRow.id == version_id)
            connection.execute(emptied.values(model=version_id, deleted_at=now(), **content))
        connection.execute(delete(ModelRow).where(ModelRow.owner == owner))
        return versions


def forget(db: Database, owner: str, by: Actor, erased: Holdings) -> None:
    """Empty the rows of an owner's keys and remove the audit's lines about the owner.

    One line stays, which holds numbers only.
    """
    values = {"owner": NOBODY, "label": "", "digest": "", "last_used_at": None}
    with db.write() as connection:
        connection.execute(update(KeyRow).where(KeyRow.owner == owner).values(**values))
        connection.execute(delete(AuditRow).where(_about(owner)))
        audit.record(connection, by, "owner.erase", NOBODY, NOBODY, str(erased))


def _erase_chunks(db: Database, job_id: str) -> int:
    with db.write() as connection:
        return delete_chunks(connection, job_id, CHUNKS_PER_TRANSACTION)


def _about(owner: str) -> ColumnElement[bool]:
    return or_(AuditRow.owner == owner, AuditRow.by == owner)

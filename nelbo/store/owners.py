"""Erase an owner: all rows that hold something of theirs, in transactions that may be cut short and
begun again.

Files, versions and keys leave a row that holds an id and nothing else: the sweep by age then finds
stored bytes that turn up later, as those of an upload that was under way, and a keys file does not
bring a key back.
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
"""The owner of what is left: no name of an owner is empty."""
AT_ONCE = 50
"""Chunks whose results one transaction removes."""


@dataclass(frozen=True)
class Holdings:
    """The number of rows of each sort that name an owner, those of deleted things too."""

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
    """What there is of an owner."""
    tables = (JobRow, FileRow, ModelRow, VersionRow, KeyRow)
    conditions = [(table, table.owner == owner) for table in tables] + [(AuditRow, _about(owner))]
    with db.read() as connection:
        numbers = [
            connection.scalars(select(func.count()).select_from(table).where(condition)).one()
            for table, condition in conditions
        ]
    return Holdings(*numbers)


def revoke_keys(db: Database, owner: str) -> int:
    """End all keys of an owner; the number of those that were not revoked before."""
    with db.write() as connection:
        live = update(KeyRow).where(KeyRow.owner == owner, KeyRow.revoked_at.is_(None))
        return connection.execute(live.values(revoked_at=now())).rowcount


def erase_jobs(db: Database, owner: str) -> None:
    """Cancel and remove all jobs of an owner with their results. A worker that is at one of them is
    refused what it commits."""
    with db.read() as connection:
        jobs = connection.scalars(
            select(JobRow.id).where(JobRow.owner == owner).order_by(JobRow.id)
        ).all()
    for job_id in jobs:
        with suppress(
            Conflict, NotFound, Gone
        ):  # it has ended, is one that nobody sees, or was deleted
            ledger.cancel(db, owner, job_id)
        while _erase_chunks(db, job_id):
            pass
        with db.write() as connection:
            ledger.lock_job(connection, job_id)
            delete_results(connection, job_id)
            connection.execute(delete(ChunkRow).where(ChunkRow.job_id == job_id))
            connection.execute(delete(JobRow).where(JobRow.id == job_id))


def erase_files(db: Database, owner: str) -> list[str]:
    """Empty the rows of an owner's files and give their ids, whose bytes the caller removes."""
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
    """Remove an owner's models and aliases, empty the rows of their versions, and give the ids of
    these, whose bytes the caller removes. The jobs of the owner are gone."""
    with db.write() as connection:
        connection.execute(delete(AliasRow).where(AliasRow.owner == owner))
        versions = list(connection.scalars(select(VersionRow.id).where(VersionRow.owner == owner)))
        content: dict[str, Any] = {"owner": NOBODY, "digest": "", "manifest": {}, "reason": None}
        for version_id in versions:
            # A version needs a model: one of its own, so that no two versions have a number in
            # common.
            model = {"owner": NOBODY, "name": version_id}
            connection.execute(insert(ModelRow).values(created_at=now(), deleted_at=now(), **model))
            emptied = update(VersionRow).where(VersionRow.id == version_id)
            connection.execute(emptied.values(model=version_id, deleted_at=now(), **content))
        connection.execute(delete(ModelRow).where(ModelRow.owner == owner))
        return versions


def forget(db: Database, owner: str, by: Actor, erased: Holdings) -> None:
    """Empty the rows of an owner's keys, remove the audit's lines about the owner, and leave one
    that holds numbers alone."""
    gone = {"owner": NOBODY, "label": "", "digest": "", "last_used_at": None}
    with db.write() as connection:
        connection.execute(update(KeyRow).where(KeyRow.owner == owner).values(**gone))
        connection.execute(delete(AuditRow).where(_about(owner)))
        audit.record(connection, by, "owner.erase", NOBODY, NOBODY, str(erased))


def _erase_chunks(db: Database, job_id: str) -> int:
    with db.write() as connection:
        return delete_chunks(connection, job_id, AT_ONCE)


def _about(owner: str) -> ColumnElement[bool]:
    return or_(AuditRow.owner == owner, AuditRow.by == owner)

"""Files: received, read, then ready or rejected.

Every row has an owner, and nobody sees the rows of another owner.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from nelbo.audit import ITSELF, Actor
from nelbo.errors import Conflict, Gone, NotFound, NotReady
from nelbo.ids import new_id
from nelbo.store import audit
from nelbo.store.lookup import unfinished_jobs
from nelbo.store.session import Database, now
from nelbo.store.tables import FileRow, JobRow
from nelbo.utf8 import clean
from nelbo.views import FileState

LISTED_COLUMNS = 20_000
"""A list of files ends after this number of columns, as a file may have thousands."""


@dataclass(frozen=True)
class FileEntry:
    """A file as SQL knows it. The storage keeps its parts under the file's id."""

    id: str
    owner: str
    name: str
    format: str
    options: dict[str, Any]
    """The options that the user has set: fields of nelbo.files.CsvOptions."""
    state: FileState
    bytes: int | None
    rows: int | None
    digest: str | None
    columns: list[Any] | None
    notices: list[str]
    reason: str | None
    """Why it was rejected."""
    created_at: float


def add_file(
    db: Database,
    owner: str,
    name: str,
    format: str,
    options: dict[str, Any] | None = None,
    file_id: str | None = None,
) -> FileEntry:
    """Register a file before it is received.

    `ledger.submit_file` follows when the storage has all of it.
    """
    new_file_id = file_id or new_id()
    values = {
        "name": clean(name),
        "format": format,
        "options": options or {},
        "state": "receiving",
        "notices": [],
    }
    with db.write() as connection:
        connection.execute(
            insert(FileRow).values(id=new_file_id, owner=owner, created_at=now(), **values)
        )
        return _need_file(connection, owner, new_file_id)


def get_file(db: Database, owner: str, file_id: str) -> FileEntry:
    with db.read() as connection:
        return _need_file(connection, owner, file_id)


def file_of(db: Database, file_id: str) -> FileEntry:
    """A file by id, of any owner: for a worker that holds a claim on it."""
    with db.read() as connection:
        row = connection.execute(select(FileRow).where(FileRow.id == file_id)).first()
    if row is None:
        raise NotFound(f"no file {file_id}")
    return _file(row)


def list_files(
    db: Database, owner: str, *, limit: int = 100, before: str | None = None
) -> tuple[list[FileEntry], bool]:
    """Files, newest first, with ids below `before`, and whether there are more.

    At most `limit` of them, or fewer where these have very many columns.
    """
    statement = (
        select(FileRow)
        .where(FileRow.owner == owner, FileRow.deleted_at.is_(None))
        .order_by(FileRow.id.desc())
        .limit(limit + 1)
    )
    if before is not None:
        statement = statement.where(FileRow.id < before)

    listed: list[FileEntry] = []
    columns = 0
    with (
        db.read() as connection,
        connection.execution_options(yield_per=1).execute(statement) as rows,
    ):
        for row in rows:
            if len(listed) == limit or columns > LISTED_COLUMNS:
                return listed, True
            listed.append(_file(row))
            columns += len(row.columns or ())
    return listed, False


def delete_file(db: Database, owner: str, file_id: str, *, by: Actor = ITSELF) -> None:
    """Forget a file, whose content the caller removes.

    Raises Conflict while an unfinished job uses it.
    """
    with db.write() as connection:
        _need_file(connection, owner, file_id, lock=True)
        users = unfinished_jobs(connection, JobRow.file_id == file_id)
        if users:
            raise Conflict(f"file {file_id} is in use by {users}; cancel it or wait for it")
        connection.execute(update(FileRow).where(FileRow.id == file_id).values(deleted_at=now()))
        audit.record(connection, by, "file.delete", owner, file_id)


def reject_file(db: Database, owner: str, file_id: str, reason: str) -> bool:
    """receiving -> rejected, for an upload that broke off. False where it was received already."""
    statement = update(FileRow).where(
        FileRow.owner == owner, FileRow.id == file_id, FileRow.state == "receiving"
    )
    with db.write() as connection:
        rejected = statement.values(state="rejected", reason=clean(reason))
        return connection.execute(rejected).rowcount == 1


def reject_stale_files(db: Database, age_s: float) -> int:
    """Reject uploads that began `age_s` ago and never ended, as their receiver died.

    Returns their number.
    """
    statement = update(FileRow).where(
        FileRow.state == "receiving", FileRow.created_at < now() - age_s
    )
    with db.write() as connection:
        rejected = statement.values(state="rejected", reason="the upload broke off")
        return connection.execute(rejected).rowcount


def need_ready_file(connection: Connection, owner: str, file_id: str) -> None:
    """Raise unless a job that this transaction inserts can use the file.

    The file is locked, so that it cannot be deleted meanwhile.
    """
    file = _need_file(connection, owner, file_id, share=True)
    if file.state in ("receiving", "reading"):
        raise NotReady(
            f"file {file_id} is not ready yet (state {file.state}); ask again in a moment",
            retry_after=2,
        )
    if file.state == "rejected":
        raise Conflict(f"file {file_id} was rejected: {file.reason}")


def _need_file(
    connection: Connection, owner: str, file_id: str, *, lock: bool = False, share: bool = False
) -> FileEntry:
    statement = select(FileRow).where(FileRow.owner == owner, FileRow.id == file_id)
    if lock or share:
        statement = statement.with_for_update(read=share)
    row = connection.execute(statement).first()
    if row is None:
        raise NotFound(f"no file {file_id}")
    if row.deleted_at is not None:
        raise Gone(f"file {file_id} was deleted")
    return _file(row)


def _file(row: Row[*tuple[Any, ...]]) -> FileEntry:
    values = row._asdict()
    del values["deleted_at"]
    return FileEntry(**values)

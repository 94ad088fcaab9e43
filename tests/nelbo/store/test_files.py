"""Files: listed, rejected, deleted, and never seen by another owner."""

from typing import Any

import pytest
from sqlalchemy import update

from nelbo.errors import Conflict, Gone, NelboError, NotFound, NotReady
from nelbo.store import files, ledger, lookup
from nelbo.store.session import Database, now
from nelbo.store.tables import FileRow
from tests.nelbo.store.kit import OWNER, add_file, add_job


def test_files_are_listed_newest_first_page_by_page(database: Database) -> None:
    ids = [add_file(database) for _ in range(3)]
    assert listed(database) == (ids[::-1], False)
    assert listed(database, limit=2) == (ids[:0:-1], True)
    assert listed(database, limit=1, before=ids[2]) == ([ids[1]], True)
    assert listed(database, limit=1, before=ids[1]) == ([ids[0]], False)


def listed(database: Database, owner: str = OWNER, **options: Any) -> tuple[list[str], bool]:
    """The ids on a page, and whether there are more."""
    found, more = files.list_files(database, owner, **options)
    return [file.id for file in found], more


def test_a_page_of_files_with_very_many_columns_is_shorter(database: Database) -> None:
    """Thousands of columns with long names in each of a thousand files would be gigabytes."""
    ids = [add_file(database) for _ in range(5)]
    with database.write() as connection:
        connection.execute(update(FileRow).values(columns=[{}] * (files.LISTED_COLUMNS // 2)))
    assert listed(database) == (ids[:1:-1], True)
    assert listed(database, before=ids[2]) == (ids[1::-1], False)


def test_a_deleted_file_is_gone(database: Database) -> None:
    file_id = add_file(database)
    files.delete_file(database, OWNER, file_id)
    for look in (files.get_file, files.delete_file):
        with pytest.raises(Gone, match="was deleted"):
            look(database, OWNER, file_id)
    assert listed(database) == ([], False)


@pytest.mark.parametrize(
    ("state", "error"), [("receiving", NotReady), ("reading", NotReady), ("rejected", Conflict)]
)
def test_a_job_needs_a_ready_file(database: Database, state: str, error: type[NelboError]) -> None:
    file_id = add_file(database, state=state)
    with pytest.raises(error, match=state):
        add_job(database, file_id=file_id)
    assert lookup.list_jobs(database, OWNER).jobs == []


def test_an_upload_that_broke_off_is_rejected(database: Database) -> None:
    file = files.add_file(database, OWNER, "a\x00.csv", "csv")
    assert file.name == "a\ufffd.csv"
    assert files.reject_file(database, OWNER, file.id, "the upload broke off")
    assert not files.reject_file(database, OWNER, file.id, "again")
    assert files.get_file(database, OWNER, file.id).reason == "the upload broke off"
    with pytest.raises(Conflict, match="upload it again"):
        ledger.submit_file(database, OWNER, file.id, bytes=1)


def test_uploads_whose_receiver_died_are_rejected_by_age(database: Database) -> None:
    old, young = (files.add_file(database, OWNER, "a.csv", "csv") for _ in range(2))
    with database.write() as connection:
        connection.execute(
            update(FileRow).where(FileRow.id == old.id).values(created_at=now() - 100)
        )
    assert files.reject_stale_files(database, age_s=50) == 1
    assert files.get_file(database, OWNER, old.id).state == "rejected"
    assert files.get_file(database, OWNER, young.id).state == "receiving"


def test_the_file_of_another_is_not_found(database: Database) -> None:
    file_id = add_file(database)
    for look in (files.get_file, files.delete_file):
        with pytest.raises(NotFound):
            look(database, "other", file_id)
    assert listed(database, "other") == ([], False)
    assert not files.reject_file(database, "other", file_id, "no")

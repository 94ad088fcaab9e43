"""A program works on its own schema and on a newer one that says so; any other it refuses, and says
what to do."""

from collections.abc import Callable

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import text

from nelbo.errors import Unavailable
from nelbo.store import ledger, lookup, migration, revision, session
from nelbo.store.session import Database, connect
from tests.nelbo.store.kit import OWNER, add_job, assert_sound, work_off

NEWER = "9999"


@pytest.fixture(autouse=True)
def _look_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "CHECK_S", 0.0)


@pytest.fixture
def refuses(database: Database) -> Callable[[str], None]:
    """Checks that nothing can be read, written or claimed, for a reason with these words."""
    add_job(database)

    def assert_refused(words: str) -> None:
        for attempt in (
            lambda: add_job(database),
            lambda: ledger.claim(database, "worker", lease_s=60),
        ):
            with pytest.raises(Unavailable, match=words):
                attempt()
        with pytest.raises(Unavailable, match=words):
            lookup.list_jobs(database, OWNER)

    return assert_refused


def set_revision(database: Database, to: str, since: str | None = None) -> None:
    """As a newer Nelbo's migration leaves it, or an older one."""
    with database.alter() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :to"), {"to": to})
        connection.execute(text("DELETE FROM compatibility"))
        if since:
            connection.execute(
                text("INSERT INTO compatibility VALUES (:to, :since)"), {"to": to, "since": since}
            )


def test_the_head_is_the_one_that_alembic_finds() -> None:
    assert ScriptDirectory(str(revision.FOLDER)).get_current_head() == revision.HEAD
    assert revision.SINCE <= revision.HEAD


def test_an_older_schema_is_refused_until_it_is_migrated(
    database: Database, refuses: Callable[[str], None]
) -> None:
    set_revision(database, "0002")
    refuses("has schema 0002, this program needs .*: run `nelbo migrate`")
    set_revision(database, revision.HEAD)
    assert work_off(database)


def test_a_database_without_a_schema_is_refused(empty_database_url: str) -> None:
    database = connect(empty_database_url)
    with pytest.raises(Unavailable, match=r"has schema none.*run `nelbo migrate`"):
        lookup.list_jobs(database, OWNER)
    database.migrate()
    assert lookup.list_jobs(database, OWNER).jobs == []
    database.dispose()


@pytest.mark.parametrize("since", [None, NEWER])
def test_a_newer_schema_is_refused_also_by_the_migration(
    database: Database, refuses: Callable[[str], None], since: str | None
) -> None:
    set_revision(database, NEWER, since)
    refuses("has schema 9999, which is newer .*: install the Nelbo that migrated it")
    with pytest.raises(Unavailable, match="install the Nelbo"):
        database.migrate()


def test_an_older_program_does_a_job_on_a_newer_schema_that_only_adds(database: Database) -> None:
    with database.alter() as connection:
        connection.execute(text("ALTER TABLE job ADD COLUMN later TEXT"))
        connection.execute(text("CREATE TABLE later (id INTEGER)"))
    set_revision(database, NEWER, revision.HEAD)
    job = add_job(database)
    work_off(database)
    assert lookup.get_job(database, OWNER, job.id).state == "succeeded"
    assert_sound(database)
    database.migrate()
    with database.read() as connection:
        assert revision.current(connection) == NEWER


def test_the_schema_of_today_serves_the_programs_that_it_says_it_serves(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revision, "HEAD", max(revision.SINCE, "0002"))
    add_job(database)
    assert work_off(database)


def test_the_version_is_looked_at_again_while_a_program_runs(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "CHECK_S", 3_600.0)
    assert lookup.list_jobs(database, OWNER).jobs == []
    set_revision(database, NEWER)
    assert lookup.list_jobs(database, OWNER).jobs == [], "not with each transaction"
    database._check_at = 0.0
    with pytest.raises(Unavailable):
        lookup.list_jobs(database, OWNER)


def test_a_migration_that_was_left_out_halfway_is_no_reason_to_go_on(
    empty_database_url: str,
) -> None:
    database = connect(empty_database_url)
    if database.dialect == "sqlite":
        database._make_sqlite_file()
    with database.alter() as connection:
        migration.upgrade(connection, "0001")
    with pytest.raises(Unavailable, match="has schema 0001"):
        add_job(database)
    database.dispose()

"""Connections, transactions and the clock."""

import os
import re
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from nelbo.errors import InvalidInput, Unavailable
from nelbo.store.session import Database, connect, now
from nelbo.store.tables import ModelRow


def add_model(database: Database, name: str) -> None:
    with database.write() as connection:
        connection.execute(
            text("INSERT INTO model (owner, name, created_at) VALUES ('local', :name, 0)"),
            {"name": name},
        )


def models(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.scalars(select(ModelRow.name).order_by(ModelRow.name)))


def test_the_clock_is_the_databases_and_counts_seconds_since_the_epoch(database: Database) -> None:
    with database.read() as connection:
        found = connection.scalars(select(database.now)).one()
    assert isinstance(found, float)
    assert abs(found - time.time()) < 5


def test_the_clock_goes_on_inside_a_transaction(database: Database) -> None:
    with database.read() as connection:
        first = connection.scalars(select(now())).one()
        while (second := connection.scalars(select(now())).one()) == first:
            pass
    assert second > first


def test_a_write_that_raises_leaves_nothing(database: Database) -> None:
    def half() -> None:
        with database.write() as connection:
            connection.execute(
                text("INSERT INTO model (owner, name, created_at) VALUES ('local', 'half', 0)")
            )
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        half()
    assert models(database) == []


def test_writers_wait_for_each_other_and_readers_for_nobody(database: Database) -> None:
    inside = threading.Event()

    def second() -> None:
        inside.wait()
        add_model(database, "second")

    thread = threading.Thread(target=second)
    thread.start()
    with database.write() as connection:
        connection.execute(
            text("INSERT INTO model (owner, name, created_at) VALUES ('local', 'first', 0)")
        )
        inside.set()
        assert models(database) in ([], ["second"])
    thread.join()
    assert models(database) == ["first", "second"]


def test_foreign_keys_hold(database: Database) -> None:
    orphan = "INSERT INTO row_error (job_id, row, code, message) VALUES ('nobody', 0, 'c', 'm')"
    with pytest.raises(IntegrityError), database.write() as connection:
        connection.execute(text(orphan))


def test_a_database_with_the_right_schema_passes_the_check(database: Database) -> None:
    database.check()


def test_a_database_without_or_with_a_newer_schema_is_named(empty_database_url: str) -> None:
    database = connect(empty_database_url)
    with pytest.raises(
        Unavailable, match=r"has schema none, this program needs \d{4}: run `nelbo migrate`"
    ):
        database.check()
    database.migrate()
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Unavailable, match="has schema 9999"):
        database.check()
    database.dispose()


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////nowhere/at/all/nelbo.db",
        "postgresql://postgres@/none?host=/nowhere",
        "postgresql://nelbo:secret@127.0.0.1:1/none",
    ],
)
def test_a_database_that_is_not_there_is_unavailable_and_no_password_is_told(url: str) -> None:
    database = connect(url)
    with pytest.raises(Unavailable, match="the database does not answer") as problem:
        database.check()
    assert "secret" not in problem.value.message + repr(database)
    database.dispose()


def test_a_statement_that_fails_for_lack_of_the_database_tells_no_values(sqlite_url: str) -> None:
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    database = connect(sqlite_url)
    with database.write() as connection:
        connection.execute(text("DROP TABLE model"))
    with pytest.raises(Unavailable) as problem:
        add_model(database, "a value")
    assert problem.value.message == "the database does not answer: no such table: model"
    database.dispose()
    assert path.exists()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "begins with sqlite:/// or postgresql://"),
        ("mysql://host/name", "mysql is not a supported database"),
        ("sqlite://", "must be a file"),
        ("sqlite:///:memory:", "must be a file"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_with_what_can(url: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(words)):
        connect(url)


def test_postgres_and_postgresql_urls_mean_the_same() -> None:
    urls = {
        repr(connect(f"{scheme}://host/name"))
        for scheme in ("postgres", "postgresql", "postgresql+psycopg")
    }
    assert urls == {"Database(postgresql+psycopg://host/name)"}


def test_a_connection_does_not_survive_a_fork(sqlite_url: str) -> None:
    database = connect(sqlite_url)
    database.check()
    child = os.fork()
    if child == 0:
        try:
            database.check()
        except RuntimeError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    database.dispose()


def test_sqlite_syncs_each_commit_but_of_work_that_can_be_done_again_and_lets_readers_go_on(
    sqlite_url: str,
) -> None:
    database = connect(sqlite_url)
    for transaction, synchronous in (("read", 2), ("work", 1), ("write", 2), ("work", 1)):
        with getattr(database, transaction)() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == synchronous
    with database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    database.dispose()


def test_a_full_disk_is_an_outage(sqlite_url: str) -> None:
    database = connect(sqlite_url)
    with database.read() as connection:
        connection.execute(text("PRAGMA max_page_count = 1"))
    with pytest.raises(Unavailable, match="full"), database.write() as connection:
        connection.execute(text("CREATE TABLE one_more (x TEXT)"))
    database.dispose()


def test_a_server_that_became_read_only_is_an_outage_and_asked_again_on_another_connection(
    postgresql_url: str,
) -> None:
    database = connect(postgresql_url)
    with database.read() as connection:
        connection.execute(text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))
    with pytest.raises(Unavailable, match="read-only"):
        add_model(database, "a")
    add_model(database, "b")
    assert models(database) == ["b"]
    database.dispose()

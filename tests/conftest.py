"""Fixtures that all tests share: a fresh database of each kind, and a real broker."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nelbo.store.session import Database, connect
from tests.servers import Postgres, Valkey, postgresql_commands, running_postgres, running_valkey


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgres]:
    """A PostgreSQL server for the whole run, with a migrated database `template` to copy."""
    commands = postgresql_commands()
    if commands is None:
        pytest.skip(
            "root needs Debian's PostgreSQL for the tests (apt install postgresql); others have it"
            " in the lock"
        )
    with running_postgres(commands) as server:
        server.execute("CREATE DATABASE template")
        _migrate(server.url("template"))
        yield server


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh migrated database, of either kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{_sqlite_copy(request)}"
    else:
        with postgresql_database(request.getfixturevalue("postgresql"), "template") as url:
            yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh database without a schema, of either kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
    else:
        with postgresql_database(request.getfixturevalue("postgresql"), "template1") as url:
            yield url


@pytest.fixture
def sqlite_url(request: pytest.FixtureRequest) -> str:
    """A fresh migrated SQLite database, for tests that are about something else."""
    return f"sqlite:///{_sqlite_copy(request)}"


@pytest.fixture
def postgresql_url(postgresql: Postgres) -> Iterator[str]:
    """A fresh migrated PostgreSQL database, for tests of what SQLite has not."""
    with postgresql_database(postgresql, "template") as url:
        yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A fresh migrated database, of either kind, connected."""
    opened = connect(database_url)
    yield opened
    opened.dispose()


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """A Valkey for the whole run. A test that kills or freezes one starts its own:
    `running_valkey`."""
    with running_valkey() as server:
        yield server


@pytest.fixture
def broker_url(valkey: Valkey) -> str:
    """An empty broker, as a URL for Celery."""
    with valkey.client() as client:
        client.flushall()
    return valkey.url


def _migrate(url: str) -> None:
    database = connect(url)
    try:
        database.migrate()
    finally:
        database.dispose()


def _sqlite_copy(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue("tmp_path")
    template: Path = request.getfixturevalue("sqlite_template")
    return Path(shutil.copy(template, folder / "nelbo.db"))


@contextmanager
def postgresql_database(server: Postgres, template: str) -> Iterator[str]:
    """A copy of a database, gone at the end."""
    name = f"t{uuid.uuid4().hex}"
    server.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield server.url(name)
    finally:
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")

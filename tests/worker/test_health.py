"""A worker is healthy while its own host's dispatcher was seen a short while ago."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from nelbo.store import workers
from nelbo.store.session import Database, connect
from nelbo.store.tables import Worker
from worker.health import LONGEST_SILENCE_S, is_alive


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = connect(f"sqlite:///{tmp_path / 'nelbo.db'}")
    database.migrate()
    yield database
    database.dispose()


def test_a_host_without_a_dispatcher_is_not_alive(database: Database) -> None:
    workers.heartbeat(database, "elsewhere:1", host="elsewhere", pid=1)
    assert is_alive(database, "elsewhere")
    assert not is_alive(database, "here")


def test_a_dispatcher_that_fell_silent_is_not_alive(database: Database) -> None:
    workers.heartbeat(database, "here:1", host="here", pid=1)
    with database.write() as connection:
        connection.execute(update(Worker).values(seen_at=Worker.seen_at - LONGEST_SILENCE_S - 1))
    assert not is_alive(database, "here")


def test_the_command_exits_as_the_host_is(database: Database, tmp_path: Path) -> None:
    environment = os.environ | {"NELBO_DATABASE_URL": f"sqlite:///{tmp_path / 'nelbo.db'}"}
    command = [sys.executable, "-P", "-m", "worker.health"]
    dead = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (dead.returncode, "no dispatcher" in dead.stderr) == (1, True)
    workers.heartbeat(database, "here:1", host=socket.gethostname(), pid=1)
    assert subprocess.run(command, env=environment, cwd=tmp_path, check=False).returncode == 0


def test_a_database_that_does_not_answer_is_one_sentence(tmp_path: Path) -> None:
    environment = os.environ | {"NELBO_DATABASE_URL": "postgresql+psycopg://nobody@127.0.0.1:1/none"}
    command = [sys.executable, "-P", "-m", "worker.health"]
    ran = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert len(ran.stderr.strip().splitlines()) == 1

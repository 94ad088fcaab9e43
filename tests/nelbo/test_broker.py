"""Hints: taken where the broker answers, given up in bounded time where it does not, never
raised."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from celery import Celery

from nelbo import broker, channel, embedded
from nelbo.broker import make_app, send_hint, waiting_hints
from nelbo.errors import InvalidInput
from nelbo.settings import Settings
from tests.deadline import until

DEPLOY = Path(__file__).parents[2] / "deploy"


class Valkey:
    """A real Valkey that a test may stop, freeze and start again."""

    def __init__(self) -> None:
        self.url = embedded.make_url()
        self.process: subprocess.Popen[bytes] = embedded.start(self.url)
        until(self.answers, "Valkey to answer")

    def answers(self) -> bool:
        return waiting_hints(make_app(Settings(broker_url=self.url))) is not None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        self.process = embedded.start(self.url)
        until(self.answers, "Valkey to answer again")


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    server = Valkey()
    yield server
    server.kill()
    shutil.rmtree(embedded.folder_of(server.url))


@pytest.fixture
def app(valkey: Valkey) -> Celery:
    return make_app(Settings(broker_url=valkey.url), timeout_s=0.5)


def test_a_hint_waits_until_a_worker_takes_it(app: Celery) -> None:
    assert waiting_hints(app) == 0
    assert send_hint(app, "a")
    assert send_hint(app, "b")
    assert waiting_hints(app) == 2


def test_a_broker_that_is_down_takes_no_hint_and_raises_nothing(
    app: Celery, valkey: Valkey
) -> None:
    valkey.kill()
    before = broker.counts["not_sent"]
    assert not send_hint(app, "a")
    assert waiting_hints(app) is None
    assert broker.counts["not_sent"] == before + 1


def test_a_broker_that_never_was_there_takes_no_hint(tmp_path: Path) -> None:
    app = make_app(Settings(broker_url=f"redis+socket://{tmp_path}/none.sock"), timeout_s=0.5)
    assert not send_hint(app, "a")
    assert waiting_hints(app) is None


def test_a_frozen_broker_is_given_up_in_bounded_time(app: Celery, valkey: Valkey) -> None:
    assert send_hint(app, "a")
    os.kill(valkey.process.pid, signal.SIGSTOP)
    assert not send_hint(app, "b")
    assert waiting_hints(app) is None


def test_the_same_process_reaches_a_broker_that_came_back(app: Celery, valkey: Valkey) -> None:
    assert send_hint(app, "a")
    valkey.kill()
    assert not send_hint(app, "b")
    valkey.restart()
    until(lambda: send_hint(app, "c"), "a hint to be taken", deadline_s=10)


def test_no_broker_is_refused_with_what_to_set() -> None:
    with pytest.raises(InvalidInput, match="NELBO_BROKER_URL"):
        make_app(Settings())


def test_a_hint_carries_the_job_id_and_nothing_else(app: Celery) -> None:
    send_hint(app, "the-job")
    with app.connection_for_read() as connection:
        message = connection.SimpleQueue(channel.QUEUE).get(timeout=5)
    args, kwargs, _ = message.payload
    assert (args, kwargs) == (["the-job"], {})
    assert message.headers["task"] == channel.WORK


REFUSED = (
    "ACL LIST",
    "CLIENT LIST",
    "CONFIG GET dir",
    "CONFIG SET dir /tmp",
    "DEBUG SLEEP 0",
    "EVAL return 0",
    "FLUSHALL",
    "FUNCTION LIST",
    "INFO",
    "KEYS *",
    "LPUSH others x",
    "MIGRATE 127.0.0.1 1 nelbo:nelbo 0 1",
    "MODULE LIST",
    "MONITOR",
    "PUBLISH others x",
    "REPLICAOF 127.0.0.1 1",
    "SAVE",
    "SCRIPT LOAD return",
    "SET nelbo:other x",
    "SHUTDOWN",
    "SLOWLOG GET",
    "SUBSCRIBE others",
    "SWAPDB 0 1",
)


@pytest.mark.parametrize("words", REFUSED)
def test_the_embedded_broker_does_what_hints_need_and_no_more(valkey: Valkey, words: str) -> None:
    url = urlsplit(valkey.url)
    with redis.Redis(unix_socket_path=url.path, password=url.password) as client:
        assert client.ping()
        with pytest.raises(redis.ResponseError):
            client.execute_command(*words.split())


def test_the_embedded_broker_asks_for_a_password_that_no_command_line_shows(
    app: Celery, valkey: Valkey
) -> None:
    assert send_hint(app, "a")
    url = urlsplit(valkey.url)
    with redis.Redis(unix_socket_path=url.path) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
    assert url.password
    assert url.password not in Path(f"/proc/{valkey.process.pid}/cmdline").read_text()


def test_the_deployments_broker_may_do_what_the_embedded_one_may(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    subprocess.run(
        [DEPLOY / "make-secrets"], env=os.environ | {"NELBO_SECRETS": str(secrets)}, check=True
    )
    [user] = [
        line
        for line in (secrets / "redis_conf").read_text().splitlines()
        if line.startswith("user nelbo on #")
    ]
    assert user.split()[4:] == [
        "~nelbo:*",
        "-@all",
        *(f"+{command}" for command in embedded.COMMANDS.split()),
    ]

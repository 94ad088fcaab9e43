"""Hints: taken where the broker answers, given up in bounded time where it does not, never raised."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from nelbo import broker, embedded
from nelbo.broker import make_app, send_hint, waiting_hints
from nelbo.errors import InvalidInput
from nelbo.settings import Settings
from tests.deadline import until


class Valkey:
    """A real Valkey that a test may stop, freeze and start again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] = embedded.start(folder)
        until(self.answers, "Valkey to answer")

    @property
    def url(self) -> str:
        return embedded.broker_url(self.folder)

    def answers(self) -> bool:
        return waiting_hints(make_app(Settings(broker_url=self.url))) is not None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        self.process = embedded.start(self.folder)
        until(self.answers, "Valkey to answer again")


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    server = Valkey(embedded.make_folder())
    yield server
    server.kill()


@pytest.fixture
def app(valkey: Valkey) -> Celery:
    return make_app(Settings(broker_url=valkey.url), timeout_s=0.5)


def test_a_hint_waits_until_a_worker_takes_it(app: Celery) -> None:
    assert waiting_hints(app) == 0
    assert send_hint(app, "a")
    assert send_hint(app, "b")
    assert waiting_hints(app) == 2


def test_a_broker_that_is_down_takes_no_hint_and_raises_nothing(app: Celery, valkey: Valkey) -> None:
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
        message = connection.SimpleQueue(broker.QUEUE).get(timeout=5)
    args, kwargs, _ = message.payload
    assert (args, kwargs) == (["the-job"], {})
    assert message.headers["task"] == broker.WORK

"""A round of the dispatcher: hints for what waits, never more than a few; dead leases taken back; a
sign of life."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from nelbo.broker import make_app, waiting_hints
from nelbo.jobs import GenerateRequest
from nelbo.processes import my_name
from nelbo.store import ledger, queue, workers
from nelbo.store.session import connect
from nelbo.store.tables import ChunkRow
from nelbo.views import Job
from tests.deadline import until
from tests.servers import Valkey
from tests.worker.stage import OWNER, Stage
from worker import health, pulse, runner
from worker.dispatcher import SILENT_S, Dispatcher

PROCESSES = 2
AGAIN_S = 0.05
NAME = "from nelbo.processes import my_name; print(my_name(), end='')"


@pytest.fixture
def stage(tmp_path: Path, database_url: str, broker_url: str) -> Iterator[Stage]:
    options = {"worker_processes": PROCESSES, "sweep_s": AGAIN_S}
    with Stage(tmp_path, database_url, broker_url) as stage:
        yield stage.with_options(**options)


@pytest.fixture
def dispatcher(stage: Stage) -> Iterator[Dispatcher]:
    made = Dispatcher(stage.settings, stage.database, make_app(stage.settings), "here:1")
    yield made
    made.stop()


def submit(stage: Stage, chunks: int) -> Job:
    return stage.submit(
        GenerateRequest(model="linear", n=chunks), stage.version(), chunks, chunk_rows=1
    )


def waiting(dispatcher: Dispatcher) -> int:
    found = waiting_hints(dispatcher.app)
    assert found is not None
    return found


def waiting_after_round(dispatcher: Dispatcher) -> int:
    dispatcher.round()
    return waiting(dispatcher)


def test_a_job_that_no_hint_told_of_is_hinted(stage: Stage, dispatcher: Dispatcher) -> None:
    submit(stage, chunks=1)
    dispatcher.round()
    assert waiting(dispatcher) == 1


def test_a_huge_job_never_fills_the_queue(stage: Stage, dispatcher: Dispatcher) -> None:
    submit(stage, chunks=1_000)
    for _ in range(5):
        dispatcher.round()
        assert waiting(dispatcher) <= 2 * PROCESSES
    until(
        lambda: waiting_after_round(dispatcher) == 2 * PROCESSES,
        "the queue to hold what the pool can take",
    )


def test_a_flushed_queue_is_filled_again(
    stage: Stage, dispatcher: Dispatcher, valkey: Valkey
) -> None:
    submit(stage, chunks=10)
    dispatcher.round()
    assert waiting(dispatcher) > 0
    with valkey.client() as client:
        client.flushall()
    assert waiting(dispatcher) == 0
    until(lambda: waiting_after_round(dispatcher), "another hint")


def test_nothing_to_do_is_no_hint(stage: Stage, dispatcher: Dispatcher) -> None:
    job = submit(stage, chunks=3)
    ledger.cancel(stage.database, OWNER, job.id)
    dispatcher.round()
    assert waiting(dispatcher) == 0


def test_a_dead_workers_chunk_is_taken_back_and_hinted(
    stage: Stage, dispatcher: Dispatcher, valkey: Valkey
) -> None:
    job = submit(stage, chunks=1)
    assert ledger.claim(stage.database, "dead:1", lease_s=0.01) is not None
    until(lambda: waiting_after_round(dispatcher), "the lease to run out and a hint to follow")
    stage.work()
    assert stage.job(job.id).state == "succeeded"


def test_a_process_of_this_host_that_is_gone_holds_its_chunk_no_longer(
    stage: Stage, dispatcher: Dispatcher
) -> None:
    submit(stage, chunks=2)
    gone = subprocess.run(
        [sys.executable, "-c", NAME], capture_output=True, text=True, check=True
    ).stdout
    assert ledger.claim(stage.database, gone, lease_s=600) is not None
    assert ledger.claim(stage.database, my_name(), lease_s=600) is not None
    dispatcher.round()
    assert queue.holders(stage.database) == {my_name()}


@pytest.mark.parametrize(("silent_s", "crashes"), [(1.0, 1), (100.0, 0)])
def test_after_an_outage_of_the_database_a_lease_that_ran_out_is_no_crash(
    stage: Stage, dispatcher: Dispatcher, silent_s: float, crashes: int
) -> None:
    job = submit(stage, chunks=1)
    assert ledger.claim(stage.database, "elsewhere:1", lease_s=-1) is not None
    dispatcher.reached_at = time.monotonic() - silent_s
    dispatcher.round()
    statement = select(ChunkRow.state, ChunkRow.crashes).where(ChunkRow.job_id == job.id)
    with stage.database.read() as connection:
        assert connection.execute(statement).all() == [("queued", crashes)]


def test_a_round_that_does_not_get_through_is_remembered(
    stage: Stage, dispatcher: Dispatcher
) -> None:
    dispatcher.round()
    before = dispatcher.reached_at
    assert before <= time.monotonic()
    away = replace(dispatcher, database=connect("postgresql://nobody@127.0.0.1:1/none"))
    away.round()
    assert away.reached_at == before


def test_a_round_is_a_sign_of_life(stage: Stage, dispatcher: Dispatcher) -> None:
    dispatcher.round()
    dispatcher.round()
    assert [beat.worker for beat in workers.heartbeats(stage.database)] == ["here:1"]
    assert health.health_file(stage.settings.home).exists()


def test_a_database_that_does_not_answer_ends_the_round_and_nothing_else(
    stage: Stage, tmp_path: Path
) -> None:
    away = connect("postgresql://nobody@127.0.0.1:1/none")
    Dispatcher(stage.settings, away, make_app(stage.settings), "here:1").round()


def test_without_a_broker_processes_of_its_own_do_the_work(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Stage(
        tmp_path, stage.database_url, f"redis+socket://{tmp_path}/no-broker.sock"
    ).with_options(worker_processes=1)
    monkeypatch.setenv("NELBO_HOME", str(away.settings.home))
    monkeypatch.setenv("NELBO_DATABASE_URL", away.database_url)
    job = submit(stage, chunks=2)
    dispatcher = Dispatcher(away.settings, stage.database, make_app(away.settings), "here:1")
    try:
        dispatcher.round()
        dispatcher.round()
        assert len(dispatcher.solos) == 1
        until(lambda: stage.job(job.id).state == "succeeded", "the job to succeed")
    finally:
        dispatcher.stop()


@pytest.fixture
def silent_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool that gave its last sign of life long ago."""
    file = tmp_path / "pulse"
    file.touch()
    long_ago = time.time() - 2 * SILENT_S
    os.utime(file, (long_ago, long_ago))
    monkeypatch.setenv(pulse.VARIABLE, str(file))


@pytest.mark.usefixtures("silent_pool")
@pytest.mark.parametrize("hints", ["to be sent", "sent before"])
def test_a_worker_whose_pool_is_silent_while_work_waits_gives_no_sign_of_life(
    stage: Stage, dispatcher: Dispatcher, hints: str
) -> None:
    submit(stage, chunks=1_000)
    for _ in range(3 if hints == "sent before" else 1):
        dispatcher.round()
    assert workers.heartbeats(stage.database) == []


@pytest.mark.usefixtures("silent_pool")
def test_a_worker_whose_pool_is_silent_as_nothing_waits_is_healthy(
    stage: Stage, dispatcher: Dispatcher
) -> None:
    dispatcher.round()
    assert len(workers.heartbeats(stage.database)) == 1


@pytest.mark.usefixtures("silent_pool")
def test_work_breaks_the_silence_of_a_pool(stage: Stage, dispatcher: Dispatcher) -> None:
    job = submit(stage, chunks=100)
    runner.work(stage.process(), slice_s=0.0)
    assert stage.job(job.id).state == "running"
    dispatcher.round()
    assert len(workers.heartbeats(stage.database)) == 1

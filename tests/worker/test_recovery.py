"""What real workers lose when something dies or forgets: nothing. Results are bit by bit those of
an undisturbed run."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import SecretStr

from nelbo.broker import make_app, send_hint
from nelbo.engine import Engine
from nelbo.jobs import GenerateRequest, ScoreRequest
from nelbo.store import ledger, results, workers
from nelbo.views import Job
from tests.deadline import until
from tests.processes import alive
from tests.servers import Valkey, running_valkey
from tests.worker.host import chunks, computing, running_worker, start_worker
from tests.worker.stage import OWNER, Stage, table
from worker import app

ROWS, CHUNK = 40_000, 20_000
"""Chunks that take seconds, as the small artifact computes 16 rows at a time."""
LONG = 1_000_000
"""A chunk that takes half a minute and more."""


@pytest.fixture
def stage(tmp_path: Path, database_url: str, broker_url: str) -> Iterator[Stage]:
    with Stage(tmp_path, database_url, broker_url) as stage:
        yield stage


@pytest.fixture
def sqlite_stage(tmp_path: Path, sqlite_url: str, broker_url: str) -> Iterator[Stage]:
    with Stage(tmp_path, sqlite_url, broker_url) as stage:
        yield stage


def submit(stage: Stage, rows: int = ROWS, chunk_rows: int = CHUNK) -> Job:
    return stage.submit(
        GenerateRequest(model="linear", n=rows, seed=11), stage.version(), rows, chunk_rows
    )


def finished(stage: Stage, job: Job) -> bool:
    return stage.job(job.id).state == "succeeded"


def assert_undisturbed(stage: Stage, job: Job) -> None:
    """Each row once, bit by bit what the engine makes in one go."""
    wanted = Engine.load(stage.folder / "artifact").generate(11, 0, job.progress.rows).batch
    assert stage.made(job.id).combine_chunks().equals(pa.Table.from_batches([wanted]))
    assert stage.job(job.id).progress.rows_done == job.progress.rows


def test_a_child_killed_in_mid_chunk_costs_an_attempt_and_no_row(stage: Stage) -> None:
    job = submit(stage)
    with running_worker(stage):
        victim = until(lambda: computing(stage.database, job.id), "a chunk to be computed")
        os.kill(victim, signal.SIGKILL)
        until(
            lambda: any(chunk.attempt == 2 for chunk in chunks(stage.database, job.id)),
            "a second attempt",
        )
        until(lambda: finished(stage, job), "the job to succeed")
    assert_undisturbed(stage, job)


@pytest.mark.parametrize("victims", ["child", "pool"])
def test_who_is_killed_is_replaced_long_before_the_lease_is_over(
    sqlite_stage: Stage, victims: str
) -> None:
    """The dispatcher of the same host sees that the process is gone."""
    job = submit(sqlite_stage)
    with running_worker(sqlite_stage, NELBO_LEASE_S="600", NELBO_RENEW_S="200") as host:
        child = until(lambda: computing(sqlite_stage.database, job.id), "a chunk to be computed")
        for pid in [child] if victims == "child" else [host.pool(), child]:
            os.kill(pid, signal.SIGKILL)
        until(lambda: finished(sqlite_stage, job), "the job to succeed")
    assert_undisturbed(sqlite_stage, job)


def test_a_worker_that_starts_again_takes_back_what_it_held_before(sqlite_stage: Stage) -> None:
    job = submit(sqlite_stage)
    killed = start_worker(sqlite_stage, NELBO_LEASE_S="600", NELBO_RENEW_S="200")
    until(lambda: computing(sqlite_stage.database, job.id), "a chunk to be computed")
    for pid in killed.pids():
        os.kill(pid, signal.SIGKILL)
    killed.process.wait()
    with running_worker(sqlite_stage, NELBO_LEASE_S="600", NELBO_RENEW_S="200"):
        until(lambda: finished(sqlite_stage, job), "the job to succeed")
    assert_undisturbed(sqlite_stage, job)


def test_a_flushed_broker_costs_latency_only(stage: Stage, valkey: Valkey) -> None:
    job = submit(stage, chunk_rows=2_000)
    send_hint(make_app(stage.settings), job.id)
    over = threading.Event()

    def flush() -> None:
        with valkey.client() as client:
            while not over.wait(0.2):
                client.flushall()

    flusher = threading.Thread(target=flush)
    flusher.start()
    try:
        with running_worker(stage, processes=2):
            until(lambda: finished(stage, job), "the job to succeed")
    finally:
        over.set()
        flusher.join()
    assert_undisturbed(stage, job)


def test_a_broker_that_is_away_for_the_whole_job_costs_latency_only(
    sqlite_stage: Stage, tmp_path: Path
) -> None:
    stage = sqlite_stage
    away = Stage(tmp_path, stage.database_url, f"redis+socket://{tmp_path}/no-broker.sock")
    job = submit(stage, rows=2_000, chunk_rows=500)
    with running_worker(away):
        until(lambda: finished(stage, job), "the job to succeed")
    assert_undisturbed(stage, job)


def test_a_broker_that_dies_and_comes_back_is_used_again(sqlite_stage: Stage) -> None:
    with running_valkey() as broker:
        stage = sqlite_stage.with_options(broker_url=SecretStr(broker.url))
        stage.broker_url = broker.url
        first = submit(stage, rows=500, chunk_rows=100)
        with running_worker(stage) as host:
            until(lambda: finished(stage, first), "the first job to succeed")
            with broker.client() as client:
                client.shutdown(nosave=True)
            second = submit(stage, rows=500, chunk_rows=100)
            until(lambda: finished(stage, second), "the second job to succeed without a broker")
            assert "working without it" in host.log.read_text()


@pytest.mark.parametrize(("processes", "chunk_rows"), [(1, 5_000), (3, 1_234)])
def test_neither_workers_nor_chunks_change_a_result(
    sqlite_stage: Stage, processes: int, chunk_rows: int
) -> None:
    stage, version = sqlite_stage, sqlite_stage.version()
    file = stage.file(table(3_000))
    made = submit(stage, rows=12_000, chunk_rows=chunk_rows)
    scored = stage.submit(
        ScoreRequest(model="linear", explain=True), version, 3_000, chunk_rows // 5, file_id=file.id
    )
    with running_worker(stage, processes):
        until(lambda: finished(stage, made) and finished(stage, scored), "both jobs to succeed")
    assert_undisturbed(stage, made)
    alone = stage.submit(
        ScoreRequest(model="linear", explain=True), version, 3_000, 3_000, file_id=file.id
    )
    stage.work()
    one, other = (stage.scores(job.id, explain=True).combine_chunks() for job in (scored, alone))
    assert one.equals(other)
    assert stage.job(scored.id).summary == stage.job(alone.id).summary


def test_sigterm_leaves_nothing_half_done(sqlite_stage: Stage) -> None:
    stage = sqlite_stage
    job = submit(stage)
    with running_worker(stage) as host:
        until(lambda: computing(stage.database, job.id), "a chunk to be computed")
        host.process.send_signal(signal.SIGTERM)
        host.process.wait(60)
        left = chunks(stage.database, job.id)
        assert all(chunk.state in ("queued", "done") for chunk in left), left
        assert all(chunk.attempt == 0 for chunk in left if chunk.state == "queued"), left
    stage.work()
    assert_undisturbed(stage, job)


def test_sigterm_in_the_middle_of_a_long_chunk_ends_the_worker_within_its_grace_time(
    sqlite_stage: Stage,
) -> None:
    stage = sqlite_stage
    job = submit(stage, rows=LONG, chunk_rows=LONG)
    with running_worker(stage) as host:
        until(lambda: computing(stage.database, job.id), "the chunk to be computed")
        asked_at = time.monotonic()
        host.process.send_signal(signal.SIGTERM)
        assert host.process.wait(60) == 0
        assert time.monotonic() - asked_at < app.STOP_S, "nothing had to be killed"
    assert [(chunk.state, chunk.attempt) for chunk in chunks(stage.database, job.id)] == [
        ("queued", 0)
    ]
    assert stage.job(job.id).state == "running"


def test_a_cancel_frees_the_worker_in_the_middle_of_a_long_chunk(sqlite_stage: Stage) -> None:
    stage = sqlite_stage
    long = submit(stage, rows=LONG, chunk_rows=LONG)
    with running_worker(stage) as host:
        until(lambda: computing(stage.database, long.id), "the chunk to be computed")
        ledger.cancel(stage.database, OWNER, long.id)
        until(
            lambda: "lease lost" in host.log.read_text(),
            "the worker to stop between two batches",
            deadline_s=15,
        )
        small = submit(stage, rows=100, chunk_rows=100)
        until(lambda: finished(stage, small), "another job to be done")
    assert list(results.tables(stage.database, long.id)) == []
    assert stage.job(long.id).state == "cancelled"


@pytest.mark.parametrize("part", ["pool", "dispatcher"])
def test_a_part_of_the_worker_that_is_killed_is_started_again(
    sqlite_stage: Stage, part: str
) -> None:
    job = submit(sqlite_stage)
    with running_worker(sqlite_stage) as host:
        child = until(lambda: computing(sqlite_stage.database, job.id), "a chunk to be computed")
        victim = getattr(host, part)()
        os.kill(victim, signal.SIGKILL)
        if part == "pool":
            until(lambda: not alive(child), "the child to end with its main process")
        until(lambda: getattr(host, part)() != victim, "another one")
        until(lambda: finished(sqlite_stage, job), "the job to succeed")
    assert_undisturbed(sqlite_stage, job)


def test_a_worker_that_is_killed_leaves_no_process_behind(sqlite_stage: Stage) -> None:
    job = submit(sqlite_stage)
    with running_worker(sqlite_stage) as host:
        until(lambda: computing(sqlite_stage.database, job.id), "a chunk to be computed")
        below = host.pids()
        host.process.kill()
        host.process.wait()
        until(lambda: not any(map(alive, below)), "its processes to end")


def test_a_dispatcher_says_that_its_host_is_alive(sqlite_stage: Stage) -> None:
    with running_worker(sqlite_stage) as host:
        (seen,) = until(lambda: workers.heartbeats(sqlite_stage.database), "a heartbeat")
        assert seen.pid == host.dispatcher()


def test_a_broker_that_is_away_as_the_chunks_of_a_pool_end_is_used_again(
    sqlite_stage: Stage,
) -> None:
    """The hints that end then must not count for ever as work in hand: Celery stops at so many."""
    with running_valkey() as broker:
        stage = sqlite_stage.with_options(broker_url=SecretStr(broker.url))
        stage.broker_url = broker.url
        first = submit(stage, rows=ROWS, chunk_rows=ROWS)
        with running_worker(stage):
            until(lambda: computing(stage.database, first.id), "the first job to be computed")
            broker.kill()
            until(lambda: finished(stage, first), "the first job to end without a broker")
            broker.start()
            second = submit(stage, rows=2_000, chunk_rows=500)
            until(lambda: finished(stage, second), "the second job to succeed", deadline_s=30)

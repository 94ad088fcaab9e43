"""A clean job in a worker: the cells that the command lists, whatever is killed meanwhile."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from nelbo.jobs import CleanRequest, ScoreRequest
from nelbo.store import ledger, workers
from nelbo.views import Job
from tests.deadline import until
from tests.processes import alive, command, descendants
from tests.training.test_clean import WRONG, orders
from tests.worker.host import Host, chunks, computing, running_worker
from tests.worker.stage import OWNER, Stage, as_csv, table

ROWS = 600
QUICK = CleanRequest(quick=True)
CHILD = "training.clean_cli"


@pytest.fixture
def stage(tmp_path: Path, database_url: str, broker_url: str) -> Iterator[Stage]:
    with Stage(tmp_path, database_url, broker_url) as stage:
        yield stage


@pytest.fixture
def sqlite_stage(tmp_path: Path, sqlite_url: str, broker_url: str) -> Iterator[Stage]:
    with Stage(tmp_path, sqlite_url, broker_url) as stage:
        yield stage


def dirty() -> pa.Table:
    columns = orders(ROWS)
    for row, (column, value) in WRONG.items():
        columns[column][row] = value
    columns["weight"][599] = "heavy"
    return pa.table(columns)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """What the command lists for the table in a CSV file."""
    folder = tmp_path_factory.mktemp("command")
    (folder / "orders.csv").write_bytes(as_csv(dirty()))
    arguments = ["--out=cells.arrow", "--alpha=0.05", "--quick", "--json", "orders.csv"]
    program = [sys.executable, "-P", "-m", "nelbo.programs", CHILD]
    subprocess.run([*program, *arguments], cwd=folder, check=True, capture_output=True)
    with pa.ipc.open_file(str(folder / "cells.arrow")) as reader:
        return reader.read_all()


def submit(stage: Stage, rows: int = ROWS, **given: Any) -> Job:
    source = given or {"file_id": stage.file(dirty()).id}
    return stage.submit(QUICK, None, rows, rows, **source)


def child(host: Host) -> int:
    """The process that fits the models, 0 where there is none."""
    below = descendants(host.process.pid)
    return next((pid for pid in below if CHILD in command(pid)), 0)


def temporary_folders(stage: Stage) -> list[Path]:
    return list((stage.settings.home / "cache").glob("temporary-*"))


def test_a_job_lists_the_cells_that_the_command_lists(stage: Stage, cells: pa.Table) -> None:
    of_file = submit(stage)
    of_rows = submit(stage, inline=dirty().to_pylist())
    stage.work()
    for job in (of_file, of_rows):
        assert stage.made(job.id).combine_chunks().equals(cells.combine_chunks())
        ended = stage.job(job.id)
        assert ended.state == "succeeded"
        assert ended.summary is not None
        assert ended.summary["listed"] == len(set(cells["row"].to_pylist()))
        assert 1 <= ended.summary["probably_wrong"] <= ended.summary["listed"]
    assert cells["row"][0].as_py() == 599, "a row that cannot be read is the first one"
    assert temporary_folders(stage) == []


def test_a_table_that_cannot_be_cleaned_fails_its_job_in_the_words_of_the_command(
    sqlite_stage: Stage,
) -> None:
    job = submit(sqlite_stage, rows=5, inline=dirty().slice(0, 5).to_pylist())
    sqlite_stage.work()
    ended = sqlite_stage.job(job.id)
    assert ended.state == "failed"
    assert (ended.problem or "").startswith("5 usable rows (0 refused) are too few to train on")


def test_a_table_that_takes_too_long_fails_its_job(sqlite_stage: Stage) -> None:
    job = submit(sqlite_stage)
    sqlite_stage.with_options(clean_s=0.01).work()
    ended = sqlite_stage.job(job.id)
    assert ended.state == "failed"
    assert "(the setting clean_s)" in (ended.problem or "")
    assert temporary_folders(sqlite_stage) == []


def test_a_worker_without_the_extra_does_all_other_jobs(
    sqlite_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "CAN_CLEAN", False)
    clean = submit(sqlite_stage)
    file = sqlite_stage.uploaded(as_csv(table(10)))
    sqlite_stage.work()
    score = sqlite_stage.submit(
        ScoreRequest(model="linear"), sqlite_stage.version(), 10, file_id=file
    )
    sqlite_stage.work()
    assert sqlite_stage.job(score.id).state == "succeeded"
    assert sqlite_stage.job(clean.id).state == "queued"
    assert [chunk.attempt for chunk in chunks(sqlite_stage.database, clean.id)] == [0]


def test_a_worker_killed_in_mid_job_costs_an_attempt_and_no_cell(
    stage: Stage, cells: pa.Table
) -> None:
    job = submit(stage)
    with running_worker(stage) as host:
        fitting = until(lambda: child(host), "models to be fitted")
        os.kill(computing(stage.database, job.id), signal.SIGKILL)
        until(lambda: not alive(fitting), "the child to end with its worker")
        until(lambda: stage.job(job.id).state == "succeeded", "the job to succeed", 60)
    assert stage.made(job.id).combine_chunks().equals(cells.combine_chunks())
    work, _ = chunks(stage.database, job.id)
    assert work.attempt == 2


def test_a_cancelled_job_ends_its_child_and_leaves_no_file(sqlite_stage: Stage) -> None:
    job = submit(sqlite_stage)
    with running_worker(sqlite_stage) as host:
        fitting = until(lambda: child(host), "models to be fitted")
        assert workers.can_clean(sqlite_stage.database)
        ledger.cancel(sqlite_stage.database, OWNER, job.id)
        until(lambda: not alive(fitting), "the child to end")
        until(lambda: temporary_folders(sqlite_stage) == [], "its files to be removed")
    assert sqlite_stage.job(job.id).state == "cancelled"


def test_a_worker_that_is_stopped_hands_the_job_back(sqlite_stage: Stage, cells: pa.Table) -> None:
    job = submit(sqlite_stage)
    with running_worker(sqlite_stage) as host:
        until(lambda: child(host), "models to be fitted")
    assert [(chunk.state, chunk.attempt) for chunk in chunks(sqlite_stage.database, job.id)] == [
        ("queued", 0)
    ]
    sqlite_stage.work()
    assert sqlite_stage.made(job.id).combine_chunks().equals(cells.combine_chunks())

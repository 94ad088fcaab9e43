"""Random kills by a fixed seed on real workers: every accepted row is there once, as undisturbed;
and the suite can fail."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from nelbo.jobs import FINAL, GenerateRequest
from nelbo.store import ledger, queue
from nelbo.store.sweep import sweep
from tests.deadline import until
from tests.processes import stopped
from tests.system.faults import campaign, figures, kinds, oracle
from tests.worker.stage import OWNER, Stage

ROOT = Path(__file__).parents[3]
KILLS = 8
ROWS = 4_000


@pytest.mark.timeout(400)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_random_kills_lose_and_double_nothing(database: str, tmp_path: Path) -> None:
    record = campaign.run(
        database, tmp_path, injections=KILLS, seed=1, kinds=kinds.KILLS, measure_pace=False
    )
    assert len(record.blows) == KILLS
    assert record.verdict.holds, record.verdict
    assert record.verdict.accepted == record.verdict.stored + record.verdict.errors


@pytest.mark.system
@pytest.mark.timeout(900)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_one_fault_of_each_kind_loses_and_doubles_nothing(database: str, tmp_path: Path) -> None:
    """What `make faults` does for longer."""
    each = campaign.weighted(kinds.KINDS, database)
    record = campaign.run(database, tmp_path, injections=len(each), seed=2)
    assert {blow.kind for blow in record.blows} == set(each)
    assert record.verdict.holds, record.verdict
    shown = figures.told([(database, figures.of(record))])
    assert "rows lost" in shown
    assert "BROKEN" not in shown


@pytest.mark.system
@pytest.mark.timeout(300)
def test_a_runner_that_is_killed_leaves_no_process_behind(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.system.faults",
        "--database",
        "sqlite",
        "--json",
        str(tmp_path / "figures.json"),
    ]
    with (tmp_path / "told").open("wb") as told:
        # Whatever it starts keeps its folder for temporary files.
        env = os.environ | {"TMPDIR": str(tmp_path)}
        runner = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=told, stderr=told, start_new_session=True
        )
    until(
        lambda: runner.poll() is not None or "1/" in (tmp_path / "told").read_text(),
        "the first fault",
        deadline_s=120,
    )
    assert runner.poll() is None, (tmp_path / "told").read_text()
    assert len(knowing(tmp_path)) > 8
    runner.kill()
    runner.wait()
    until(lambda: not knowing(tmp_path), "all that it started to end", deadline_s=90)


def knowing(folder: Path) -> list[int]:
    """Processes with this folder in their environment."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"TMPDIR={folder}\0".encode() in (place / "environ").read_bytes():
                found.append(int(place.name))
    return found


@pytest.fixture
def stage(tmp_path: Path, database_url: str, broker_url: str) -> Iterator[Stage]:
    with Stage(tmp_path, database_url, broker_url) as stage:
        oracle.watch(stage.database)
        yield stage


def zombie_commits(stage: Stage, fence: str) -> oracle.Verdict:
    """A worker is frozen as it is about to commit, its chunk is halved and given to others, and
    then it goes on."""
    job = stage.submit(
        GenerateRequest(model="linear", n=ROWS, seed=11), stage.version(), ROWS, ROWS
    )
    assert ledger.claim(stage.database, "dead", lease_s=0.01) is not None
    until(lambda: sweep(stage.database).requeued, "the first lease to run out")
    env = {
        "NELBO_DATABASE_URL": stage.database_url,
        "NELBO_HOME": str(stage.settings.home),
        "NELBO_BROKER_URL": stage.broker_url,
    }
    quick = {"NELBO_LEASE_S": "1", "NELBO_RENEW_S": "0.3"}
    until(lambda: due(stage), "the chunk to be due again")
    zombie = subprocess.Popen(
        [sys.executable, "-m", "tests.system.faults.zombie", "computed", fence],
        env=os.environ | env | quick,
        cwd=Path(__file__).parents[3],
    )
    try:
        until(
            lambda: zombie.poll() is not None or stopped(zombie.pid), "the worker to freeze itself"
        )
        assert zombie.poll() is None
        until(lambda: sweep(stage.database).split, "the second lease to run out")
        half = until(
            lambda: ledger.claim(stage.database, "alive", lease_s=600.0),
            "the first half to be claimed",
        )
        assert half is not None
        assert (half.row_from, half.row_to) == (0, ROWS // 2)
        os.kill(zombie.pid, signal.SIGCONT)
        zombie.wait(60)
        ledger.release(stage.database, half)
        stage.with_options(max_attempts=1).work()
        until(lambda: ended(stage, job.id), "the job to end")
    finally:
        zombie.kill()
        zombie.wait()
    alone = stage.submit(
        GenerateRequest(model="linear", n=ROWS, seed=11), stage.version("undisturbed"), ROWS, ROWS
    )
    stage.work()
    return oracle.judge(
        stage.database, OWNER, {job.id: oracle.reference(stage.database, stage.job(alone.id))}
    )


def ended(stage: Stage, job_id: str) -> bool:
    stage.work()
    return stage.job(job_id).state in FINAL


def due(stage: Stage) -> bool:
    return bool(queue.due_for_hint(stage.database, 1, again_s=0.0))


def test_a_zombie_is_refused_by_the_fence(stage: Stage) -> None:
    verdict = zombie_commits(stage, "with")
    assert verdict.holds, verdict


def test_without_the_fence_the_oracle_finds_what_a_zombie_does(stage: Stage) -> None:
    """The negative control: a suite that cannot fail proves nothing."""
    verdict = zombie_commits(stage, "without")
    assert not verdict.holds
    assert any("not of the chunk's last claim" in words for words in verdict.broken), verdict
    assert (
        verdict.lost
        or verdict.duplicated
        or any("a job failed" in words for words in verdict.broken)
    ), verdict


def test_without_a_sweep_the_oracle_finds_what_a_dead_worker_left(stage: Stage) -> None:
    stage.submit(GenerateRequest(model="linear", n=100, seed=11), stage.version(), 100, 50)
    assert ledger.claim(stage.database, "dead", lease_s=0.01) is not None
    stage.work()
    verdict = until(lambda: expired(stage), "the lease to run out")
    assert verdict is not None
    assert verdict.lost == 50
    assert any("has not ended" in words for words in verdict.broken)


def expired(stage: Stage) -> oracle.Verdict | None:
    verdict = oracle.judge(stage.database, OWNER)
    return (
        verdict if any("under a lease that is over" in words for words in verdict.broken) else None
    )

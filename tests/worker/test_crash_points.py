"""A process that dies at any of its crash points, once on each database, costs nothing but time."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from nelbo.broker import make_app, waiting_hints
from nelbo.crash import POINTS, Point
from nelbo.jobs import GenerateRequest
from nelbo.store import ledger
from nelbo.store.sweep import sweep
from nelbo.views import Job
from tests.api import serving
from tests.api.stage import AS_BYTES, AS_ZIP
from tests.deadline import until
from tests.system.faults import oracle
from tests.worker.stage import OWNER, Stage, as_csv, table

ROWS, CHUNK = 8_000, 4_000
"""Chunks that last long enough for a renewal of their lease."""
REQUEST = GenerateRequest(model="linear", n=ROWS, seed=11)
QUICK = {"NELBO_LEASE_S": "0.8", "NELBO_RENEW_S": "0.03", "NELBO_SWEEP_S": "0.2"}
WORKER: tuple[Point, ...] = (
    "claimed",
    "renew",
    "computed",
    "commit",
    "committed",
    "finish",
    "finishing",
)
DISPATCHER: tuple[Point, ...] = ("hint", "hinted", "sweep", "split")
SERVICE: tuple[Point, ...] = ("submit", "submitted", "uploaded", "pushed")


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path
) -> oracle.Reference:
    """What the request gives; the database makes no difference."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with Stage(folder, f"sqlite:///{shutil.copy(sqlite_template, folder / 'nelbo.db')}") as stage:
        job = stage.submit(REQUEST, stage.version(), ROWS, ROWS)
        stage.work()
        return oracle.reference(stage.database, stage.job(job.id))


@pytest.fixture
def stage(tmp_path: Path, database_url: str, broker_url: str) -> Iterator[Stage]:
    with Stage(tmp_path, database_url, broker_url) as stage:
        oracle.watch(stage.database)
        yield stage


def environment(stage: Stage, at: Point) -> dict[str, str]:
    crash = {"NELBO_CRASH_AT": at, "NELBO_CRASH_MARKER": str(stage.folder / "marker")}
    return (
        QUICK
        | crash
        | {"NELBO_DATABASE_URL": stage.database_url, "NELBO_BROKER_URL": stage.broker_url}
    )


def start(stage: Stage, module: str, at: Point) -> subprocess.Popen[bytes]:
    env = os.environ | environment(stage, at) | {"NELBO_HOME": str(stage.settings.home)}
    with (stage.folder / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", module], env=env, cwd=stage.folder, stdout=log, stderr=log
        )


def dies(stage: Stage, process: subprocess.Popen[bytes]) -> None:
    """Of itself, where it was told to."""
    assert process.wait(60) == -signal.SIGKILL, (stage.folder / "log").read_text()
    assert (stage.folder / "marker").exists()


def submit(stage: Stage) -> Job:
    return stage.submit(REQUEST, stage.version(), ROWS, CHUNK)


def ends(stage: Stage, wanted: oracle.Reference, job_id: str) -> None:
    """What is left of the job is done, by whoever comes next; each row is there once and the same
    as undisturbed."""

    def done() -> bool:
        sweep(stage.database)
        stage.work()
        return stage.job(job_id).state == "succeeded"

    until(done, f"job {job_id} to succeed")
    verdict = oracle.judge(stage.database, OWNER, {job_id: wanted})
    assert verdict.holds, verdict
    assert verdict.accepted == verdict.stored == ROWS


def expire(stage: Stage) -> None:
    """The chunk is with a worker that died."""
    until(lambda: ledger.claim(stage.database, "dead", lease_s=0.01), "a chunk to claim")


def test_every_crash_point_is_tried() -> None:
    assert {*WORKER, *DISPATCHER, *SERVICE} == set(POINTS)


@pytest.mark.parametrize("at", WORKER)
def test_a_worker_that_dies_there_loses_nothing(
    stage: Stage, undisturbed: oracle.Reference, at: Point
) -> None:
    job = submit(stage)
    dies(stage, start(stage, "worker.solo", at))
    ends(stage, undisturbed, job.id)


@pytest.mark.parametrize("at", ["hint", "hinted"])
def test_a_dispatcher_that_dies_as_it_hints_is_followed_by_one_that_hints(
    stage: Stage, undisturbed: oracle.Reference, at: Point
) -> None:
    job = submit(stage)
    dies(stage, start(stage, "worker.dispatcher", at))
    app = make_app(stage.settings)
    assert waiting_hints(app) == (0 if at == "hint" else 2)
    following = start(stage, "worker.dispatcher", at)
    try:
        until(lambda: (waiting_hints(app) or 0) >= 2, "hints to be sent")
    finally:
        following.terminate()
        following.wait(60)
    ends(stage, undisturbed, job.id)


@pytest.mark.parametrize("at", ["sweep", "split"])
def test_a_dispatcher_that_dies_as_it_takes_back_a_chunk_leaves_it_whole(
    stage: Stage, undisturbed: oracle.Reference, at: Point
) -> None:
    job = stage.submit(REQUEST, stage.version(), ROWS, ROWS)
    expire(stage)
    if at == "split":
        until(lambda: sweep(stage.database).requeued, "the lease to run out")
        expire(stage)
    dies(stage, start(stage, "worker.dispatcher", at))
    ends(stage, undisturbed, job.id)


@pytest.mark.parametrize("at", SERVICE)
def test_a_service_that_dies_there_is_asked_again_and_does_it_once(
    stage: Stage, undisturbed: oracle.Reference, at: Point
) -> None:
    home = stage.settings.home
    home.mkdir(exist_ok=True)
    stage.version()
    with (
        serving.process(home, **environment(stage, at)) as (url, process),
        pytest.raises(httpx2.TransportError),
    ):
        ask(stage, url, at)
    assert process.returncode == -signal.SIGKILL
    with serving.served(stage.settings) as url:
        answer = ask(stage, url, at)
        assert answer.is_success, answer.text
        if at in ("submit", "submitted"):
            assert ask(stage, url, at).json()["id"] == answer.json()["id"]
            ends(stage, undisturbed, answer.json()["id"])
        else:
            where = url + answer.headers["Location"]
            stage.work()
            assert httpx2.get(where, trust_env=False).json()["state"] == "ready"
            verdict = oracle.judge(stage.database, OWNER)
            assert verdict.holds, verdict


def ask(stage: Stage, url: str, at: Point) -> httpx2.Response:
    with httpx2.Client(base_url=url, trust_env=False, timeout=30) as client:
        match at:
            case "uploaded":
                return client.post(
                    "/v1/files",
                    params={"name": "t.csv"},
                    headers=AS_BYTES,
                    content=as_csv(table(20)),
                )
            case "pushed":
                return client.post(
                    "/v1/models/linear/versions", headers=AS_ZIP, content=stage.packed()
                )
            case _:
                return client.post(
                    "/v1/jobs", json=REQUEST.model_dump(), headers={"Idempotency-Key": "once"}
                )

"""A real worker, and an owner whose models take for ever: others are served, a cancel ends it, and
nothing stays stuck."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from nelbo.jobs import AugmentRequest, GenerateRequest, ScoreRequest
from nelbo.settings import Settings
from nelbo.store import ledger, lookup
from nelbo.store.catalog import VersionEntry
from nelbo.views import Job
from tests.deadline import until
from tests.hostile import slow_artifact
from tests.processes import command, descendants
from tests.worker.host import Host, running_worker
from tests.worker.stage import OWNER, Stage
from worker.confined import CHECK_S

ROW: dict[str, str | None] = {
    "id": "a",
    "length": "1.5",
    "colour": "red",
    "width": "-2",
    "weight": "10",
}


@pytest.fixture
def stage(tmp_path: Path, sqlite_url: str, broker_url: str) -> Iterator[Stage]:
    with Stage(tmp_path, sqlite_url, broker_url) as stage:
        yield stage


def slow_job(stage: Stage, version: VersionEntry) -> Job:
    return stage.submit(ScoreRequest(model="slow"), version, 1, inline=[ROW])


def models_at_work(host: Host) -> set[int]:
    return {pid for pid in descendants(host.process.pid) if "worker.graph_process" in command(pid)}


def test_an_owner_is_served_while_anothers_models_take_for_ever(stage: Stage) -> None:
    version = stage.version("slow", slow_artifact)
    hostile = [slow_job(stage, version) for _ in range(6)]
    with running_worker(stage, processes=2, NELBO_MODEL_BATCH_S="3") as host:
        until(lambda: len(models_at_work(host)) == 2, "both processes to be occupied")
        quick = stage.version("quick", owner="other")
        request = GenerateRequest(model="quick", n=100, seed=1)
        job, _ = ledger.submit(
            stage.database, "other", request, version_id=quick.id, rows=100, chunk_rows=10
        )
        until(
            lambda: lookup.get_job(stage.database, "other", job.id).state == "succeeded",
            "the other owner's job",
        )
        assert any(stage.job(slow.id).state in ("queued", "running") for slow in hostile), (
            "the hostile ones go on"
        )


def test_a_cancel_ends_a_batch_that_takes_for_ever(stage: Stage) -> None:
    job = slow_job(stage, stage.version("slow", slow_artifact))
    with running_worker(stage, NELBO_MODEL_BATCH_S="600") as host:
        (model,) = until(lambda: models_at_work(host), "the model to be at work")
        until(
            lambda: int(Path(f"/proc/{model}/stat").read_text().split()[13]) > 50,
            "it to compute for half a second",
        )
        ledger.cancel(stage.database, OWNER, job.id)
        until(lambda: not models_at_work(host), "the model to end")
        assert stage.job(job.id).state == "cancelled"


def test_a_job_of_too_much_text_fails_and_the_worker_goes_on(stage: Stage) -> None:
    """A MiB of text in a row of which a thousand copies are wanted: some kilobytes as stored, and a
    GiB in memory."""
    version = stage.version()
    request = AugmentRequest(model="linear", per_row=1_000)
    large = stage.submit(request, version, 1, inline=[ROW | {"id": "x" * 2**20}])
    with running_worker(stage, NELBO_WORKER_MEMORY_MIB="600", NELBO_MAX_ATTEMPTS="2"):
        until(lambda: stage.job(large.id).state == "failed", "the job to fail")
        assert "ran out of memory" in (stage.job(large.id).problem or "")
        small = stage.submit(request, version, 1, inline=[ROW])
        until(lambda: stage.job(small.id).state == "succeeded", "another job")


def test_by_default_a_cancel_is_seen_within_two_seconds() -> None:
    assert Settings.model_fields["renew_s"].default + CHECK_S < 2

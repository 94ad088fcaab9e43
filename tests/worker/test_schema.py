"""A real worker beside a newer schema: it goes on where that only adds, and claims nothing where it
does not."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from nelbo.jobs import GenerateRequest
from nelbo.store import revision
from nelbo.views import Job
from tests.deadline import until
from tests.worker.host import running_worker
from tests.worker.stage import Stage


@pytest.fixture
def stage(tmp_path: Path, database_url: str, broker_url: str) -> Iterator[Stage]:
    with Stage(tmp_path, database_url, broker_url) as stage:
        yield stage


def submit(stage: Stage) -> Job:
    return stage.submit(GenerateRequest(model="linear", n=20, seed=1), stage.version(), 20)


def migrate_to(stage: Stage, newer: str, since: str) -> None:
    """As a newer Nelbo does it."""
    with stage.database.alter() as connection:
        connection.execute(text(f"ALTER TABLE job ADD COLUMN of_{newer} TEXT"))
        connection.execute(
            text("UPDATE alembic_version SET version_num = :newer"), {"newer": newer}
        )
        connection.execute(
            text("UPDATE compatibility SET revision = :newer, since = :since"),
            {"newer": newer, "since": since},
        )


def test_a_worker_outlives_a_migration_that_adds_and_stops_at_one_that_breaks(stage: Stage) -> None:
    with running_worker(stage) as host:
        migrate_to(stage, "9998", since=revision.HEAD)
        job = submit(stage)
        until(
            lambda: stage.job(job.id).state == "succeeded", "the job to succeed on the newer schema"
        )

        migrate_to(stage, "9999", since="9999")
        refused = "install the Nelbo that migrated it"
        until(lambda: refused in host.log.read_text(), "the worker to refuse the schema")
        stage.database._check_at = math.inf
        waiting = submit(stage)
        seen = host.log.read_text().count(refused)
        until(
            lambda: host.log.read_text().count(refused) > seen + 4,
            "the worker to look some times more",
        )
        assert stage.job(waiting.id).state == "queued"

        migrate_to(stage, "99990", since=revision.HEAD)
        until(
            lambda: stage.job(waiting.id).state == "succeeded",
            "the job to succeed on the schema that serves again",
        )

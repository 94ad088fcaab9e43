"""Thousands of requests that Schemathesis makes from the OpenAPI description, answered by a real
service with a real worker: no answer is one that the description does not allow, and nothing is
broken afterwards."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from api.access import NEEDS
from nelbo.client import Client
from nelbo.settings import Settings
from nelbo.store.session import connect
from tests.api.stage import description, make_key
from tests.artifacts import linear_artifact
from tests.deadline import until
from tests.nelbo.commands.running import ROOT, up
from tests.system.described import KEPT

pytestmark = [pytest.mark.system, pytest.mark.timeout(1_200)]
CASES = 2_000
SEEDS = range(1, 9)
"""Of runs, as many as are needed: a stateful one ends early where an answer depends on time."""
CONFIG = """
workers = 1
continue-on-failure = true
[generation]
max-examples = 15
database = "none"
no-shrink = true
[phases.stateful]
max-steps = 8
[phases.stateful.generation]
max-examples = 60
"""
"""All checks are on; tests/system/described/hooks.py says which complaints are none."""
LIMITS = {
    # Every operation is tried with wrong keys; tests/api/test_tries.py has the limit.
    "NELBO_MAX_WRONG_KEYS": "100000",
    "NELBO_MAX_JOB_ROWS": "2000",
    "NELBO_CHUNK_ROWS": "50",
    "NELBO_SWEEP_S": "0.5",
    # Fitting models takes seconds, and most tables here are too small for it.
    "NELBO_CLEAN_S": "0.01",
}
GOING_ON = "SELECT COUNT(*) FROM job WHERE state IN ('queued', 'running')"
BY_CHANCE = {"delete_alias"}
"""Operations that not every run brings to success: an alias must be there at the moment at which it
is deleted."""
BROKEN = {
    "jobs that ended with chunks that go on": "SELECT COUNT(*) FROM chunk JOIN job ON job.id ="
    " chunk.job_id"
    " WHERE job.state IN ('succeeded', 'failed', 'cancelled') AND chunk.state IN ('queued',"
    " 'running')",
    "jobs that succeeded without all rows": "SELECT COUNT(*) FROM job WHERE state = 'succeeded' AND"
    " rows_done <> rows",
    "jobs that failed by themselves": "SELECT COUNT(*) FROM job WHERE state = 'failed' AND kind NOT"
    " IN ('read', 'verify', 'clean')",
    "files without an end": "SELECT COUNT(*) FROM file WHERE state IN ('receiving', 'reading') AND"
    " deleted_at IS NULL",
    "versions without an end": "SELECT COUNT(*) FROM version WHERE state = 'pending' AND deleted_at"
    " IS NULL",
}


@dataclass(frozen=True)
class Service:
    url: str
    home: Path
    key: str

    def log(self) -> list[dict[str, Any]]:
        """The lines of the requests."""
        lines = (self.home / "logs" / "api.log").read_text().splitlines()
        return [line for line in map(json.loads, lines) if "route" in line]

    def count(self, statement: str) -> int:
        database = connect(Settings(home=self.home, database_url="").database)
        try:
            with database.read() as connection:
                return int(connection.scalar(text(statement)) or 0)
        finally:
            database.dispose()


@contextmanager
def service(home: Path, folder: Path) -> Iterator[Service]:
    """A `nelbo up` that asks for keys and has the model of the examples."""
    with up(home, NELBO_REQUIRE_KEYS="true", **LIMITS) as url:
        key = make_key(Settings(home=home).database, "ada", "admin")
        with Client(url, key) as client:
            client.models.wait(client.models.push(linear_artifact(folder, KEPT)))
        yield Service(url, home, key)


def cases(service: Service, folder: Path, seed: int) -> int:
    """The number of cases of a run without a complaint: the first has every phase, the others are
    stateful alone."""
    config, report = folder / "schemathesis.toml", folder / f"{seed}.json"
    config.write_text(CONFIG)
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "schemathesis.cli",
        "--config-file",
        config,
        "run",
        f"{service.url}/openapi.json",
    ]
    command += ["-H", f"Authorization: Bearer {service.key}", "--seed", str(seed)]
    command += [
        "--phases",
        "examples,coverage,fuzzing,stateful" if seed == SEEDS[0] else "stateful",
    ]
    command += [
        "--suppress-health-check",
        "all",
        "--report",
        "json",
        "--report-json-path",
        report,
        "--no-color",
    ]
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": "tests.system.described.hooks",
        "PYTHONPATH": str(ROOT),
    }
    run = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    ended = json.loads(report.read_text())
    assert ended["stop_reason"] == "completed"
    number = int(ended["test_cases"]["generated"])
    print(f"seed {seed}: {number} cases, {ended['filtered']} complaints that are none")
    return number


def operations() -> dict[tuple[str, str], str]:
    """Operations by address and method, as the log names them."""
    paths = description()["paths"]
    return {
        (path, method.upper()): operation["operationId"]
        for path in paths
        for method, operation in paths[path].items()
    }


def answered(log: list[dict[str, Any]], statuses: range) -> set[str]:
    """The operations that have answered with one of these statuses."""
    named = operations()
    addresses = {(line["route"], line["method"]) for line in log if line["status"] in statuses}
    return {named[address] for address in addresses if address in named}


def test_two_thousand_requests_are_answered_as_described_and_leave_a_whole_service(
    tmp_path: Path,
) -> None:
    with service(tmp_path / "home", tmp_path / "artifact") as running:
        number = 0
        for seed in SEEDS:
            number += cases(running, tmp_path, seed)
            if (
                number >= CASES
                and answered(running.log(), range(200, 300))
                >= set(operations().values()) - BY_CHANCE
            ):
                break
        assert number >= CASES
        until(lambda: running.count(GOING_ON) == 0, "all jobs to end", 180)
        assert {
            what: running.count(statement) for what, statement in BROKEN.items()
        } == dict.fromkeys(BROKEN, 0)
        ready = httpx2.get(f"{running.url}/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "ready")
        log = running.log()
        assert [line for line in log if line["status"] >= 500 or line["level"] == "error"] == []
        assert answered(log, range(200, 300)) >= set(operations().values()) - BY_CHANCE
        keyed = {operation for operation, scope in NEEDS.items() if scope is not None}
        assert keyed - BY_CHANCE <= answered(log, range(401, 402)) <= keyed

"""jobs and results, on a service."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from nelbo.client import Client
from nelbo.jobs import GenerateRequest
from tests.nelbo.commands.conftest import ROWS, Service
from tests.nelbo.commands.running import done, read, run

pytestmark = pytest.mark.usefixtures("service")


@pytest.fixture
def job(artifact: Path, rows: Path, tmp_path: Path) -> str:
    """A score job that has succeeded."""
    found: str = done(
        "score", "linear", rows, "-o", tmp_path / "scores.parquet", "--explain", "--json"
    ).json["job"]
    return found


def test_a_job_is_listed_and_shown(job: str) -> None:
    assert job in done("jobs").out.decode()
    [first] = done("jobs", "list", "--limit", 1, "--json").json["jobs"]
    assert (first["id"], first["state"]) == (job, "succeeded")
    text = done("jobs", "show", job).out.decode()
    assert "the least likely rows:" in text
    assert f"{ROWS} of {ROWS} done" in text
    assert done("jobs", "list", "--state", "failed", "--json").json["jobs"] == []


def test_results_are_fetched_again_and_equal(job: str, tmp_path: Path) -> None:
    done("results", job, "-o", tmp_path / "again.parquet")
    assert read(tmp_path / "again.parquet").equals(read(tmp_path / "scores.parquet"))
    assert done("results", job).out.startswith(b"row,nelbo,surprise,p_value,anomaly,term_length")


def test_results_wait_for_a_job_that_still_runs(service: Service, tmp_path: Path) -> None:
    with Client(service.url) as client:
        submitted = client.jobs.submit(GenerateRequest(model="linear", n=5_000, seed=2))
    done("results", submitted.id, "-o", tmp_path / "made.parquet")
    assert read(tmp_path / "made.parquet").num_rows == 5_000


def test_results_become_a_typed_table_in_the_users_own_database(job: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'mine.db'}"
    done("results", job, "--to", url, "--table", "scores of mine")
    with closing(sqlite3.connect(tmp_path / "mine.db")) as database:
        total = database.execute(
            "SELECT count(*), sum(nelbo), sum(surprise_weight), sum(anomaly), typeof(row),"
            ' typeof(surprise) FROM "scores of mine"'
        ).fetchone()
    scores = read(tmp_path / "scores.parquet")
    assert total == (
        ROWS,
        pytest.approx(scores["nelbo"].to_numpy().sum()),
        pytest.approx(scores["surprise_weight"].to_numpy().sum()),
        scores["anomaly"].to_numpy().sum(),
        "integer",
        "real",
    )
    again = run("results", job, "--to", url, "--table", "scores of mine")
    assert again.code == 1
    assert "name another one" in again.err


def test_a_url_that_names_no_database_is_refused(job: str) -> None:
    for url in ("mine.db", "oracle9://x", "sqlite:////absent/folder/x.db"):
        ran = run("results", job, "--to", url)
        assert (ran.code, ran.err.count("\n")) == (1, ran.err.count("\n")), ran.err
        assert "Traceback" not in ran.err


def test_a_job_is_cancelled_and_tried_again(service: Service) -> None:
    with Client(service.url) as client:
        submitted = client.jobs.submit(GenerateRequest(model="linear", n=200_000, seed=2))
        assert done("jobs", "cancel", submitted.id).err.startswith(f"job {submitted.id} is ")
        while not submitted.refresh().finished:
            pass
        assert submitted.state == "cancelled"
        assert run("results", submitted.id).code == 1
        done("jobs", "retry", submitted.id)
        client.jobs.cancel(submitted.id)
    assert run("jobs", "cancel", "0198c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11").code == 3


def test_a_finished_job_cannot_be_cancelled(job: str) -> None:
    ran = run("jobs", "cancel", job)
    assert (ran.code, ran.err.count("\n")) == (1, 1)

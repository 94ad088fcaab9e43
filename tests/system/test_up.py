"""`nelbo up` for real: it starts, does a job, ends when asked or killed, leaves nothing behind, and
starts again."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pyarrow as pa
import pytest

from nelbo.client import Client
from nelbo.engine import Engine
from tests.artifacts import linear_artifact
from tests.deadline import until
from tests.processes import alive, command, descendants, umask
from tests.training.test_clean import orders

NELBO = Path(sys.executable).with_name("nelbo")


@dataclass
class Up:
    """A `nelbo up` and its data folder."""

    process: subprocess.Popen[bytes]
    home: Path
    output: Path

    def record(self) -> dict[str, Any]:
        """What up.json says, once everything is ready."""

        def written() -> str:
            assert self.process.poll() is None, self.output.read_text()
            path = self.home / "up.json"
            return path.read_text() if path.exists() else ""

        found: dict[str, Any] = json.loads(until(written, "everything to be ready", deadline_s=90))
        return found

    def client(self) -> Client:
        return Client(self.record()["url"])

    def processes(self) -> set[int]:
        return {self.process.pid} | descendants(self.process.pid)


@contextmanager
def running(home: Path, folder: Path) -> Iterator[Up]:
    """`nelbo up` started in `folder`; nothing of it may remain."""
    output = home.with_suffix(".output")
    with output.open("ab") as log:
        process = subprocess.Popen(
            [NELBO, "up", "--port", "0", "--workers", "1"],
            cwd=folder,
            env=os.environ | {"NELBO_HOME": str(home), "NELBO_SWEEP_S": "0.5"},
            stdout=log,
            stderr=log,
        )
    up = Up(process, home, output)
    below: set[int] = set()
    try:
        yield up
        below = up.processes()
    except BaseException:
        for log_file in [output, *home.glob("logs/*.log")]:
            print(f"--- {log_file}\n{log_file.read_text()[-4000:]}")
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        until(lambda: not any(map(alive, below)), "its processes to end")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's folder that has packages of the same names as ours."""
    folder = tmp_path / "project"
    for package in ("api", "worker", "training", "nelbo"):
        (folder / package).mkdir(parents=True)
        for module in ("__init__", "app", "pool", "dispatcher", "tasks"):
            (folder / package / f"{module}.py").write_text(
                f"raise SystemExit('imported the wrong {package}')\n"
            )
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def answers(url: str) -> bool:
    try:
        return httpx2.get(url).status_code == 200
    except httpx2.TransportError:
        return False


def do_a_job(up: Up, folder: Path, model: str) -> None:
    """Push a model and generate rows with it, over HTTP."""
    artifact = linear_artifact(folder / model, model)
    with up.client() as client:
        client.models.wait(client.models.push(artifact))
        job = client.jobs.generate(model, 100, seed=3).wait(timeout_s=60)
        made = job.results().to_arrow()
    assert made.to_pylist() == Engine.load(artifact).generate(3, 0, 100).batch.to_pylist()


def test_it_does_a_job_in_a_folder_with_packages_of_the_same_names_and_ends_at_ctrl_c(
    home: Path, project: Path
) -> None:
    with running(home, project) as up:
        do_a_job(up, home.parent, "first")
        record, processes = up.record(), up.processes()
        assert len(processes) > 5
        broker = Path(urlsplit(record["broker"]).path)
        assert broker.parent.stat().st_mode & 0o077 == 0
        password = urlsplit(record["broker"]).password
        assert password
        assert not [pid for pid in processes if password in command(pid)]
        assert not [log for log in home.glob("logs/*.log") if password in log.read_text()]
        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(60) == 0
        until(lambda: not any(map(alive, processes)), "all processes to end")
        assert not (home / "up.json").exists()
        assert not broker.parent.exists()
    assert "ready at http://127.0.0.1:" in up.output.read_text()


def test_it_cleans_a_table_without_a_model(home: Path, project: Path) -> None:
    columns = orders(400)
    columns["weight"][302] = "1050.00"
    with running(home, project) as up, up.client() as client:
        job = client.jobs.clean(pa.table(columns), quick=True).wait(timeout_s=120)
        first = job.results().to_arrow().slice(0, 1).to_pylist()[0]
    assert (first["order"], first["column"], first["value"]) == ("N00302", "weight", "1050.00")
    assert 0.5 < float(first["expected"]) < 3.5


def test_killed_it_leaves_no_orphan_and_a_second_start_works(home: Path, project: Path) -> None:
    with running(home, project) as up:
        do_a_job(up, home.parent, "first")
        processes, broker = up.processes(), Path(urlsplit(up.record()["broker"]).path)
        up.process.kill()
        up.process.wait()
        with running(home, project) as second:
            until(lambda: not any(map(alive, processes)), "the orphans to end")
            assert not broker.parent.exists()
            until(lambda: second.record()["pid"] == second.process.pid, "the second one's record")
            do_a_job(second, home.parent, "second")
            with second.client() as client:
                assert {model.name for model in client.models.list()} == {"first", "second"}


def test_no_other_user_may_open_anything_that_it_keeps(home: Path, tmp_path: Path) -> None:
    for folder in (home, home / "storage", home / "logs"):
        folder.mkdir(mode=0o755)
    with running(home, tmp_path) as up:
        do_a_job(up, tmp_path, "first")
        assert {umask(pid) for pid in up.processes()} == {0o077}
        assert [path for path in (home, *home.rglob("*")) if path.lstat().st_mode & 0o077] == []


@pytest.mark.system
def test_a_second_one_on_the_same_data_folder_is_refused(home: Path, tmp_path: Path) -> None:
    with running(home, tmp_path) as up:
        up.record()
        environment = os.environ | {"NELBO_HOME": str(home)}
        second = subprocess.run(
            [NELBO, "up", "--port", "0"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert second.returncode == 1
        assert str(up.process.pid) in second.stderr
        assert "Traceback" not in second.stderr


@pytest.mark.system
def test_a_part_that_is_killed_is_started_again(home: Path, tmp_path: Path) -> None:
    with running(home, tmp_path) as up:
        up.record()
        for pid in up.processes() - {up.process.pid}:
            os.kill(pid, signal.SIGKILL)
        until(lambda: answers(f"{up.record()['url']}/readyz"), "the API to answer again")
        do_a_job(up, home.parent, "after")

"""`nelbo demo` as `make demo` runs it: stopped by ^C in the middle, then whole, then once more."""

import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.deadline import until
from tests.nelbo.commands.running import COMMAND, environment
from tests.processes import hear_control_c

pytestmark = [pytest.mark.system, pytest.mark.timeout(2_400)]
TRAINING = "2. training on"


@contextmanager
def demo(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The demo in a session of its own, as a terminal would run it; what it says goes to `said`."""
    with (folder / "said").open("wb") as said:
        started = subprocess.Popen(
            [*COMMAND, "demo"],
            cwd=folder,
            env=environment(home_of(folder)),
            stdout=said,
            stderr=said,
            start_new_session=True,
            preexec_fn=hear_control_c,
        )
    try:
        yield started
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()


def home_of(folder: Path) -> Path:
    return folder / "home"


def said(folder: Path) -> str:
    return (folder / "said").read_text()


def processes_of(home: Path) -> list[str]:
    """The command lines of processes that know this data folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if f"NELBO_HOME={home}\0".encode() in (place / "environ").read_bytes():
                found.append((place / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


@pytest.mark.parametrize("moment", ["1. starting", TRAINING])
def test_control_c_in_the_middle_ends_all_that_was_started(moment: str, tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        until(lambda: moment in said(tmp_path), moment, deadline_s=120)
        assert processes_of(home_of(tmp_path))
        os.killpg(running.pid, signal.SIGINT)
        assert running.wait(120) == 130
    assert "Traceback" not in said(tmp_path)
    until(lambda: not processes_of(home_of(tmp_path)), "no process is left")
    assert not (home_of(tmp_path) / "up.json").exists()


def test_the_demo_shows_everything_and_works_a_second_time(tmp_path: Path) -> None:
    home = home_of(tmp_path)
    for version in (1, 2):
        with demo(tmp_path) as running:
            assert running.wait(1_000) == 0, said(tmp_path)
        shown = said(tmp_path)
        assert f"registered as adult@{version}" in shown
        for part in (
            "The five least likely of 16,281 held-out rows",
            "columns off by",
            "FROM score WHERE job_id",
            "stopped what was started",
        ):
            assert part in shown
        assert pq.read_metadata(home / "scores.parquet").num_rows == 16_281
        assert pq.read_metadata(home / "generated.parquet").num_rows == 10_000
        assert pq.read_metadata(home / "augmented.parquet").num_rows == 1_000
        assert not processes_of(home)
    with closing(sqlite3.connect(home / "nelbo.db")) as database:
        assert database.execute(
            "SELECT count(*) FROM job WHERE state = 'succeeded' AND kind = 'score'"
        ).fetchone() == (2,)

"""Children end with their parent however it ends, and are started again when they end by
themselves."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nelbo.processes import (
    HEALTHY_S,
    LONGEST_PAUSE_S,
    Child,
    Lifeline,
    end_all,
    keep_running,
    life,
    my_name,
    pause_after,
)
from tests.deadline import until
from tests.processes import alive

SLEEPER = (
    "import os, pathlib, sys, time\npathlib.Path(sys.argv[1],"
    " str(os.getpid())).touch()\ntime.sleep(600)\n"
)
STUBBORN = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEPER
PARENT = """
import sys, threading, time
from nelbo.processes import Child, Lifeline
child = Child("child", "sleeper", [sys.argv[1]], env={"PYTHONPATH": sys.argv[1]})
child.start(Lifeline())
time.sleep(600)
"""


def module(folder: Path, code: str = SLEEPER) -> Child:
    (folder / "sleeper.py").write_text(code)
    return Child(
        "sleeper", "sleeper", [str(folder)], env={"PYTHONPATH": str(folder)}, log=folder / "log"
    )


def pids(folder: Path) -> set[int]:
    return {int(path.name) for path in folder.iterdir() if path.name.isdigit()}


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    module(tmp_path)
    parent = subprocess.Popen([sys.executable, "-P", "-c", PARENT, str(tmp_path)])
    (pid,) = until(lambda: pids(tmp_path), "the child")
    parent.kill()
    parent.wait()
    until(lambda: not alive(pid), "the child to end", deadline_s=10)


def test_a_child_that_ends_is_started_again(tmp_path: Path) -> None:
    child, stop = module(tmp_path), threading.Event()
    statuses: list[int] = []
    keeper = threading.Thread(
        target=keep_running,
        args=([child], Lifeline(), stop, lambda _, status: statuses.append(status)),
    )
    keeper.start()
    try:
        (first,) = until(lambda: pids(tmp_path), "the child")
        os.kill(first, signal.SIGKILL)
        until(lambda: len(pids(tmp_path)) == 2, "a second child")
        assert statuses == [-signal.SIGKILL]
    finally:
        stop.set()
        keeper.join()
        end_all([child], grace_s=10)


def test_a_child_that_ran_well_restarts_at_once_and_one_that_dies_at_its_start_ever_later() -> None:
    assert pause_after(HEALTHY_S, last_pause_s=LONGEST_PAUSE_S) == 0.0
    pause, pauses = 0.0, []
    for _ in range(10):
        pause = pause_after(0.1, pause)
        pauses.append(pause)
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.25, LONGEST_PAUSE_S)


def test_a_name_tells_whether_its_process_lives() -> None:
    program = "from nelbo.processes import my_name; print(my_name(), flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child.stdin, child.stdout:
        name = child.stdout.readline().strip()
        assert name.endswith(f":{child.pid}")
        assert life(name) == life(my_name()) == "alive"
        child.kill()
        until(
            lambda: life(name) == "dead",
            "a process that nobody has waited for yet to count as dead",
        )
        child.wait()
    assert life(name) == "dead"


def test_a_process_that_took_over_an_id_is_another_one() -> None:
    head, _, pid = my_name().rpartition(":")
    assert life(f"{head}0:{pid}") == "dead"


@pytest.mark.parametrize("name", ["elsewhere:1", "host.00000000.123:1", "", "dead", "a.b.c:d"])
def test_who_lives_elsewhere_cannot_be_told(name: str) -> None:
    assert life(name) == "unknown"


def test_a_child_that_ignores_sigterm_is_killed_after_the_grace_time(tmp_path: Path) -> None:
    child = module(tmp_path, STUBBORN)
    child.start(Lifeline())
    until(lambda: pids(tmp_path), "the child")
    end_all([child], grace_s=0.1)
    assert child.process is not None
    assert child.process.returncode == -signal.SIGKILL


def test_a_child_in_haste_is_killed_at_once(tmp_path: Path) -> None:
    child, hurry = module(tmp_path, STUBBORN), threading.Event()
    child.start(Lifeline())
    until(lambda: pids(tmp_path), "the child")
    hurry.set()
    end_all([child], grace_s=600, hurry=hurry)
    assert child.process is not None
    assert child.process.returncode == -signal.SIGKILL


def test_the_working_directory_is_not_imported_from(tmp_path: Path) -> None:
    (tmp_path / "worker").mkdir()
    (tmp_path / "worker" / "app.py").write_text("raise SystemExit('imported the wrong worker')")
    (tmp_path / "probe.py").write_text("import worker\nprint(worker.__file__)\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "probe.py").rename(tmp_path / "elsewhere" / "probe.py")
    child = Child(
        "probe",
        "probe",
        env={"PYTHONPATH": str(tmp_path / "elsewhere")},
        cwd=tmp_path,
        log=tmp_path / "log",
    )
    child.start(Lifeline())
    assert child.process is not None
    assert child.process.wait(30) == 0
    assert str(tmp_path) not in (tmp_path / "log").read_text()

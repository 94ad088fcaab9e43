"""Work on a stranger's input, in a child: its answer, its death, its limits."""

from pathlib import Path

import pytest

from tests.artifacts import linear_artifact
from worker.limited import ChildDied, run_limited


class Cancelled(Exception):
    pass


def nothing() -> None:
    """Never stops the work."""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "program.py"


def test_the_last_line_is_the_answer(program: Path) -> None:
    program.write_text("import sys\nprint('noise')\nprint('{\"args\": %d}' % len(sys.argv[1:]))")
    assert run_limited("program", ["a", "b"], nothing) == {"args": 2}


@pytest.mark.parametrize("end", ["import os; os.kill(os.getpid(), 9)", "raise SystemExit('no space left')", "print('hm')"])
def test_a_child_without_an_answer_is_a_transient_error(program: Path, end: str) -> None:
    program.write_text(end)
    with pytest.raises(ChildDied, match="ended with status"):
        run_limited("program", [], nothing)


def test_a_child_is_killed_when_the_work_must_stop(program: Path, tmp_path: Path) -> None:
    program.write_text(f"import time, pathlib\npathlib.Path({str(tmp_path)!r}, 'began').touch()\ntime.sleep(600)")

    def cancelled_once_it_runs() -> None:
        if (tmp_path / "began").exists():
            raise Cancelled

    with pytest.raises(Cancelled):
        run_limited("program", [], cancelled_once_it_runs)


def test_a_child_is_killed_when_its_time_is_over(program: Path) -> None:
    program.write_text("import time\ntime.sleep(600)")
    with pytest.raises(TimeoutError):
        run_limited("program", [], nothing, limit_s=0.3)


def test_a_trial_of_a_good_artifact_finds_nothing(tmp_path: Path) -> None:
    folder = linear_artifact(tmp_path / "linear")
    assert run_limited("worker.trial", [str(folder), "2048"], nothing) == {"problem": None}


def test_a_trial_finds_a_changed_graph(tmp_path: Path) -> None:
    folder = linear_artifact(tmp_path / "linear")
    graph = folder / "score.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    assert "score.onnx" in run_limited("worker.trial", [str(folder), "2048"], nothing)["problem"]


def test_a_trial_ends_where_its_memory_does(tmp_path: Path) -> None:
    folder = linear_artifact(tmp_path / "linear")
    with pytest.raises(ChildDied):
        run_limited("worker.trial", [str(folder), "100"], nothing)

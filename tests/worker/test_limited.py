"""Work on a stranger's input, in a child: its answer, its death, its limits."""

import io
import signal
import zipfile
from pathlib import Path
from typing import Any

import pytest

from nelbo.artifact import read_artifact
from tests.artifacts import linear_artifact, packed
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


@pytest.mark.parametrize(
    "end",
    ["import os; os.kill(os.getpid(), 9)", "raise SystemExit('no space left')", "print('hm')"],
)
def test_a_child_without_an_answer_is_a_transient_error(program: Path, end: str) -> None:
    program.write_text(end)
    with pytest.raises(ChildDied, match="ended with status"):
        run_limited("program", [], nothing)


def test_the_status_of_a_child_that_aborts_is_told(program: Path) -> None:
    program.write_text("import os; os.abort()")
    with pytest.raises(ChildDied) as death:
        run_limited("program", [], nothing)
    assert death.value.status == -signal.SIGABRT


def test_a_child_is_killed_when_the_work_must_stop(program: Path, tmp_path: Path) -> None:
    program.write_text(
        f"import time, pathlib\npathlib.Path({str(tmp_path)!r}, 'began').touch()\ntime.sleep(600)"
    )

    def cancelled_once_it_runs() -> None:
        if (tmp_path / "began").exists():
            raise Cancelled

    with pytest.raises(Cancelled):
        run_limited("program", [], cancelled_once_it_runs)


def test_a_child_is_killed_when_its_time_is_over(program: Path) -> None:
    program.write_text("import time\ntime.sleep(600)")
    with pytest.raises(TimeoutError):
        run_limited("program", [], nothing, limit_s=0.3)


def tried(content: bytes, folder: Path, memory_mib: int = 2_048) -> dict[str, Any]:
    (folder / "artifact.zip").write_bytes(content)
    (folder / "out").mkdir()
    return run_limited(
        "worker.trial",
        [str(folder / "artifact.zip"), str(folder / "out"), str(memory_mib)],
        nothing,
    )


def test_a_trial_of_a_good_artifact_tells_what_it_holds(tmp_path: Path) -> None:
    folder = linear_artifact(tmp_path / "linear")
    artifact = read_artifact(folder)
    manifest = artifact.manifest.model_dump(mode="json")
    answer = tried(packed(folder), tmp_path)
    assert 0 < answer.pop("row_s") < 10
    assert answer == {"problem": None, "manifest": manifest, "digest": artifact.digest}


def test_a_trial_finds_a_changed_graph(tmp_path: Path) -> None:
    content = packed(linear_artifact(tmp_path / "linear"))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["score.onnx"] = members["score.onnx"][:-1] + b"\0"
    changed = io.BytesIO()
    with zipfile.ZipFile(changed, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    assert "score.onnx is not what" in tried(changed.getvalue(), tmp_path)["problem"]


def test_a_trial_ends_where_its_memory_does(tmp_path: Path) -> None:
    with pytest.raises(ChildDied):
        tried(packed(linear_artifact(tmp_path / "linear")), tmp_path, memory_mib=100)

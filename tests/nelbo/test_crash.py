"""The places at which a process dies for a test are those of the list, and it dies there once."""

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from nelbo.crash import POINTS

ROOT = Path(__file__).parents[2]
DIE = "from nelbo import crash; crash.point('claimed'); crash.point('commit'); print('alive')"


def calls() -> Iterator[str]:
    """The names that the code calls `crash.point` with."""
    for folder in ("api", "nelbo", "worker"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "crash.point":
                    yield from names(node.args[0])


def names(expression: ast.expr) -> list[str]:
    """One name, or one of two by a condition."""
    match expression:
        case ast.Constant(value=str(name)):
            return [name]
        case ast.IfExp(body=one, orelse=other):
            return names(one) + names(other)
    raise AssertionError(f"{ast.unparse(expression)} is not a name that can be read from the code")


def test_every_crash_point_of_the_list_is_one_place_in_the_code() -> None:
    assert sorted(calls()) == sorted(POINTS)


def run(tmp_path: Path, at: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"NELBO_CRASH_AT": at, "NELBO_CRASH_MARKER": str(tmp_path / "marker")}
    return subprocess.run(
        [sys.executable, "-c", DIE], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )


def test_a_process_dies_at_its_point_and_the_next_one_goes_on(tmp_path: Path) -> None:
    assert run(tmp_path, "commit").returncode == -signal.SIGKILL
    assert run(tmp_path, "commit").stdout == "alive\n"


def test_a_process_that_was_told_nothing_goes_on(tmp_path: Path) -> None:
    assert run(tmp_path, "").stdout == "alive\n"
    assert not (tmp_path / "marker").exists()

"""A model runs in a process of its own, which gives the same numbers, and which ends where the
model takes too much."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nelbo.confinement import measures
from nelbo.engine import Engine
from nelbo.errors import InvalidArtifact
from tests.artifacts import linear_artifact
from tests.deadline import until
from tests.hostile import greedy_artifact, slow_artifact, wrong_artifact
from worker.arrays import GROUP, SLOTS
from worker.confined import ConfinedGraphs, ModelDied, ModelLimits, load

LIMITS = ModelLimits(batch_s=60.0, memory_mib=2_048)
SHORT = ModelLimits(batch_s=1.0, memory_mib=2_048)


class Cancelled(Exception):
    pass


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return linear_artifact(tmp_path / "linear")


@pytest.fixture
def engine(folder: Path) -> Engine:
    return load(folder, LIMITS)


def pid(engine: Engine) -> int:
    graphs = engine.graphs
    assert isinstance(graphs, ConfinedGraphs)
    assert graphs._process is not None
    return graphs._process._child.pid


def test_a_confined_model_gives_the_very_numbers_of_one_in_this_process(
    folder: Path, engine: Engine
) -> None:
    plain = Engine.load(folder)
    rows = plain.generate(seed=1, first_row=0, rows=16 * GROUP * SLOTS * 3 + 5).batch
    assert engine.generate(seed=1, first_row=0, rows=len(rows)).batch.equals(rows)
    confined, here = engine.score(rows), plain.score(rows)
    for name in ("rows", "nelbo", "surprise", "p_value", "terms", "kl", "surprises"):
        np.testing.assert_array_equal(getattr(confined, name), getattr(here, name))
    assert engine.augment(rows, 0, 2, 3, 0.5).batch.equals(plain.augment(rows, 0, 2, 3, 0.5).batch)
    assert engine.reconstruct(rows, 0, 3, denoise=True).batch.equals(
        plain.reconstruct(rows, 0, 3, denoise=True).batch
    )


def test_one_process_serves_all_batches(engine: Engine) -> None:
    rows = engine.generate(seed=1, first_row=0, rows=100).batch
    first = pid(engine)
    engine.score(rows)
    assert pid(engine) == first


def test_the_process_of_a_model_knows_no_secret_and_has_no_other_file_open(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NELBO_DATABASE_URL", "postgresql://secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with open(folder / "manifest.json", "rb") as kept:
        os.set_inheritable(kept.fileno(), True)
        engine = load(folder, LIMITS)
        engine.generate(seed=1, first_row=0, rows=1)
    process = Path(f"/proc/{pid(engine)}")
    assert b"secret" not in (process / "environ").read_bytes()
    assert str(folder / "manifest.json") not in {
        os.readlink(entry) for entry in (process / "fd").iterdir()
    }


@pytest.mark.skipif(not measures().complete, reason="this kernel confines less")
def test_the_process_of_a_model_is_confined(engine: Engine) -> None:
    engine.generate(seed=1, first_row=0, rows=1)
    status = Path(f"/proc/{pid(engine)}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status


def test_a_model_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    engine = load(slow_artifact(tmp_path / "slow"), SHORT)
    rows = engine.generate(seed=1, first_row=0, rows=5).batch
    slow = pid(engine)
    with pytest.raises(
        ModelDied, match=r"more than 1 s for one batch of 16 rows \(the setting model_batch_s\)"
    ):
        engine.score(rows)
    assert not Path(f"/proc/{slow}").exists()
    assert engine.generate(seed=1, first_row=0, rows=5).batch.equals(rows), (
        "a new process does the next batch"
    )


def test_a_model_that_needs_too_much_memory_is_stopped(tmp_path: Path) -> None:
    engine = load(greedy_artifact(tmp_path / "greedy", gib=3), LIMITS)
    rows = engine.generate(seed=1, first_row=0, rows=5).batch
    with pytest.raises(
        ModelDied, match=r"needs more than 2,048 MiB \(the setting model_memory_mib\)"
    ):
        engine.score(rows)


def test_a_model_that_is_killed_is_said_to_have_died(engine: Engine) -> None:
    rows = engine.generate(seed=1, first_row=0, rows=5).batch
    os.kill(pid(engine), signal.SIGKILL)
    with pytest.raises(ModelDied, match="ended with status -9"):
        engine.score(rows)
    engine.score(rows)


def test_a_model_that_gives_another_shape_than_it_declares_is_refused(tmp_path: Path) -> None:
    engine = load(wrong_artifact(tmp_path / "wrong"), LIMITS)
    rows = engine.generate(seed=1, first_row=0, rows=5).batch
    with pytest.raises(InvalidArtifact, match="another type or shape than it declares"):
        engine.score(rows)


def test_a_graph_that_was_changed_is_refused_by_the_process_too(
    tmp_path: Path, folder: Path
) -> None:
    engine = load(folder, LIMITS)
    graph = folder / "score.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    with pytest.raises(InvalidArtifact, match=r"score\.onnx"):
        engine.generate(seed=1, first_row=0, rows=5)


def test_a_check_that_raises_in_the_middle_of_a_batch_kills_the_model(tmp_path: Path) -> None:
    engine = load(slow_artifact(tmp_path / "slow"), LIMITS)
    rows = engine.generate(seed=1, first_row=0, rows=5).batch
    slow, calls = pid(engine), 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        engine.score(rows, check=check)
    assert not Path(f"/proc/{slow}").exists()


def test_batches_of_a_work_that_stopped_are_not_taken_for_those_of_the_next(engine: Engine) -> None:
    rows = engine.generate(seed=1, first_row=0, rows=16 * GROUP * 6).batch
    expected, calls = engine.score(rows), 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        engine.score(rows, check=check)
    np.testing.assert_array_equal(engine.score(rows).nelbo, expected.nelbo)


def test_the_process_of_a_model_ends_with_the_worker(folder: Path) -> None:
    program = (
        "import os, sys, time; from pathlib import Path; from"
        " worker import confined\n"
        f"engine = confined.load(Path({str(folder)!r}), confined.ModelLimits(60, 2048));"
        " engine.generate(1, 0, 5)\n"
        "print(engine.graphs._process._child.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    orphan = Path(f"/proc/{ran.stdout.strip()}")
    until(
        lambda: not orphan.exists() or "State:\tZ" in (orphan / "status").read_text(),
        "the model's process to end",
    )


def test_the_process_of_a_model_ends_with_its_engine(folder: Path) -> None:
    engine = load(folder, LIMITS)
    engine.generate(seed=1, first_row=0, rows=5)
    process = Path(f"/proc/{pid(engine)}")
    del engine
    assert not process.exists()

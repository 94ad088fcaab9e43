"""The bare work, in as many processes as the worker has: ONNX Runtime over rows that are in memory,
or the engine's `generate`.

    python -m tests.benchmarks.speed.loops MODEL FIRST LAST [TABLE]

One such process waits for a line of its input, does the work of its rows, says so, and waits again.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from nelbo.encoding import encode
from nelbo.engine import Engine
from nelbo.processes import ONE_THREAD
from nelbo.sessions import fixed_batches, open_session
from tests.benchmarks.speed.turns import Run, Side

PIECE = 10_000
"""Number of rows that are generated or read at a time."""


@contextmanager
def bare_loops(processes: int, model: Path, rows: int, table: Path | None = None) -> Iterator[Side]:
    """Loops side by side that score the rows of a table or, without one, generate rows."""
    bounds = [rows * i // processes for i in range(processes + 1)]
    with ExitStack() as stack:
        loops = [
            stack.enter_context(_loop(model, first, last, table))
            for first, last in pairwise(bounds)
        ]
        for loop in loops:
            _answer(loop)

        def run() -> Run:
            began = time.perf_counter()
            for loop in loops:
                assert loop.stdin is not None
                loop.stdin.write("go\n")
                loop.stdin.flush()
            cpu_s = sum(map(_answer, loops))
            return Run({"rows/s": rows / (time.perf_counter() - began)}, cpu_s)

        yield run


@contextmanager
def _loop(
    model: Path, first: int, last: int, table: Path | None
) -> Iterator["subprocess.Popen[str]"]:
    arguments = [str(model), str(first), str(last), *([str(table)] if table else [])]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.speed.loops", *arguments],
        env=os.environ | ONE_THREAD,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as loop:
        yield loop


def _answer(loop: "subprocess.Popen[str]") -> float:
    """The CPU seconds of the loop's last work."""
    assert loop.stdout is not None
    answer = loop.stdout.readline()
    assert answer, "a bare loop ended early; its error is above"
    return float(answer)


def main() -> None:
    """Do the work once before it is measured, and then once for each line of the input."""
    model, first, last, *table = sys.argv[1:]
    engine = Engine.load(Path(model))
    work = Scoring(engine, Path(table[0])) if table else Generation(engine)
    work.run(int(first), min(int(first) + PIECE, int(last)))
    print(0.0, flush=True)
    for _ in sys.stdin:
        cpu = time.process_time()
        work.run(int(first), int(last))
        print(time.process_time() - cpu, flush=True)


class Generation:
    """Rows made by the engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def run(self, first: int, last: int) -> None:
        for start in range(first, last, PIECE):
            self.engine.generate(1, start, min(PIECE, last - start))


class Scoring:
    """The score graph over rows that are read and encoded before."""

    def __init__(self, engine: Engine, table: Path) -> None:
        self.session = open_session(engine.artifact, "score")
        self.graph = engine.manifest.graphs["score"]
        self.batch = engine.manifest.batch
        batches = pq.ParquetFile(table).iter_batches(PIECE)
        encoded = [encode(batch, engine.schema) for batch in batches]
        self.numbers = np.concatenate([rows.numbers for rows in encoded])
        self.codes = np.concatenate([rows.codes for rows in encoded])

    def run(self, first: int, last: int) -> None:
        arrays = [self.numbers[first:last], self.codes[first:last]]
        for _, *inputs in fixed_batches(self.batch, *arrays):
            self.session.run(
                list(self.graph.outputs), dict(zip(self.graph.inputs, inputs, strict=True))
            )


if __name__ == "__main__":
    main()

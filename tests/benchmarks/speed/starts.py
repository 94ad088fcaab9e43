"""How long the commands take to start, beside a Python that imports Typer."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pyarrow.csv

from tests.benchmarks.speed.bench import Bench
from tests.benchmarks.speed.service import (
    MODEL,
    NELBO,
    connected,
    start_up,
    started,
    stop_up,
)
from tests.benchmarks.speed.turns import Goal, Line, Run, cpu_s_of, in_turns, line

TYPER = [sys.executable, "-c", "import typer"]


def starts(bench: Bench) -> Iterator[Line]:
    ten = bench.folder / "ten.csv"
    pyarrow.csv.write_csv(bench.engine.generate(1, 0, 10).batch, ten)
    home = bench.folder / "start"
    with started(home) as service:
        service.client.models.push(bench.model, name=MODEL)

    helped, scored, accepted, typer = in_turns(
        bench.sizes.times,
        partial(run_command, [str(NELBO), "--help"]),
        partial(
            run_command,
            [str(NELBO), "score", str(bench.model), str(ten), "-o", str(ten.with_stem("scores"))],
        ),
        partial(first_job, home),
        partial(run_command, TYPER),
    )
    beside = '`python -c "import typer"`'
    yield line("`nelbo --help`", "s", "s", helped, typer, beside, Goal(greatest=2.0))
    for measure, runs, seconds in (
        ("`nelbo up` until the first job is accepted", accepted, 2.0),
        ("`nelbo score` of 10 rows", scored, 0.6),
    ):
        goal = Goal(greatest=seconds, of_ratio=False)
        yield line(measure, "s", "s", runs, typer, beside, goal)


def run_command(arguments: Sequence[str]) -> Run:
    """A command in a process of its own, with the CPU seconds of all that it started."""
    env = {name: text for name, text in os.environ.items() if not name.startswith("NELBO_")}
    began = time.perf_counter()
    process = subprocess.Popen(
        arguments, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{arguments} ended with status {process.returncode}"
    return Run({"s": seconds}, usage.ru_utime + usage.ru_stime)


def first_job(home: Path) -> Run:
    """`nelbo up` on a folder with a model, until it has accepted a job."""
    cpu = time.process_time()
    began = time.perf_counter()
    process = start_up(home, {})
    try:
        with connected(home, pause_s=0.01) as client:
            client.jobs.generate(MODEL, 1)
        seconds = time.perf_counter() - began
        return Run({"s": seconds}, cpu_s_of([process.pid]) + time.process_time() - cpu)
    finally:
        stop_up(process)

"""Faults that only happen inside of a process. Python loads this module by itself where this folder
is in PYTHONPATH.

A fault holds while a file of its name stands in the folder NELBO_FAULTS: SQLite then finds its disk
full, or its file read-only, by itself. NELBO_FAULTS_CLOCK sets the clock of Python wrong by so many
seconds. One row of jobs with a certain alpha kills whoever scores it.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event

FULL, READ_ONLY = "full", "read-only"
POISON_ALPHA, POISON_ROW = 0.0666, 5
NO_LIMIT = 2**32 - 2
"""Pages: SQLite's own."""


def holds(fault: str) -> bool:
    return Path(os.environ["NELBO_FAULTS"], fault).exists()


def limit(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA query_only = {int(holds(READ_ONLY))}")
        # Less than there are already means: not one more.
        connection.exec_driver_sql(f"PRAGMA max_page_count = {1 if holds(FULL) else NO_LIMIT}")


def poison() -> None:
    from worker import runner

    compute = runner.compute

    def deadly(process: Any, claim: Any, check: Any) -> Any:
        poisoned = claim.kind == "score" and claim.params["alpha"] == POISON_ALPHA
        if poisoned and claim.row_from <= POISON_ROW < claim.row_to:
            os.kill(os.getpid(), signal.SIGKILL)
        return compute(process, claim, check)

    runner.__dict__["compute"] = deadly


def set_clock(wrong_s: float) -> None:
    right = time.time
    time.time = lambda: right() + wrong_s


if "NELBO_FAULTS" in os.environ:
    event.listen(Engine, "begin", limit)
    set_clock(float(os.environ.get("NELBO_FAULTS_CLOCK", "0")))
    if {"worker.pool", "worker.solo", "tests.system.faults.zombie"} & set(sys.orig_argv):
        poison()

"""A real worker: `python -P -m worker.app` with its pool and its dispatcher, to be killed by
tests."""

import functools
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Row, select

from nelbo.processes import Lifeline
from nelbo.processes import command as command_line
from nelbo.store.session import Database
from nelbo.store.tables import ChunkRow
from tests.deadline import until
from tests.processes import alive, children, command, descendants
from tests.worker.stage import Stage

QUICK = {"NELBO_LEASE_S": "2", "NELBO_RENEW_S": "0.5", "NELBO_SWEEP_S": "0.5"}


@dataclass
class Host:
    """The worker's first process and all below it."""

    process: subprocess.Popen[bytes]
    log: Path

    def pids(self) -> set[int]:
        """The living processes of this worker."""
        return {self.process.pid} | descendants(self.process.pid)

    def pool(self) -> int:
        """The Celery main process."""
        return until(lambda: self.find("worker.pool"), "the pool's main process")

    def dispatcher(self) -> int:
        return until(lambda: self.find("worker.dispatcher"), "the dispatcher")

    def find(self, module: str) -> int:
        """The child of the first process that runs a module, 0 where there is none."""
        return next((pid for pid in children(self.process.pid) if module in command(pid)), 0)


@functools.cache
def lifeline() -> Lifeline:
    """Ends with the process of the tests, and what hangs on it does too, however the tests end."""
    return Lifeline()


def start_worker(stage: Stage, processes: int = 1, **environment: str) -> Host:
    """A worker on the stage's database, storage and broker, that somebody must end."""
    log = stage.folder / "worker.log"
    settings = {
        "NELBO_HOME": str(stage.settings.home),
        "NELBO_DATABASE_URL": stage.database_url,
        "NELBO_BROKER_URL": stage.broker_url,
        "NELBO_WORKER_PROCESSES": str(processes),
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            command_line(lifeline(), "worker.app"),
            pass_fds=[lifeline().reading],
            cwd=stage.folder,
            env=os.environ | settings | QUICK | environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    return Host(process, log)


@contextmanager
def running_worker(stage: Stage, processes: int = 1, **environment: str) -> Iterator[Host]:
    """A worker that gets SIGTERM at the end, and nothing of it may remain."""
    host = start_worker(stage, processes, **environment)
    try:
        yield host
    except BaseException:
        print(host.log.read_text())
        raise
    finally:
        below = host.pids()
        host.process.send_signal(signal.SIGTERM)
        host.process.wait(60)
        until(lambda: not any(map(alive, below)), f"processes {below} to end")


def chunks(database: Database, job_id: str) -> list[Row[tuple[str, int, str, int]]]:
    """State, attempt, worker and first row of the job's chunks."""
    statement = select(ChunkRow.state, ChunkRow.attempt, ChunkRow.worker, ChunkRow.row_from).where(
        ChunkRow.job_id == job_id
    )
    with database.read() as connection:
        return list(connection.execute(statement))


def computing(database: Database, job_id: str) -> int:
    """The process id of a worker that holds a chunk of the job, 0 where there is none."""
    return next(
        (
            int(chunk.worker.split(":")[1])
            for chunk in chunks(database, job_id)
            if chunk.state == "running"
        ),
        0,
    )

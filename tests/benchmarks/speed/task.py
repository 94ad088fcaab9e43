"""A Celery task that does nothing but to insert a row: what any job through a broker costs.

    python -m tests.benchmarks.speed.task BROKER DATABASE PROCESSES

runs its worker, a prefork pool.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from uuid import uuid4

from celery import Celery
from sqlalchemy import Column, Engine, MetaData, Table, Text, create_engine, event, insert, select

NAME = "speed.nothing"
PAUSE_S = 0.005
"""Seconds between two looks at the table of results."""
START_S = 60.0
RESULTS = Table("result", MetaData(), Column("id", Text, primary_key=True))


class Tasks:
    """The sender of tasks. Threads may share it."""

    def __init__(self, broker: str, database: str, clients: int) -> None:
        self.app = application(broker, clients)
        self.engine = open_database(database)

    def run(self) -> None:
        """Send a task and wait for its row."""
        task = str(uuid4())
        self.app.send_task(NAME, args=(task,))
        deadline = time.monotonic() + START_S
        statement = select(RESULTS.c.id).where(RESULTS.c.id == task)
        while True:
            with self.engine.connect() as connection:
                if connection.execute(statement).first():
                    return
            assert time.monotonic() < deadline, "the task had no result in time"
            time.sleep(PAUSE_S)


def application(broker: str, connections: int = 10) -> Celery:
    app = Celery("speed", broker=broker, set_as_current=False)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        broker_pool_limit=connections,
        broker_transport_options={"global_keyprefix": "speed:"},
        task_default_queue="speed",
        task_ignore_result=True,
        worker_hijack_root_logger=False,
    )
    return app


def open_database(url: str) -> Engine:
    engine = create_engine(url, pool_size=50, connect_args={"timeout": 30.0})
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()


@contextmanager
def running_tasks(
    broker: str, database: str, processes: int, clients: int
) -> Iterator[tuple[Tasks, int]]:
    """A sender of tasks and the process of their worker."""
    engine = open_database(database)
    RESULTS.metadata.create_all(engine)
    engine.dispose()
    command = [sys.executable, "-m", "tests.benchmarks.speed.task"]
    worker = subprocess.Popen(
        [*command, broker, database, str(processes)],
        env=os.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        tasks = Tasks(broker, database, clients)
        tasks.run()
        yield tasks, worker.pid
    finally:
        worker.terminate()
        worker.wait()


def main() -> None:
    broker, database, processes = sys.argv[1:]
    app = application(broker)

    @cache
    def engine_of(process: int, thread: int) -> Engine:
        return open_database(database)

    @app.task(name=NAME)  # type: ignore[untyped-decorator]
    def nothing(task: str) -> None:
        engine = engine_of(os.getpid(), threading.get_ident())
        with engine.begin() as connection:
            connection.execute(insert(RESULTS).values(id=task))

    app.worker_main(
        [
            "--quiet",
            "worker",
            "--pool=prefork",
            f"--concurrency={processes}",
            "--loglevel=ERROR",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
        ]
    )


if __name__ == "__main__":
    main()

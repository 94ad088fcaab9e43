"""A FastAPI route that reads one row with SQLAlchemy: what any look at a job costs.

python -m tests.benchmarks.speed.route DATABASE PORT
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import uvicorn
from fastapi import FastAPI, HTTPException
from sqlalchemy import create_engine, select

from nelbo.store.tables import JobRow
from tests.api.serving import free_port
from tests.deadline import until

HOST = "127.0.0.1"
JOBS = JobRow.__table__


@contextmanager
def running_route(database: str, job_id: str) -> Iterator[tuple[int, int]]:
    """The process and the port of the route, over the database of a service."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.speed.route", database, str(port)],
        env=os.environ,
    )
    try:
        until(lambda: _answers(f"http://{HOST}:{port}/v1/jobs/{job_id}"), "the route answers")
        yield server.pid, port
    finally:
        server.terminate()
        server.wait()


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url, trust_env=False).is_success
    except httpx2.TransportError:
        return False


def main() -> None:
    database, port = sys.argv[1:]
    engine = create_engine(database)
    app = FastAPI()

    @app.get("/v1/jobs/{job_id}")
    def job(job_id: str) -> dict[str, Any]:
        with engine.connect() as connection:
            row = connection.execute(select(JOBS).where(JOBS.c.id == job_id)).mappings().first()
        if row is None:
            raise HTTPException(404)
        return dict(row)

    # As in api.app, but for the connections, which are Nelbo's own.
    uvicorn.run(
        app,
        host=HOST,
        port=int(port),
        http="h11",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )


if __name__ == "__main__":
    main()

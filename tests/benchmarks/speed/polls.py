"""Looks at a job, `GET /v1/jobs/{id}`, beside a bare route."""

import asyncio
import time
from collections.abc import Iterator
from functools import partial
from urllib.parse import urlsplit

from nelbo.home import DATABASE
from tests.benchmarks.speed.bench import Bench
from tests.benchmarks.speed.route import HOST, running_route
from tests.benchmarks.speed.service import MODEL, started
from tests.benchmarks.speed.turns import Goal, Line, Run, cpu_s_of, in_turns, line, quantile

CLIENTS = (1, 50)
REQUESTS = 4_000
TRIAL_REQUESTS = 100
GOALS = {"requests/s": Goal(0.8), "p99": None}


def polls(bench: Bench) -> Iterator[Line]:
    requests = TRIAL_REQUESTS if bench.sizes.trial else REQUESTS
    with started(bench.folder / "polls") as service:
        service.client.models.push(bench.model, name=MODEL)
        job = service.client.jobs.score(MODEL, bench.few_rows()).wait()
        api = service.api_pid()
        port = urlsplit(service.client.url).port
        assert port is not None
        with running_route(f"sqlite:///{service.home / DATABASE}", job.id) as (peer, peer_port):
            for clients in CLIENTS:
                ours, theirs = in_turns(
                    bench.sizes.times,
                    partial(load, api, port, job.id, clients, requests),
                    partial(load, peer, peer_port, job.id, clients, requests),
                )
                who = "1 client" if clients == 1 else f"{clients} clients"
                for figure, goal in GOALS.items():
                    unit = "ms" if figure == "p99" else figure
                    measure = f"`GET /v1/jobs/{{id}}`, {who}: {figure}"
                    beside = "FastAPI route, one SQLAlchemy read"
                    yield line(measure, unit, figure, ours, theirs, beside, goal)


def load(pid: int, port: int, job_id: str, clients: int, requests: int) -> Run:
    """Requests of clients that each send the next one when the last one is answered."""
    cpu = cpu_s_of([pid]) + time.process_time()
    began = time.perf_counter()
    durations = asyncio.run(_all_requests(port, job_id, clients, requests))
    seconds = time.perf_counter() - began
    figures = {
        "requests/s": len(durations) / seconds,
        "p99": quantile(durations, 0.99) * 1e3,
    }
    return Run(figures, cpu_s_of([pid]) + time.process_time() - cpu)


async def _all_requests(port: int, job_id: str, clients: int, requests: int) -> list[float]:
    durations: list[float] = []
    each = requests // clients
    await asyncio.gather(*(_client(port, job_id, each, durations) for _ in range(clients)))
    return durations


async def _client(port: int, job_id: str, requests: int, durations: list[float]) -> None:
    """The least that a client can do: a client library would cost more than the route."""
    request = f"GET /v1/jobs/{job_id} HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n".encode()
    reader, writer = await asyncio.open_connection(HOST, port)
    for _ in range(requests):
        began = time.perf_counter()
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 200"), head
        length = int(head.partition(b"content-length:")[2].split(None, 1)[0])
        await reader.readexactly(length)
        durations.append(time.perf_counter() - began)
    writer.close()
    await writer.wait_closed()

"""Small jobs, of one client and of many at once, beside a Celery task that does nothing."""

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from nelbo.client import Client
from tests.benchmarks.speed.bench import Bench
from tests.benchmarks.speed.service import MODEL, Service, started
from tests.benchmarks.speed.task import running_tasks
from tests.benchmarks.speed.turns import Goal, Line, Run, Side, cpu_s_of, in_turns, line, quantile
from tests.servers import running_valkey

ROWS = 100
MANY = 20
JOBS = {1: 100, MANY: 400}
"""Number of jobs in a run, by the number of clients."""
TRIAL_JOBS = 20
DOWNLOADS = {"NELBO_MAX_DOWNLOADS": str(MANY), "NELBO_MAX_DOWNLOADS_OF_OWNER": str(MANY)}
"""All clients read a result at once, which by default only 4 clients of one owner may."""
FIGURES = {
    "p50": ("ms", Goal(greatest=2.0)),
    "p99": ("ms", Goal(greatest=2.0)),
    "jobs/s": ("jobs/s", None),
}


def small(bench: Bench) -> Iterator[Line]:
    results = f"sqlite:///{bench.folder}/tasks.db"
    with running_valkey() as valkey:
        env = {"NELBO_BROKER_URL": valkey.url, **DOWNLOADS}
        with (
            started(bench.folder / "small", (valkey.pid,), env) as service,
            running_tasks(valkey.url, results, bench.processes, MANY) as (tasks, worker),
        ):
            service.client.models.push(bench.model, name=MODEL)
            rows = bench.few_rows(ROWS)
            for clients, jobs in JOBS.items():
                jobs = TRIAL_JOBS if bench.sizes.trial else jobs
                yield from beside_tasks(
                    bench.sizes.times,
                    clients,
                    partial(service_run, service, rows, clients, jobs, results=False),
                    partial(service_run, service, rows, clients, jobs, results=True),
                    partial(task_run, tasks.run, (worker, valkey.pid), clients, jobs),
                )


def beside_tasks(
    times: int, clients: int, to_success: Side, to_results: Side, tasks: Side
) -> Iterator[Line]:
    done, read, bare = in_turns(times, to_success, to_results, tasks)
    who = "1 client" if clients == 1 else f"{clients} clients at once"
    beside = "Celery task that inserts a row"
    for until, ours in (("result read", read), ("success", done)):
        for figure, (unit, goal) in FIGURES.items():
            if clients > 1 and figure == "jobs/s" and until == "success":
                goal = Goal(60.0, of_ratio=False)
            measure = f"{ROWS}-row jobs, {who}, until {until}: {figure}"
            yield line(measure, unit, figure, ours, bare, beside, goal)


def service_run(
    service: Service, rows: list[dict[str, Any]], clients: int, jobs: int, results: bool
) -> Run:
    """Each thread has a client of its own, as each user has."""
    connections = [Client(service.client.url) for _ in range(clients)]

    def job(client: int) -> None:
        handle = connections[client].jobs.score(MODEL, rows).wait()
        if results:
            assert sum(batch.num_rows for batch in handle.results().batches()) == len(rows)

    try:
        job(0)
        durations: list[float] = []
        return service.measured(
            lambda: durations.extend(all_durations(job, clients, jobs)),
            lambda seconds: figures_of(durations, seconds),
        )
    finally:
        for connection in connections:
            connection.close()


def task_run(task: Callable[[], None], pids: tuple[int, ...], clients: int, jobs: int) -> Run:
    cpu = cpu_s_of(pids) + time.process_time()
    began = time.perf_counter()
    durations = all_durations(lambda _: task(), clients, jobs)
    seconds = time.perf_counter() - began
    return Run(figures_of(durations, seconds), cpu_s_of(pids) + time.process_time() - cpu)


def all_durations(job: Callable[[int], None], clients: int, jobs: int) -> list[float]:
    """The seconds of each job. Each client, a thread, submits one after the other."""
    durations: list[float] = []

    def work(client: int) -> None:
        for _ in range(jobs // clients):
            began = time.perf_counter()
            job(client)
            durations.append(time.perf_counter() - began)

    threads = [threading.Thread(target=work, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(durations) == jobs // clients * clients, "a job failed; its error is above"
    return durations


def figures_of(durations: list[float], seconds: float) -> dict[str, float]:
    return {
        "p50": quantile(durations, 0.5) * 1e3,
        "p99": quantile(durations, 0.99) * 1e3,
        "jobs/s": len(durations) / seconds,
    }

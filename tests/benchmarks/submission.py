"""What a broker costs a submission over HTTP: nothing, whether it is up, frozen or absent.

    python -m tests.benchmarks.submission [--requests 500] [--database sqlite|postgresql|both]

Three services as they are deployed stand on one database, one with a broker that answers, one with
a broker that is stopped (SIGSTOP), one whose broker does not exist. They are asked in turn, one
POST /v1/jobs each, so that the machine's other work falls on all alike. Prints p50 and p99 of the
time until the answer, and their ratios to those with the broker up.
"""

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2

from nelbo.store.session import connect
from tests.api.serving import process
from tests.api.stage import add_model
from tests.servers import postgresql_commands, running_postgres, running_valkey

JOB = {"kind": "generate", "model": "adult", "n": 1_000}
WARM_UP = 20
ENDLESS = {"NELBO_MAX_UNFINISHED_JOBS": str(10**9), "NELBO_MAX_QUEUED_ROWS": str(10**15)}


def main() -> None:
    parser = argparse.ArgumentParser(description=" ".join(__doc__.partition("\n\n")[0].split()))
    parser.add_argument(
        "--requests", type=int, default=500, help="to each service (default: %(default)s)"
    )
    parser.add_argument("--database", choices=["sqlite", "postgresql", "both"], default="both")
    options = parser.parse_args()
    for database in ("sqlite", "postgresql") if options.database == "both" else (options.database,):
        with (
            tempfile.TemporaryDirectory(prefix="nelbo-submission-") as folder,
            url_of(database, Path(folder)) as url,
        ):
            report(database, measure(Path(folder), url, options.requests))


@contextmanager
def url_of(database: str, folder: Path) -> Iterator[str]:
    if database == "sqlite":
        yield f"sqlite:///{folder / 'nelbo.db'}"
        return
    commands = postgresql_commands()
    assert commands is not None, "there is no PostgreSQL that this user can run"
    with running_postgres(commands) as server:
        server.execute("CREATE DATABASE submission")
        yield server.url("submission")


def measure(folder: Path, url: str, requests: int) -> dict[str, list[float]]:
    """Seconds of each submission, by what the broker does."""
    opened = connect(url)
    opened.migrate()
    add_model(opened)
    opened.dispose()
    with ExitStack() as stack:
        up, frozen = stack.enter_context(running_valkey()), stack.enter_context(running_valkey())
        brokers = {
            "up": up.url,
            "frozen": frozen.url,
            "absent": f"redis+socket://{folder}/no-broker",
        }
        clients = {
            name: stack.enter_context(client(folder / name, url, broker))
            for name, broker in brokers.items()
        }
        with frozen.client() as broker:
            pid = int(broker.info("server")["process_id"])
        os.kill(pid, signal.SIGSTOP)
        stack.callback(os.kill, pid, signal.SIGCONT)
        seconds: dict[str, list[float]] = {name: [] for name in clients}
        for _ in range(requests + WARM_UP):
            for name, service in clients.items():
                seconds[name].append(submission_s(service))
    return {name: times[WARM_UP:] for name, times in seconds.items()}


@contextmanager
def client(home: Path, database: str, broker: str) -> Iterator[httpx2.Client]:
    """To a service of its own with this broker."""
    home.mkdir()
    env = {"NELBO_DATABASE_URL": database, "NELBO_BROKER_URL": broker, **ENDLESS}
    with (
        process(home, **env) as (url, _),
        httpx2.Client(base_url=url, trust_env=False, timeout=60.0) as service,
    ):
        yield service


def submission_s(service: httpx2.Client) -> float:
    began = time.perf_counter()
    response = service.post("/v1/jobs", json=JOB)
    seconds = time.perf_counter() - began
    assert response.status_code == 202, response.text
    return seconds


def report(database: str, seconds: Mapping[str, Sequence[float]]) -> None:
    p50_up, p99_up = (percentile(seconds["up"], part) for part in (0.5, 0.99))
    for broker, times in seconds.items():
        p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
        print(
            f"{database:10}  broker {broker:6}  p50 {p50 * 1e3:6.1f} ms (x {p50 / p50_up:.2f})"
            f"  p99 {p99 * 1e3:6.1f} ms (x {p99 / p99_up:.2f})  max {max(times) * 1e3:6.1f} ms  n ="
            f" {len(times)}",
            flush=True,
        )


def percentile(seconds: Sequence[float], part: float) -> float:
    found = sorted(seconds)
    return found[min(len(found) - 1, int(len(found) * part))]


if __name__ == "__main__":
    main()

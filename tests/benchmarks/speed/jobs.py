"""Large jobs of a service, beside bare loops; and how their time grows with the number of rows."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from nelbo.client import JobHandle
from nelbo.home import DATABASE
from nelbo.views import File
from tests.benchmarks.speed.bench import Bench
from tests.benchmarks.speed.loops import bare_loops
from tests.benchmarks.speed.service import MODEL, Service, started
from tests.benchmarks.speed.turns import Goal, Line, Run, Spread, in_turns, line, slope
from tests.servers import postgresql_commands, running_postgres, running_valkey

JOB_S = 3_600.0
MOST_MIB = 600
MEMORY = "peak memory of the largest process"
SYNCED = {"fsync": "on", "full_page_writes": "on"}
"""As a server is deployed; that of the tests never waits for the disk."""


def score(bench: Bench) -> Iterator[Line]:
    """Score jobs, without and with the costs of each cell."""
    rows = bench.sizes.rows
    table = bench.rows_file(rows)
    with (
        started(bench.folder / "score") as service,
        bare_loops(bench.processes, bench.model, rows, table) as loops,
    ):
        file = prepare(service, bench, table)
        plain, explained, bare = in_turns(
            bench.sizes.times,
            lambda: score_job(service, file, rows),
            lambda: score_job(service, file, rows, explain=True),
            loops,
        )
        peak = service.peak_mib()
    of = f"score job, {rows:,} rows, `nelbo up`"
    beside = f"{bench.processes} bare ONNX Runtime loops"
    yield line(of, "rows/s", "rows/s", plain, bare, beside, Goal(0.85))
    yield line(f"{of}, `explain`", "rows/s", "rows/s", explained, bare, beside, Goal(0.6))
    memory = Goal(greatest=MOST_MIB, of_ratio=False)
    yield Line(f"{of}: {MEMORY}", "MiB", [peak], (), goal=memory)


def postgresql(bench: Bench) -> Iterator[Line]:
    """The same on PostgreSQL and Valkey."""
    rows = bench.sizes.rows
    table = bench.rows_file(rows)
    with (
        on_servers(bench.folder) as service,
        bare_loops(bench.processes, bench.model, rows, table) as loops,
    ):
        file = prepare(service, bench, table)
        ours, bare = in_turns(bench.sizes.times, lambda: score_job(service, file, rows), loops)
    of = f"score job, {rows:,} rows, PostgreSQL and Valkey"
    beside = f"{bench.processes} bare ONNX Runtime loops"
    yield line(of, "rows/s", "rows/s", ours, bare, beside, Goal(0.8))


def generate(bench: Bench) -> Iterator[Line]:
    """Generate jobs."""
    rows = bench.sizes.rows
    with (
        started(bench.folder / "generate") as service,
        bare_loops(bench.processes, bench.model, rows) as loops,
    ):
        service.client.models.push(bench.model, name=MODEL)
        ours, bare = in_turns(bench.sizes.times, lambda: generate_job(service, rows), loops)
    beside = f"{bench.processes} bare loops of `Engine.generate`"
    of = f"generate job, {rows:,} rows, `nelbo up`"
    yield line(of, "rows/s", "rows/s", ours, bare, beside, Goal(0.85))


@dataclass(frozen=True)
class GrownJob:
    """What a job of some number of rows took."""

    seconds: float
    cpu_s: float
    peak_mib: float
    row_bytes: float


def growth(bench: Bench) -> Iterator[Line]:
    """Seconds, memory and database of score jobs of more and more rows."""
    sizes = [bench.sizes.rows // 10, bench.sizes.rows]
    sizes += [bench.sizes.rows * 10] if bench.sizes.long else []
    with started(bench.folder / "growth") as service:
        service.client.models.push(bench.model, name=MODEL)
        files = {rows: uploaded(service, bench.rows_file(rows)) for rows in sizes}
        score_job(service, files[sizes[0]], sizes[0])  # so that the first one is no slower
        turns = [
            [grown_job(service, file, rows) for rows, file in files.items()]
            for _ in range(bench.sizes.times)
        ]
    yield Line(
        f"score jobs, {sizes[0]:,} to {sizes[-1]:,} rows: slope of log seconds on log rows",
        "",
        [slope(sizes, [job.seconds for job in turn]) for turn in turns],
        [sum(job.cpu_s for job in turn) for turn in turns],
        goal=Goal(0.95, 1.05, of_ratio=False),
        note="seconds: "
        + ", ".join(
            str(Spread.of(job.seconds for job in jobs)) for jobs in zip(*turns, strict=True)
        ),
    )
    yield from (
        Line(
            f"score job, {sizes[-1]:,} rows: {measure}",
            unit,
            [figure(turn[-1]) for turn in turns],
            (),
            f"{sizes[0]:,} rows",
            [figure(turn[0]) for turn in turns],
            goal=Goal(greatest=1.1),
        )
        for measure, unit, figure in (
            (MEMORY, "MiB", attrgetter("peak_mib")),
            ("database per row", "bytes", attrgetter("row_bytes")),
        )
    )


def grown_job(service: Service, file: File, rows: int) -> GrownJob:
    pages = database_bytes(service)
    service.forget_peaks()
    run = score_job(service, file, rows)
    return GrownJob(
        seconds=rows / run.figures["rows/s"],
        cpu_s=run.cpu_s,
        peak_mib=service.peak_mib(),
        row_bytes=(database_bytes(service) - pages) / rows,
    )


# Jobs


def prepare(service: Service, bench: Bench, table: Path) -> File:
    """Push the model, upload a table and score a few rows, so that the first job is no slower."""
    service.client.models.push(bench.model, name=MODEL)
    service.client.jobs.score(MODEL, bench.few_rows()).wait(timeout_s=JOB_S)
    return uploaded(service, table)


def uploaded(service: Service, table: Path) -> File:
    return service.client.files.wait(service.client.files.upload(table))


def score_job(service: Service, file: File, rows: int, explain: bool = False) -> Run:
    jobs = service.client.jobs
    return _job(service, rows, lambda: jobs.score(MODEL, file, explain=explain))


def generate_job(service: Service, rows: int) -> Run:
    return _job(service, rows, lambda: service.client.jobs.generate(MODEL, rows, seed=1))


def _job(service: Service, rows: int, submit: Callable[[], JobHandle]) -> Run:
    """A job from its submission to its success."""

    def work() -> None:
        progress = submit().wait(timeout_s=JOB_S).view.progress
        assert (progress.rows_done, progress.rows_failed) == (rows, 0), progress

    return service.measured(work, lambda seconds: {"rows/s": rows / seconds})


@contextmanager
def on_servers(folder: Path) -> Iterator[Service]:
    """A service on a PostgreSQL and a Valkey of their own."""
    commands = postgresql_commands()
    assert commands is not None, "there is no PostgreSQL that this user can run"
    with running_valkey() as valkey, running_postgres(commands, SYNCED) as server:
        server.execute("CREATE DATABASE speed")
        env = {"NELBO_DATABASE_URL": server.url("speed"), "NELBO_BROKER_URL": valkey.url}
        with started(folder / "postgresql", (server.pid, valkey.pid), env) as service:
            yield service


def database_bytes(service: Service) -> int:
    """Bytes of the pages of the service's SQLite database."""
    with closing(sqlite3.connect(service.home / DATABASE)) as database:
        [[pages]] = database.execute("PRAGMA page_count")
        [[size]] = database.execute("PRAGMA page_size")
    return int(pages) * int(size)

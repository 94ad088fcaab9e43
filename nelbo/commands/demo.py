"""`nelbo demo`: the whole product on a real table, through `nelbo.Client` as for any user."""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

import nelbo
from nelbo import privacy
from nelbo.client import Client, JobHandle, find_url
from nelbo.commands import explain, local
from nelbo.commands.console import Console, of_job
from nelbo.commands.service import DOING
from nelbo.commands.training import run as train
from nelbo.errors import Unavailable
from nelbo.explanation import explained
from nelbo.home import LOGS, running_up
from nelbo.processes import Child, Lifeline, end_all
from nelbo.settings import Settings

if TYPE_CHECKING:
    from nelbo.engine import Engine

TABLES = Path(nelbo.__file__).with_name("data")
MODEL = "adult"
SEED = 1
GENERATED = 10_000
"""Number of rows to generate."""
AUGMENTED = 200
"""Number of rows to augment."""
PER_ROW = 5
"""Number of copies of each augmented row."""
ANOMALIES = 5
"""Number of rows to explain."""
CELLS = 3
"""Number of cells to show of each of these rows."""
START_S = 90.0
STOP_S = 40.0
MEASURES = {
    "shape_error": "columns off by, mean, %",
    "pair_error": "pairs of columns off by, mean, %",
    "detect_auc": "told from real rows (AUC, 0.5 is a coin)",
}
QUERY = """SELECT row, round(surprise, 1) AS surprise, round(nelbo, 1) AS nelbo,
    round(p_value, 5) AS p_value
FROM score WHERE job_id = '{job}' AND anomaly ORDER BY surprise DESC LIMIT 3"""


def show(settings: Settings, port: int, console: Console) -> None:
    """Run the whole demo, in ./demo unless NELBO_HOME is set.

    What it starts has ended when it returns, also after ^C.
    """
    home = (settings.home if "NELBO_HOME" in os.environ else Path("demo")).resolve()
    settings = settings.model_copy(update={"home": home, "url": ""})
    trained_on = TABLES / "adult-train.parquet"
    held_out = TABLES / "adult-test.parquet"
    began = time.monotonic()
    console.say(f"1. starting API, worker, broker and database in {home}")
    with _service(settings, port) as url, Client(url, settings=settings) as client:
        rows = pq.read_metadata(trained_on).num_rows
        console.say(f"   ready at {url}\n2. training on {rows:,} rows of UCI Adult")
        train(trained_on, MODEL, home / MODEL, SEED)
        version = client.models.push(home / MODEL, name=MODEL)
        console.say(f"   registered as {MODEL}@{version.version}\n3. three jobs over HTTP")
        jobs = _jobs(client, held_out, home, console)

        engine = local.load(home / MODEL, "demo")
        _show_anomalies(jobs["scores"], pq.read_table(held_out), engine, console)
        _show_quality(client, console)
        _show_files(settings, jobs, console)
    seconds = time.monotonic() - began
    console.say(
        f"\nstopped what was started; {seconds:.0f} s in all. Next: `nelbo up` and `nelbo --help`"
    )


@contextmanager
def _service(settings: Settings, port: int) -> Iterator[str]:
    """The address of a `nelbo up` on the data folder: a running one, or one for this demo."""
    running = find_url(settings)
    if running is not None:
        yield running
        return

    privacy.prepare(settings)
    log = settings.home / LOGS / "up.log"
    log.parent.mkdir(exist_ok=True)
    up = Child(
        "up",
        "nelbo.cli",
        ["up", "--port", str(port)],
        {"NELBO_HOME": str(settings.home), "NELBO_URL": ""},
        log=log,
    )
    lifeline = Lifeline()
    try:
        up.start(lifeline)
        yield _address(settings, up)
    finally:
        end_all([up], STOP_S, threading.Event())
        lifeline.close()


def _address(settings: Settings, up: Child) -> str:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if up.process is None or up.process.poll() is not None:
            lines = up.log.read_text(errors="replace").splitlines() if up.log else []
            reason = f": {lines[-1]}" if lines else ""
            raise Unavailable(f"`nelbo up` did not start{reason}")
        running = running_up(settings.home)
        if running is not None and running.pid == up.process.pid:
            return running.url
        time.sleep(0.1)
    raise Unavailable(f"`nelbo up` was not ready within {START_S:.0f} s; see {up.log}")


def _jobs(client: Client, held_out: Path, home: Path, console: Console) -> dict[str, JobHandle]:
    """Run the three jobs. The keys are the names of the files with their results."""
    with console.progress("   uploading the held-out rows", "bytes") as tell:
        file = client.files.wait(client.files.upload(held_out, progress=tell))
    few = pq.read_table(held_out).slice(0, AUGMENTED)
    submissions: dict[str, Callable[[], JobHandle]] = {
        "scores": lambda: client.jobs.score(MODEL, file, explain=True),
        "generated": lambda: client.jobs.generate(MODEL, GENERATED, seed=SEED),
        "augmented": lambda: client.jobs.augment(MODEL, few, per_row=PER_ROW, seed=SEED),
    }
    return {
        name: _finished(submit, home / f"{name}.parquet", console)
        for name, submit in submissions.items()
    }


def _finished(submit: Callable[[], JobHandle], results: Path, console: Console) -> JobHandle:
    job = submit()
    with console.progress(f"   {DOING[job.view.kind]}") as tell:
        job.wait(progress=of_job(tell))
    job.results().save(results)
    return job


def _show_anomalies(job: JobHandle, table: pa.Table, engine: "Engine", console: Console) -> None:
    summary = job.view.summary or {}
    print(
        f"\nThe five least likely of {table.num_rows:,} held-out rows"
        f" ({summary.get('anomalies', 0):,} have a p-value <= 0.01):"
    )
    anomalies = [
        (anomaly, table.slice(anomaly.row, 1).combine_chunks().to_batches()[0])
        for anomaly in job.anomalies(ANOMALIES)
    ]
    explain.show(console, explained(engine, anomalies, (), CELLS, SEED))


def _show_quality(client: Client, console: Console) -> None:
    metrics = client.models.version(MODEL, "champion").metrics
    print(
        "\nSynthetic rows beside fresh real ones, both held against the training rows (as close as"
        " the right column is good):"
    )
    console.table(
        ["", "synthetic", "real"],
        [
            [words, _figure(metrics.get(name)), _figure(metrics.get(f"{name}_floor"))]
            for name, words in MEASURES.items()
        ],
    )


def _figure(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f}"


def _show_files(settings: Settings, jobs: dict[str, JobHandle], console: Console) -> None:
    results = ", ".join(f"{name}.parquet" for name in jobs)
    print(f"\nFiles in {settings.home}:")
    print(f"  {results}; {MODEL}/ is the artifact, {MODEL}/report.html shows its quality")
    file = settings.sqlite_file
    query = QUERY.format(job=jobs["scores"].id)
    if file is None:
        print(f"In the database, try:\n{query}")
        return
    print(f"  the database is {file}; try, with sqlite3 or any other client,\n\n{query}\n")
    with closing(sqlite3.connect(file)) as database:
        rows = database.execute(query)
        console.table([column[0] for column in rows.description], [map(str, row) for row in rows])

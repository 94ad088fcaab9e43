"""jobs and results: list, show, cancel and retry jobs, and fetch their results."""

import tempfile
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from nelbo.client import Client, JobHandle
from nelbo.commands import export, options, service
from nelbo.commands.console import Console, of_job, when
from nelbo.commands.row_errors import RowErrors
from nelbo.commands.rows import least_likely
from nelbo.commands.table_files import output_file
from nelbo.settings import read_settings
from nelbo.views import Job

app = typer.Typer(help="List (the default), show, cancel or retry jobs.")
Id = Annotated[str, typer.Argument(metavar="JOB", help="id of a job", show_default=False)]
SHOWN = 10


@app.callback(invoke_without_command=True)
def jobs(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_jobs()


@app.command("list")
def list_jobs(
    state: Annotated[
        str | None,
        typer.Option(
            metavar="STATE",
            help="only jobs in this state: queued, running, succeeded, failed or cancelled",
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="KIND", help="only this kind: score, generate, augment, reconstruct or clean"
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, help="number of jobs, the newest first")
    ] = 20,
    as_json: options.Json = False,
) -> None:
    """List jobs, the newest first.

    \b
    Examples:
      nelbo jobs list
      nelbo jobs list --state failed --json
    """
    with Client(settings=read_settings()) as client:
        newest = islice(client.jobs.list(state=state, kind=kind), limit)
        views = [job.view for job in newest]

    console = Console(as_json)
    if as_json:
        console.result({"jobs": [view.model_dump() for view in views]})
        return
    console.table(
        ["job", "kind", "model", "state", "done", "rows", "errors", "created (UTC)"],
        [
            [
                view.id,
                view.kind,
                view.model,
                view.state,
                view.progress.rows_done,
                view.progress.rows,
                view.progress.rows_failed,
                when(view.created_at),
            ]
            for view in views
        ],
    )


@app.command()
def show(job: Id, as_json: options.Json = False) -> None:
    """Show a job, and the least likely rows of a score job.

    \b
    Example:
      nelbo jobs show 0198c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11
    """
    with Client(settings=read_settings()) as client:
        handle = client.jobs.get(job)
        view = handle.view
        scored = view.kind == "score" and view.state == "succeeded"
        rows = handle.anomalies(SHOWN) if scored else []

    console = Console(as_json)
    if as_json:
        console.result(view.model_dump() | {"least_likely": [row.model_dump() for row in rows]})
        return
    console.table(["", ""], _facts(view))
    if rows:
        print("\nthe least likely rows:")
    for row in rows:
        print(f"  {least_likely(row)}")


@app.command()
def cancel(job: Id, as_json: options.Json = False) -> None:
    """Cancel a job.

    Work that is running stops after its current batch of rows.

    \b
    Example:
      nelbo jobs cancel 0198c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11
    """
    with Client(settings=read_settings()) as client:
        _report_state(client.jobs.cancel(job), as_json)


@app.command()
def retry(job: Id, as_json: options.Json = False) -> None:
    """Queue a failed or cancelled job again.

    Rows that are finished are not computed again.

    \b
    Example:
      nelbo jobs retry 0198c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11
    """
    with Client(settings=read_settings()) as client:
        _report_state(client.jobs.retry(job), as_json)


def results(
    job: Id,
    output: options.Output = "-",
    to: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="write a table into this database, instead of a file",
            show_default=False,
        ),
    ] = None,
    table: Annotated[
        str, typer.Option(metavar="NAME", help="name of the table for --to; it must not exist yet")
    ] = "nelbo_results",
    errors: options.Errors = None,
    output_format: options.OutputFormat = None,
    safe_csv: options.SafeCsv = False,
    as_json: options.Json = False,
) -> None:
    """Fetch the results of a job.

    The command waits until the job has finished.

    \b
    Examples:
      nelbo results 0198c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11 -o scores.parquet --errors bad.jsonl
      nelbo results 0198c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11 | head
      nelbo results 0198c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11 --to sqlite:///my.db --table scores
    """
    console = Console(as_json)
    target = None if to else output_file(output, output_format, as_json, safe_csv)
    with Client(settings=read_settings()) as client, RowErrors(errors, output) as faults:
        handle = client.jobs.get(job)
        if not handle.finished:
            with console.progress(f"job {handle.id}") as tell:
                handle.wait(progress=of_job(tell))

        if handle.view.progress.rows_failed:
            faults.add(handle.errors())
        rows = handle.view.progress.rows - handle.view.progress.rows_failed
        if rows and target is not None:
            service.download(handle, target, console)
        elif rows and to is not None:
            written = _export(handle, to, table, console)
            console.say(f"{written:,} rows in the table {table}")

    faults.check(rows)
    for line in faults.words():
        console.say(line)
    destination = {"table": table} if to else {"output": output}
    console.result({"job": handle.id, "rows_failed": faults.count} | destination)


def _export(job: JobHandle, url: str, table: str, console: Console) -> int:
    """Write the results into a database, and return their number of rows.

    All rows are fetched first, so that a lost connection leaves no transaction half done.
    """
    with tempfile.TemporaryDirectory(prefix="nelbo-") as folder:
        with console.waiting("fetching the results"):
            copy = job.results("arrow").save(Path(folder) / "results.arrows")
        with console.progress(f"writing the table {table}") as tell:
            return export.export(copy, url, table, tell)


def _report_state(job: JobHandle, as_json: bool) -> None:
    console = Console(as_json)
    stopping = job.view.cancel_requested and not job.finished
    console.say(f"job {job.id} is {job.state}{' and will stop' if stopping else ''}")
    console.result(job.view.model_dump())


def _facts(view: Job) -> list[tuple[str, Any]]:
    progress = view.progress
    facts = [
        ("job", view.id),
        ("kind", view.kind),
        ("model", view.model),
        ("state", view.state),
        (
            "rows",
            f"{progress.rows_done:,} of {progress.rows:,} done, {progress.rows_failed:,} errors",
        ),
        ("created (UTC)", when(view.created_at)),
        ("started (UTC)", when(view.started_at)),
        ("finished (UTC)", when(view.finished_at)),
        ("problem", view.problem),
        ("threshold", view.threshold),
        ("anomalies", (view.summary or {}).get("anomalies")),
        *((name, str(value)) for name, value in view.params.items()),
    ]
    return [(name, value) for name, value in facts if value not in (None, "")]

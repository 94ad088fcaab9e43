"""jobs: list, show, cancel, retry; and their results."""

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from nelbo.client import Client, JobHandle
from nelbo.commands import export, options, service
from nelbo.commands.console import Console, of_job, when
from nelbo.commands.faults import Faults
from nelbo.commands.rows import least_likely
from nelbo.commands.tables import out
from nelbo.settings import read_settings
from nelbo.views import Job

app = typer.Typer(help="The jobs of a service: list (also without a word), show, cancel, retry.")
Id = Annotated[str, typer.Argument(metavar="JOB", help="id of a job", show_default=False)]
SHOWN = 10


@app.callback(invoke_without_command=True)
def jobs(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_jobs()


@app.command("list")
def list_jobs(
    state: Annotated[
        str | None, typer.Option(metavar="STATE", help="only those queued, running, succeeded ...")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="only score, generate, augment or reconstruct"),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="the newest N")] = 20,
    as_json: options.Json = False,
) -> None:
    """List jobs, the newest first.

    \b
    Examples:
      nelbo jobs list
      nelbo jobs list --state failed --json
    """
    with Client(settings=read_settings()) as client:
        found = [
            job.view
            for job, _ in zip(client.jobs.list(state=state, kind=kind), range(limit), strict=False)
        ]
    console = Console(as_json)
    if as_json:
        console.result({"jobs": [view.model_dump() for view in found]})
        return
    console.table(
        ["job", "kind", "model", "state", "done", "rows", "errors", "made (UTC)"],
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
            for view in found
        ],
    )


@app.command()
def show(job: Id, as_json: options.Json = False) -> None:
    """Show a job; of a score job that has succeeded also the least likely rows.

    \b
    Example:
      nelbo jobs show 0198c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11
    """
    with Client(settings=read_settings()) as client:
        found = client.jobs.get(job)
        top = (
            found.anomalies(SHOWN)
            if found.view.kind == "score" and found.state == "succeeded"
            else []
        )
    console = Console(as_json)
    if as_json:
        console.result(
            found.view.model_dump() | {"least_likely": [row.model_dump() for row in top]}
        )
        return
    console.table(["", ""], _facts(found.view))
    if top:
        print("\nthe least likely rows:")
    for row in top:
        print(f"  {least_likely(row)}")


@app.command()
def cancel(job: Id, as_json: options.Json = False) -> None:
    """Ask a job to stop.

    \b
    Example:
      nelbo jobs cancel 0198c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11
    """
    with Client(settings=read_settings()) as client:
        _settled(client.jobs.cancel(job), as_json)


@app.command()
def retry(job: Id, as_json: options.Json = False) -> None:
    """Queue a failed or cancelled job again; what is done stays done.

    \b
    Example:
      nelbo jobs retry 0198c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11
    """
    with Client(settings=read_settings()) as client:
        _settled(client.jobs.retry(job), as_json)


def results(
    job: Id,
    output: options.Output = "-",
    to: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="write a typed table into this database instead", show_default=False
        ),
    ] = None,
    table: Annotated[
        str, typer.Option(metavar="NAME", help="name of that table, a new one")
    ] = "nelbo_results",
    errors: options.Errors = None,
    output_format: options.OutputFormat = None,
    safe_csv: options.SafeCsv = False,
    as_json: options.Json = False,
) -> None:
    """Fetch what a job made; waits for a job that still runs.

    \b
    Examples:
      nelbo results 0198c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11 -o scores.parquet --errors bad.jsonl
      nelbo results 0198c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11 | head
      nelbo results 0198c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11 --to postgresql://me@localhost/mine --table
      scores
    """
    console = Console(as_json)
    target = None if to else out(output, output_format, as_json, safe_csv)
    with Client(settings=read_settings()) as client, Faults(errors, output) as faults:
        found = client.jobs.get(job)
        if not found.finished:
            with console.progress(f"job {found.id}") as tell:
                found.wait(progress=of_job(tell))
        if found.view.progress.rows_failed:
            faults.add(found.errors())
        rows = found.view.progress.rows - found.view.progress.rows_failed
        if rows and target is not None:
            service.download(found, target, console)
        elif rows:
            console.say(f"{_exported(found, to or '', table, console):,} rows in the table {table}")
    faults.check(rows)
    for line in faults.words():
        console.say(line)
    where = {"table": table} if to else {"output": output}
    console.result({"job": found.id, "rows_failed": faults.count} | where)


def _exported(job: JobHandle, url: str, table: str, console: Console) -> int:
    """Fetch all rows first, so that a connection that breaks leaves no half of a table's
    transaction open."""
    with tempfile.TemporaryDirectory(prefix="nelbo-") as folder:
        with console.waiting("fetching the results"):
            copy = job.results("arrow").save(Path(folder) / "results.arrows")
        with console.progress(f"writing the table {table}") as tell:
            return export.export(copy, url, table, tell)


def _settled(job: JobHandle, as_json: bool) -> None:
    console = Console(as_json)
    asked = ", asked to stop" if job.view.cancel_requested and not job.finished else ""
    console.say(f"job {job.id} is {job.state}{asked}")
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
            f"{progress.rows_done:,} of {progress.rows:,} done, {progress.rows_failed:,} of them"
            " errors",
        ),
        ("made (UTC)", when(view.created_at)),
        ("started (UTC)", when(view.started_at)),
        ("finished (UTC)", when(view.finished_at)),
        ("problem", view.problem),
        ("threshold", view.threshold),
        ("anomalies", (view.summary or {}).get("anomalies")),
        *((name, str(value)) for name, value in view.params.items()),
    ]
    return [(name, value) for name, value in facts if value not in (None, "")]

"""Work on a service: upload a table, submit a job, wait for it, download the results."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nelbo.client import Client, JobHandle, Request
from nelbo.commands.console import Console, of_job
from nelbo.commands.table_files import OutputFile, TableFile
from nelbo.encoding import check_columns
from nelbo.errors import NelboError
from nelbo.jobs import ExplainRequest
from nelbo.views import File, VersionDetails

DOING = {
    "score": "scoring",
    "generate": "generating",
    "augment": "augmenting",
    "reconstruct": "reconstructing",
    "explain": "explaining rows",
}


def upload(client: Client, table: TableFile, console: Console) -> File:
    """Upload a table, and wait until the service has read it.

    Raises InvalidInput with the reason if the table cannot be used.
    """
    with table.on_disk() as path:
        with console.progress(f"uploading {table.name}", "bytes") as tell:
            name = path.name if table.file == "-" else f"{Path(table.file).stem}{path.suffix}"
            upload = client.files.upload(path, name=name, progress=tell, csv=table.csv)
        with console.waiting(f"reading {table.name}"):
            file = client.files.wait(upload)
    # Notices about columns belong to the schema that the service infers. A job uses the model's.
    console.notices(notice for notice in file.notices if not notice.startswith("column "))
    return file


def check_table(version: VersionDetails, file: File, console: Console) -> None:
    """Note the ignored columns, and raise InvalidInput if the table does not fit the model."""
    if version.table_schema is not None:  # otherwise the service refuses the job with the reason
        console.notices(
            check_columns([column.name for column in file.columns or ()], version.table_schema)
        )


@contextmanager
def finished(
    client: Client, request: Request | ExplainRequest, console: Console
) -> Iterator[JobHandle]:
    """Submit a job, and wait until it has succeeded.

    ^C cancels it. In the end, the file that was uploaded for the job is deleted.
    """
    job = client.jobs.submit(request)
    try:
        with console.progress(f"{DOING[request.kind]} as job {job.id}") as tell:
            job.wait(progress=of_job(tell))
        yield job
    except KeyboardInterrupt:
        with suppress(NelboError):
            job.cancel()
            console.say(f"job {job.id} was cancelled")
        raise
    file = getattr(request, "file", None)
    if file is not None:
        with suppress(NelboError):  # another job may use it
            client.files.delete(file)


def download(job: JobHandle, out: OutputFile, console: Console) -> None:
    """Write the results of the job to OUT."""
    with console.waiting("fetching the results"):
        job.results(out.format, safe_csv=out.safe_csv).save(out.path)

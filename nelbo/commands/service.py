"""Work on a service: upload, submit, wait with a bar, download."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nelbo.client import Client, JobHandle, Request
from nelbo.commands.console import Console, of_job
from nelbo.commands.tables import Given, Out
from nelbo.encoding import check_columns
from nelbo.errors import NelboError
from nelbo.views import File, VersionDetails

DOING = {
    "score": "scoring",
    "generate": "generating",
    "augment": "augmenting",
    "reconstruct": "reconstructing",
}


def upload(client: Client, given: Given, console: Console) -> File:
    """The table as a file that the service has read. Raises what says why it cannot be used."""
    with given.on_disk() as path:
        with console.progress(f"uploading {given.name}", "bytes") as tell:
            name = path.name if given.file == "-" else f"{Path(given.file).stem}{path.suffix}"
            sent = client.files.upload(path, name=name, progress=tell, csv=given.csv)
        with console.waiting(f"reading {given.name}"):
            file = client.files.wait(sent)
    # What the service says of a column, it says of a schema that it inferred; here the model's
    # counts.
    console.notices(notice for notice in file.notices if not notice.startswith("column "))
    return file


def check_table(version: VersionDetails, file: File, console: Console) -> None:
    """Say which columns are ignored; refuse a table that does not serve the model before a job is
    made."""
    if version.table_schema is not None:  # else the service refuses the job and says why
        console.notices(
            check_columns([column.name for column in file.columns or ()], version.table_schema)
        )


@contextmanager
def finished(client: Client, request: Request, console: Console) -> Iterator[JobHandle]:
    """The job when it has succeeded. ^C cancels it; a file that was uploaded for it goes when all
    went well."""
    job = client.jobs.submit(request)
    try:
        with console.progress(f"{DOING[request.kind]} as job {job.id}") as tell:
            job.wait(progress=of_job(tell))
        yield job
    except KeyboardInterrupt:
        with suppress(NelboError):
            job.cancel()
            console.say(f"job {job.id} is cancelled")
        raise
    file = getattr(request, "file", None)
    if file is not None:
        with suppress(NelboError):  # another job may use it
            client.files.delete(file)


def download(job: JobHandle, out: Out, console: Console) -> None:
    """The job's results into OUT."""
    with console.waiting("fetching the results"):
        job.results(out.format, safe_csv=out.safe_csv).save(out.path)

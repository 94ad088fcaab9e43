"""Reads an uploaded file in a limited child process and stores its parts."""

import signal
from pathlib import Path

from nelbo.errors import InvalidInput
from nelbo.files import CsvOptions, Limits, Reading, part_name, read_arguments, too_large
from nelbo.sessions import Check
from nelbo.storage import part_key, upload_key
from nelbo.store import files
from nelbo.store.claims import Claim, ReadOutcome
from nelbo.store.files import FileEntry
from worker import cache
from worker.limited import ChildDied, run_limited
from worker.process import Process

READ_S = 600.0
READ_BYTES_PER_S = 64 * 2**10
"""Reading may take READ_S seconds plus the upload's size divided by READ_BYTES_PER_S.

There must be a limit, as a few bytes may expand to 10^11 cells.
"""


def read(process: Process, claim: Claim, check: Check) -> ReadOutcome:
    """Split the upload into parts that a worker can read on their own.

    Raises InvalidInput, which rejects the file. Every run writes the same parts under the same
    keys, so that a second worker does no harm.
    """
    if claim.file_id is None:
        raise InvalidInput("the job names no file; upload it again")
    entry = files.file_of(process.database, claim.file_id)
    with cache.temporary(process.settings.home) as folder:
        reading = _read(process, entry, folder, check)
        for number in range(reading.parts):
            check()
            process.storage.put(part_key(entry.id, number), folder / part_name(number))
    columns = [column.model_dump(mode="json") for column in reading.columns]
    return ReadOutcome(reading.rows, reading.digest, columns, list(reading.notices))


def _read(process: Process, entry: FileEntry, folder: Path, check: Check) -> Reading:
    settings = process.settings
    upload = folder / "upload"
    process.storage.fetch(upload_key(entry.id), upload, check)
    arguments = read_arguments(
        upload,
        folder,
        name=entry.name,
        format=entry.format,
        limits=Limits(
            settings.max_columns,
            settings.max_job_rows,
            settings.max_upload_bytes,
            settings.min_free_bytes,
        ),
        memory_mib=settings.read_memory_mib,
        csv=CsvOptions(**entry.options),
    )

    limit_s = READ_S + upload.stat().st_size / READ_BYTES_PER_S
    try:
        reading = Reading.model_validate(run_limited("nelbo.files", arguments, check, limit_s))
    except ChildDied as death:
        # Arrow's own threads abort the process when they cannot allocate memory.
        if death.status == -signal.SIGABRT:
            raise InvalidInput(too_large(entry.name, settings.read_memory_mib).message) from None
        raise
    except TimeoutError:
        raise InvalidInput(
            f"reading {entry.name} took more than {limit_s:,.0f} s; upload it in several files"
        ) from None

    upload.unlink()
    if reading.problem:
        raise InvalidInput(reading.problem)
    return reading

"""Cleans a table in a child process, which fits models: finds the cells that are probably wrong."""

from pathlib import Path

import pyarrow as pa
import pyarrow.ipc

from nelbo.errors import InvalidInput, NelboError
from nelbo.files import open_writer
from nelbo.schema import Schema
from nelbo.sessions import Check
from nelbo.settings import Settings, variable
from nelbo.store import files
from nelbo.store.chunks import table_to_parquet
from nelbo.store.claims import Claim, TableOutcome
from worker import cache
from worker.limited import ChildDied, run_limited
from worker.process import Process
from worker.source_rows import source_batches

ERROR = "error: "
"""Before the sentence with which a command of training fails."""
PASSED_ON = ("max_columns", "max_upload_bytes")
"""Settings of the worker that hold for the child too."""


def clean_table(process: Process, claim: Claim, check: Check) -> TableOutcome:
    """The suspicious cells. The same rows, parameters and seed give the same cells.

    Raises InvalidInput, with the reason, for a table that cannot be cleaned.
    """
    with cache.temporary(process.settings.home) as folder:
        table = _written(process, claim, folder, check)
        out = folder / "cells.arrow"
        arguments = [f"--out={out}", *_options(claim), *_schema(process, claim, folder)]
        _run([*arguments, "--json", "--", str(table)], process.settings, folder, check)
        with pa.ipc.open_file(str(out)) as reader:
            cells = reader.read_all()
    [batch] = cells.combine_chunks().to_batches() or [
        pa.RecordBatch.from_pylist([], schema=cells.schema)
    ]
    return TableOutcome(table_to_parquet(batch), batch.num_rows)


def _written(process: Process, claim: Claim, folder: Path, check: Check) -> Path:
    """All rows of the job as one file. JSON Lines hold the rows of a request as text."""
    path = folder / ("table.arrow" if claim.inline is None else "table.jsonl")
    with open_writer(path) as writer:
        for batch in source_batches(process.storage, claim):
            check()
            writer.write(batch)
    return path


def _options(claim: Claim) -> list[str]:
    quick = ["--quick"] if claim.params["quick"] else []
    return [f"--alpha={claim.params['alpha']}", f"--seed={claim.params['seed']}", *quick]


def _schema(process: Process, claim: Claim, folder: Path) -> list[str]:
    """The schema that was inferred when the file was read, by all that the upload showed."""
    if claim.file_id is None:
        return []
    columns = files.file_of(process.database, claim.file_id).columns or []
    path = folder / "schema.json"
    path.write_text(Schema.model_validate({"columns": columns}).model_dump_json())
    return [f"--schema={path}"]


def _run(arguments: list[str], settings: Settings, folder: Path, check: Check) -> None:
    """Run the command that finds the cells. An error of it is the job's problem, in its words."""
    limits = {variable(name): str(getattr(settings, name)) for name in PASSED_ON}
    # If the child is killed, it leaves its temporary files here, and this process removes them.
    environment = limits | {"TMPDIR": str(folder)}
    try:
        run_limited("training.clean_cli", arguments, check, settings.clean_s, env=environment)
    except ChildDied as death:
        if death.status > 0 and death.last_words.startswith(ERROR):
            raise InvalidInput(death.last_words.removeprefix(ERROR)) from None
        raise NelboError(
            f"the process that fits the models ended with status {death.status}, perhaps for lack"
            " of memory (the setting worker_memory_mib)"
        ) from None
    except TimeoutError:
        raise InvalidInput(
            f"cleaning took more than {settings.clean_s:,.0f} s (the setting clean_s) and was"
            " stopped; use quick, or clean fewer rows"
        ) from None

"""Reading an upload in a child process of limited memory and without a network: its schema, its
rows, its parts."""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from nelbo.confinement import CODE, confine
from nelbo.errors import NelboError, TooLarge, Unavailable
from nelbo.files.formats import DETECTED, CsvOptions, Limits
from nelbo.files.parts import part_name, write_parts
from nelbo.files.table import Table, open_table
from nelbo.inference import Inspector
from nelbo.processes import exit_with_parent
from nelbo.schema import Column


class Reading(BaseModel):
    """What reading found: all of it, or the problem alone."""

    model_config = ConfigDict(frozen=True)

    rows: int = 0
    parts: int = 0
    digest: str = ""
    columns: tuple[Column, ...] = ()
    notices: tuple[str, ...] = ()
    problem: str | None = None


def read_into_parts(table: Table, folder: Path) -> Reading:
    """Infer the schema of a table and cut it into folder/part-000000.parquet and so on, in one
    pass."""
    inspector = Inspector()

    def inspected() -> Iterator[pa.RecordBatch]:
        for batch in table.batches():
            inspector.update(batch)
            yield batch

    content = write_parts(
        inspected(), lambda number, path: path.rename(folder / part_name(number)), scratch=folder
    )
    found = inspector.finish()
    return Reading(
        rows=content.rows,
        parts=content.parts,
        digest=content.digest,
        columns=found.schema.columns,
        notices=(*table.notices, *table.late_notices, *found.notices),
    )


def read_arguments(
    upload: Path,
    folder: Path,
    *,
    name: str,
    format: str,
    limits: Limits,
    memory_mib: int,
    csv: CsvOptions = DETECTED,
) -> list[str]:
    """The arguments of `python -P -m nelbo.files`, which prints a Reading as one line of JSON."""
    options = {
        "name": name,
        "format": format,
        "memory-mib": memory_mib,
        "max-columns": limits.columns,
        "max-rows": limits.rows,
        "max-unpacked-bytes": limits.unpacked_bytes,
        "free-bytes": limits.free_bytes,
        "csv": json.dumps(csv.given()),
    }
    given = [f"--{option}={value}" for option, value in options.items()]
    return ["read", *given, "--", str(upload), str(folder)]


def main(arguments: list[str] | None = None) -> None:
    """`python -P -m nelbo.files read UPLOAD FOLDER …`: print a Reading as one line of JSON."""
    given = _parser().parse_args(arguments)
    confine(memory_mib=given.memory_mib, read=[given.upload, *CODE], write=[given.folder])
    exit_with_parent()
    pa.set_cpu_count(1)
    tempfile.tempdir = str(
        given.folder
    )  # whoever started this process removes the folder, however it ends
    print(_read(given).model_dump_json(exclude_defaults=True), flush=True)


def _read(given: argparse.Namespace) -> Reading:
    csv = CsvOptions(**json.loads(given.csv))
    limits = Limits(given.max_columns, given.max_rows, given.max_unpacked_bytes, given.free_bytes)
    try:
        with open_table(
            given.upload, given.format, name=given.name, csv=csv, limits=limits
        ) as table:
            return read_into_parts(table, given.folder)
    except Unavailable:  # the disk is full: no fault of the upload
        raise
    except NelboError as problem:
        return Reading(problem=problem.message)
    except MemoryError:  # Arrow's out-of-memory error is one too
        return Reading(problem=too_large(given.name, given.memory_mib).message)


def too_large(name: str, memory_mib: int) -> TooLarge:
    return TooLarge(
        f"reading {name} needs more than {memory_mib} MiB (NELBO_READ_MEMORY_MIB); write it with"
        " smaller row groups, or as CSV"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -P -m nelbo.files", description=__doc__)
    read = parser.add_subparsers(required=True).add_parser("read")
    read.add_argument("upload", type=Path)
    read.add_argument("folder", type=Path)
    for option in ("--name", "--format", "--csv"):
        read.add_argument(option, required=True)
    for option in (
        "--memory-mib",
        "--max-columns",
        "--max-rows",
        "--max-unpacked-bytes",
        "--free-bytes",
    ):
        read.add_argument(option, type=int, required=True)
    return parser

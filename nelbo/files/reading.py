"""Reading an upload in a child process that has limited memory and no network."""

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
from nelbo.processes import exit_with_parent
from nelbo.schema import Column
from nelbo.schema_inference import Inspector


class Reading(BaseModel):
    """The result of reading: everything but `problem`, or `problem` alone."""

    model_config = ConfigDict(frozen=True)

    rows: int = 0
    parts: int = 0
    digest: str = ""
    columns: tuple[Column, ...] = ()
    notices: tuple[str, ...] = ()
    problem: str | None = None


def read_into_parts(table: Table, folder: Path) -> Reading:
    """Infer the schema of a table and cut the table into parts in a folder, in one pass."""
    inspector = Inspector()

    def inspected() -> Iterator[pa.RecordBatch]:
        for batch in table.batches():
            inspector.update(batch)
            yield batch

    def put(number: int, path: Path) -> None:
        path.rename(folder / part_name(number))

    content = write_parts(inspected(), put, scratch=folder)
    inference = inspector.finish()
    return Reading(
        rows=content.rows,
        parts=content.parts,
        digest=content.digest,
        columns=inference.schema.columns,
        notices=(*table.notices, *table.late_notices, *inference.notices),
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
    flags = [f"--{option}={value}" for option, value in options.items()]
    return ["read", *flags, "--", str(upload), str(folder)]


def main(arguments: list[str] | None = None) -> None:
    """`python -P -m nelbo.files read UPLOAD FOLDER …`: print a Reading as one line of JSON."""
    order = _parser().parse_args(arguments)
    confine(memory_mib=order.memory_mib, read=[order.upload, *CODE], write=[order.folder])
    exit_with_parent()
    pa.set_cpu_count(1)
    # The parent process removes this folder, even if this process is killed.
    tempfile.tempdir = str(order.folder)
    print(_read(order).model_dump_json(exclude_defaults=True), flush=True)


def _read(order: argparse.Namespace) -> Reading:
    csv = CsvOptions(**json.loads(order.csv))
    limits = Limits(order.max_columns, order.max_rows, order.max_unpacked_bytes, order.free_bytes)
    try:
        with open_table(
            order.upload, order.format, name=order.name, csv=csv, limits=limits
        ) as table:
            return read_into_parts(table, order.folder)
    except Unavailable:  # the disk is full, so the upload is not to blame
        raise
    except NelboError as problem:
        return Reading(problem=problem.message)
    except MemoryError:  # Arrow's out-of-memory error is one too
        return Reading(problem=too_large(order.name, order.memory_mib).message)


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
    limits = ("--max-columns", "--max-rows", "--max-unpacked-bytes", "--free-bytes")
    for option in ("--memory-mib", *limits):
        read.add_argument(option, type=int, required=True)
    return parser

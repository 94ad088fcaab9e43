"""clean: the wrong cells of a table, found by models of the rest of its own rows."""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import typer

from nelbo.commands import options, training
from nelbo.commands.console import Console, cut
from nelbo.commands.table_files import OutputFile, TableFile, output_file
from nelbo.errors import InvalidInput
from nelbo.files import DETECTED, CsvOptions, Limits, open_table, open_writer
from nelbo.repairs import Repairs, repaired_schema
from nelbo.rows import LIKELY, count_suspicious
from nelbo.settings import read_settings

SHOWN = 10
"""Rows shown on the screen."""
HEAD = ["row", "p-value", "column", "value", "expected", "90 % interval, or share", "reason"]


@options.csv
def clean(
    file: options.File,
    output: options.OutputOrScreen = None,
    repaired: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="file for the table itself, with the probably wrong cells replaced by the expected"
            " values (its suffix is its format)",
        ),
    ] = None,
    alpha: Annotated[
        float,
        typer.Option(metavar="P", min=0, max=1, help="largest p-value of the rows that are listed"),
    ] = 0.05,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML file that overrides training settings"),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="take less than half the time, and find less")
    ] = False,
    schema: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON file with the schema (default: inferred)"),
    ] = None,
    seed: options.Seed = 0,
    input_format: options.InputFormat = None,
    output_format: options.OutputFormat = None,
    safe_csv: options.SafeCsv = False,
    csv: CsvOptions = DETECTED,
    as_json: options.Json = False,
) -> None:
    """Find the wrong cells of a table: misspelt, misplaced, impossible or missing values.

    No model is needed. Nelbo fits two models, each to one half of the rows, and judges each half by
    the model of the other one; this takes about twice the time of a training. The rows that fit the
    others least come first, each with its most surprising cells and what these should be by the
    other cells of the row. "q_value" is the expected share of ordinary rows among a row and all
    rows before it. This command always runs in this process, also if a service is there.

    \b
    Examples:
      nelbo clean orders.csv
      nelbo clean orders.csv -o suspicious.csv
      nelbo clean orders.parquet --alpha 0.01 -o suspicious.parquet
    """
    if quick and config:
        raise InvalidInput("--quick and --config exclude each other; use one of them")
    console = Console(as_json)
    table_file = TableFile(file, input_format, csv)
    target = None if output is None else output_file(output, output_format, as_json, safe_csv)
    repairs_target = _repairs_target(repaired, output, as_json, safe_csv)

    files = {"config": config, "schema": schema}
    arguments = {option: str(path) for option, path in files.items() if path is not None}
    arguments |= {"alpha": str(alpha), "seed": str(seed), "csv": json.dumps(csv.given())}
    with tempfile.TemporaryDirectory(prefix="nelbo-") as folder, table_file.on_disk() as path:
        arguments["out"] = str(Path(folder, "cells.arrow"))
        summary = training.in_child("clean", "training.clean_cli", path, arguments, quick)
        with pa.ipc.open_file(arguments["out"]) as reader:
            cells = reader.read_all()

        if target:
            _write(target, cells.schema, cells.to_batches())
        repairs = Repairs(cells)
        if repairs_target:
            settings = read_settings()
            limits = Limits(settings.max_columns, unpacked_bytes=settings.max_upload_bytes)
            with open_table(path, csv=csv, limits=limits) as table:
                _write(repairs_target, repaired_schema(table), repairs.repaired(table))

    counts = count_suspicious(cells.to_batches())
    if not as_json:
        _show(console, cells, counts, summary["rows"], output)
    if repairs_target:
        console.say(f"{repairs.count:,} cells are replaced in {repairs_target.path}")
    console.result(
        {"rows": summary["rows"], "output": output, **counts, "notices": summary["notices"]}
        | ({"repaired": repaired, "cells_replaced": repairs.count} if repairs_target else {})
        | ({} if target else {"cells": cells.to_pylist()})
    )


def _repairs_target(
    repaired: str | None, output: str | None, as_json: bool, safe_csv: bool
) -> OutputFile | None:
    """The file for the repaired table. The cells go elsewhere: to OUT, or to standard output."""
    if repaired is None:
        return None
    if os.path.realpath(repaired) == os.path.realpath(output or "-"):
        raise InvalidInput(f"--output and --repaired both write to {repaired}; name two files")
    return output_file(repaired, None, as_json, safe_csv)


def _write(target: OutputFile, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    with open_writer(target.path, target.format, schema, safe_csv=target.safe_csv) as writer:
        for batch in batches:
            writer.write(batch)


def _show(
    console: Console, cells: pa.Table, counts: Mapping[str, int], rows: int, output: str | None
) -> None:
    if cells.num_rows:
        first = list(dict.fromkeys(cells["row"].to_pylist()))[:SHOWN]
        shown = [cell for cell in cells.to_pylist() if cell["row"] in first]
        identifiers = cells.column_names[1 : cells.column_names.index("surprise")]
        console.table(["row", *identifiers, *HEAD[1:]], _lines(shown, identifiers))
    listed = f"{counts['listed']:,} of {rows:,} rows are listed"
    where = f" in {output}" if output else ""
    console.say(
        f"{listed}{where}; {counts['probably_wrong']:,} of them are probably wrong (q-value"
    )
    console.say(f"at most {LIKELY:g}: at most one in {1 / LIKELY:.0f} of these is an ordinary row)")


def _lines(cells: list[dict[str, Any]], identifiers: list[str]) -> Iterator[list[str]]:
    """A row's own figures are beside its first cell only."""
    before = None
    for cell in cells:
        own = [str(cell["row"]), *(cut(cell[name]) for name in identifiers)]
        own.append(f"{cell['p_value']:.2g}")
        if cell["row"] == before:
            own = [""] * len(own)
        before = cell["row"]
        shown = [cut(cell[name]) for name in ("column", "value", "expected")]
        yield [*own, *shown, _room(cell), cell["reason"] or ""]


def _room(cell: dict[str, Any]) -> str:
    if cell["share"] is not None:
        return f"{100 * cell['share']:.0f} %"
    if cell["low"] is not None:
        return f"{cut(cell['low'])} to {cut(cell['high'])}"
    return ""

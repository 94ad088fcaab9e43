"""`python -P -m training.clean_cli`: finds the wrong cells of a table, in a process of its own.

`nelbo clean` runs it and writes what it finds. So does a worker for a clean job.
"""

import os
import signal

if __name__ == "__main__":
    # As in training.cli: until `program.prepare`, ^C and SIGTERM end the program without a
    # traceback.
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: os._exit(128 + number))

import json
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer

from nelbo import program
from nelbo.jobs import LARGEST_SEED
from nelbo.processes import exit_with_parent
from nelbo.schema import Schema

from . import cli
from .clean import find_wrong_cells
from .pipeline import make_deterministic
from .progress import progress_bars

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def run_clean(
    file: Annotated[Path, typer.Argument(help="table: CSV, Parquet, Arrow or JSON Lines")],
    out: Annotated[Path, typer.Option(help="Arrow file for the suspicious cells")],
    alpha: Annotated[float, typer.Option(min=0, max=1, help="largest p-value that is listed")],
    config: Annotated[Path | None, typer.Option(help="TOML file with training settings")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="fit drafts")] = False,
    schema: Annotated[Path | None, typer.Option(help="JSON file with the schema")] = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="random seed")] = 0,
    csv: Annotated[str, typer.Option(help="dialect of a CSV file, as JSON")] = "{}",
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Judge each row of a table by a model that was fitted without it."""
    settings = cli.configuration(config, quick)
    make_deterministic(settings)
    source = cli.table_source(file, csv)
    of_file = Schema.read(schema) if schema else None
    with progress_bars() as stage:
        cleaned = find_wrong_cells(source, settings, seed, of_file, alpha, stage)

    cli.print_notices(cleaned.notices)
    with pa.ipc.new_file(str(out), cleaned.cells.schema) as writer:
        writer.write_table(cleaned.cells)
    summary = {"rows": cleaned.rows, "notices": list(cleaned.notices)}
    print(json.dumps(summary) if as_json else f"{out}: cells of {cleaned.rows:,} rows")


if __name__ == "__main__":
    program.prepare()
    exit_with_parent()
    cli.command(app)

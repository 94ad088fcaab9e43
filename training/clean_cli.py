"""`python -P -m training.clean_cli`: finds the wrong cells of a table, in a process of its own.

`nelbo clean` runs it and writes what it finds.
"""

from .cli import command, configuration, print_notices, progress_bars, table_source

import json
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer

from nelbo import program
from nelbo.schema import Schema

from .clean import clean
from .pipeline import make_deterministic

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="table: CSV, Parquet, Arrow or JSON Lines")],
    out: Annotated[Path, typer.Option(help="Arrow file for the suspicious cells")],
    alpha: Annotated[float, typer.Option(min=0, max=1, help="largest p-value that is listed")],
    config: Annotated[Path | None, typer.Option(help="TOML file with training settings")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="fit drafts")] = False,
    schema: Annotated[Path | None, typer.Option(help="JSON file with the schema")] = None,
    seed: Annotated[int, typer.Option(min=0, help="random seed")] = 0,
    csv: Annotated[str, typer.Option(help="dialect of a CSV file, as JSON")] = "{}",
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Judge each row of a table by a model that was fitted without it."""
    settings = configuration(config, quick)
    make_deterministic(settings)
    known = Schema.read(schema) if schema else None
    with progress_bars() as stage:
        cleaned = clean(table_source(file, csv), settings, seed, known, alpha, stage)
    print_notices(cleaned.notices)
    with pa.OSFile(str(out), "wb") as target, pa.ipc.new_file(target, cleaned.cells.schema) as file_:
        file_.write_table(cleaned.cells)
    summary = {"rows": cleaned.rows, "notices": list(cleaned.notices)}
    print(json.dumps(summary) if as_json else f"{cleaned.rows:,} rows")


if __name__ == "__main__":
    program.prepare()
    command(app)

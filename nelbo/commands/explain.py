"""explain: why rows are unlikely: the most surprising cells, and what they should be by all other
cells of the row."""

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import pyarrow as pa
import typer

from nelbo.commands import local, options
from nelbo.commands.console import Console
from nelbo.commands.data_folder import folder_here
from nelbo.commands.row_errors import RowErrors
from nelbo.commands.rows import SHOWN_CELLS
from nelbo.commands.table_files import TableFile, output_file
from nelbo.encoding import check_columns
from nelbo.files import DETECTED, CsvOptions, open_writer
from nelbo.jobs import ScoreRequest
from nelbo.rows import Rank
from nelbo.scores import already_known
from nelbo.settings import read_settings
from nelbo.spelling.numbers import PLAIN

if TYPE_CHECKING:
    from nelbo.engine import Engine

HEAD = ["column", "value", "expected", "90 % interval, or share", "cell surprise"]
RANKS: dict[Rank, str] = {
    "surprise": "how odd the row is; its p-value is that of the surprise",
    "nelbo": "how unlikely the row is: the bound on -log p(row), in nats",
}
GIVEN = {"vae": "the columns before it and z", "exemplars": "the nearest training rows"}
"""What the surprise of a cell is given by each member of the score."""
SHOWN_CHARACTERS = 30


@options.csv
def explain(
    model: options.Model,
    file: options.File,
    row: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N",
            min=0,
            help="this row, the first is 0; can be given more than once",
            show_default=False,
        ),
    ] = None,
    top: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="number of rows to explain, least likely first (ignored with --row)",
        ),
    ] = 10,
    columns: Annotated[
        int, typer.Option(metavar="N", min=1, help="cells of each row, the most surprising")
    ] = SHOWN_CELLS,
    rank: options.RankOf = "surprise",
    output: options.OutputOrScreen = None,
    seed: options.Seed = 0,
    errors: options.Errors = None,
    input_format: options.InputFormat = None,
    output_format: options.OutputFormat = None,
    safe_csv: options.SafeCsv = False,
    csv: CsvOptions = DETECTED,
    as_json: options.Json = False,
) -> None:
    """Show why rows are unlikely, and what their most surprising cells should be.

    Nelbo hides each shown cell and draws it many times, given the other cells of its row. For a
    number or a date you see the median of the draws and the interval with 90 % of them; for a
    category, the most frequent draw and its share. --rank says which rows come first. OUT also has
    "term": the nats that the column adds to the row's nelbo. This command always runs in this
    process, also if a service is there.

    \b
    Examples:
      nelbo explain adult new.csv
      nelbo explain ./adult new.csv --row 17 --row 4711 --columns 5
      nelbo explain adult new.csv --rank nelbo
      nelbo explain adult new.csv --top 100 -o why.parquet
    """
    ranked_by = options.request(ScoreRequest, model=model, rank=rank).rank
    settings = read_settings()
    console = Console(as_json)
    table_file = TableFile(file, input_format, csv)
    target = None if output is None else output_file(output, output_format, as_json, safe_csv)

    engine = local.load(folder_here(settings, model), "explain")
    with RowErrors(errors, output) as faults, table_file.open(settings) as table:
        console.notices([*table.notices, *check_columns(table.names, engine.schema)])
        work = local.Work(engine, faults)
        with console.progress(f"scoring {table_file.name}") as tell:
            rows = work.least_likely(table, row or (), top, ranked_by, tell)
        console.notices(table.late_notices)
    faults.check(len(rows))
    console.notices(already_known(work.digest.hexdigest(), engine.manifest.table_digest))

    with console.waiting("drawing what the cells should be"):
        cells = local.explained(engine, rows, columns, seed)
    for line in faults.words():
        console.say(line)
    if target:
        with open_writer(
            target.path, target.format, cells.schema, safe_csv=target.safe_csv
        ) as writer:
            for batch in cells.to_batches():
                writer.write(batch)
        console.say(f"{cells.num_rows:,} cells of {len(rows):,} rows in {output}")
    elif not as_json:
        show(console, engine, cells, ranked_by)
    console.result(
        {"model": model, "output": output, "rows_failed": faults.count}
        | ({} if target else {"cells": cells.to_pylist()})
    )


def show(console: Console, engine: "Engine", cells: pa.Table, rank: Rank = "surprise") -> None:
    """The explained cells as a table, with what its words mean below it."""
    continuous = {column.name for column in engine.schema.columns if column.kind == "continuous"}
    console.table(
        ["row", rank, "p-value", *HEAD],
        _lines(
            (_short(cell) if cell["column"] in continuous else cell for cell in cells.to_pylist()),
            rank,
        ),
    )
    conditions = ", or ".join(
        GIVEN[member] for member, weight in engine.manifest.members.items() if weight
    )
    console.say(f"{rank}: {RANKS[rank]}")
    console.say(f"cell surprise: how odd the value is given {conditions}; higher is odder")
    console.say(
        "expected: drawn with the cell hidden, given all the others; one in ten ordinary values"
        " lies outside its interval"
    )


def _short(cell: dict[str, Any]) -> dict[str, Any]:
    """Continuous numbers with as many digits as people want."""
    numbers = {
        name: cell[name] for name in ("value", "expected", "low", "high") if cell[name] is not None
    }
    return cell | {
        name: f"{float(text):.6g}" for name, text in numbers.items() if re.match(PLAIN, text)
    }


def _lines(cells: Iterable[dict[str, Any]], rank: Rank) -> Iterator[list[str]]:
    """A row's own figures stand beside its first cell only."""
    before = None
    for cell in cells:
        first, before = cell["row"] != before, cell["row"]
        own = (
            [str(cell["row"]), f"{cell[rank]:.1f}", f"{cell['p_value']:.2g}"] if first else [""] * 3
        )
        shown = [_cut(cell[name]) for name in ("value", "expected")]
        surprise = f"{cell['cell_surprise']:.1f}"
        yield [*own, _cut(cell["column"]), *shown, _room(cell), surprise]


def _room(cell: dict[str, Any]) -> str:
    """The interval, or the share of the most frequent category; and the share of missing ones,
    where that is not it."""
    parts = []
    if cell["share"] is not None:
        parts.append(f"{100 * cell['share']:.0f} %")
    elif cell["low"] is not None:
        parts.append(f"{_cut(cell['low'])} to {_cut(cell['high'])}")
    if cell["missing"] and (cell["share"] is None or cell["expected"] is not None):
        parts.append(f"{100 * cell['missing']:.0f} % missing")
    return ", ".join(parts)


def _cut(text: str | None) -> str:
    if text is None:
        return "missing"
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"

"""explain: the cells that make rows odd, and what they should be by all other cells of the row."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import pyarrow as pa
import typer

from nelbo.commands import options
from nelbo.commands.console import Console, cut, score_figure
from nelbo.commands.row_errors import RowErrors
from nelbo.commands.rows import SHOWN_CELLS
from nelbo.commands.runners import choose_runner
from nelbo.commands.table_files import OutputFile, TableFile, output_file
from nelbo.explanation import AS_A_WHOLE, EXPLAINED
from nelbo.files import DETECTED, CsvOptions, open_writer
from nelbo.jobs import ExplainRequest
from nelbo.row_repair import ORDINARY_P, REPAIRED
from nelbo.rows import Rank
from nelbo.settings import read_settings
from nelbo.spelling.numbers import rounded

HEAD = ["column", "value", "expected", "90 % interval, or share", "cell surprise", "reason"]
RANKS: dict[Rank, str] = {
    "surprise": "how odd the row is; its p-value is that of the surprise",
    "nelbo": "how unlikely the row is: the bound on -log p(row), in nats",
}


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
        int, typer.Option(metavar="N", min=1, help="maximum number of cells of each row")
    ] = SHOWN_CELLS,
    rank: options.RankOf = "surprise",
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="show the fewest cells to change so that the row is ordinary"
        ),
    ] = False,
    output: options.OutputOrScreen = None,
    seed: options.Seed = 0,
    errors: options.Errors = None,
    input_format: options.InputFormat = None,
    output_format: options.OutputFormat = None,
    safe_csv: options.SafeCsv = False,
    csv: CsvOptions = DETECTED,
    as_json: options.Json = False,
) -> None:
    """Show which cells make a row odd, and what they should be.

    Nelbo hides each cell and draws it many times, given the other cells of its row. For a number or
    a date you see the median of the draws and the interval with 90 % of them; for a category, the
    most frequent draw and its share. Cells whose value is expected are left out. Columns that name
    the rows come first.

    "reason" says more where it can: "did you mean CESSNA?" (a new text, one letter away from a
    known one), "not in training", "never missing in training", or "does not fit dest EWR" (the
    value seldom goes together with EWR in the column dest; either of the two may be wrong). A row
    that no single cell explains is shown with its two most surprising cells.

    --rank says which rows come first. OUT also has "term": the nats that the column adds to the
    row's nelbo. If a service is known (NELBO_URL, or `nelbo up` runs), it does the work; otherwise
    this process does.

    --repair shows which cells to change, and to what, so that the row is ordinary (p-value >=
    0.05), with the scores of the row before and after. Cells are hidden, the most surprising ones
    first, and drawn given the rest of the row.

    \b
    Examples:
      nelbo explain adult new.csv
      nelbo explain adult new.csv --row 17 --repair
      nelbo explain ./adult new.csv --row 17 --row 4711 --columns 5
      nelbo explain adult new.csv --rank nelbo
      nelbo explain adult new.csv --top 100 -o why.parquet
    """
    request = options.request(
        ExplainRequest,
        model=model,
        top=top,
        row_numbers=tuple(row or ()),
        columns=columns,
        rank=rank,
        repair=repair,
        seed=seed,
    )
    console = Console(as_json)
    table_file = TableFile(file, input_format, csv)
    target = None if output is None else output_file(output, output_format, as_json, safe_csv)

    runner = choose_runner(read_settings(), model, console)
    with RowErrors(errors, output) as faults:
        explained = runner.explain(request, table_file, faults)
    faults.check(explained.rows)
    for line in faults.words():
        console.say(line)

    cells = explained.cells
    if target:
        _write(cells, target)
        rows = len(set(cells.column(0).to_pylist()))
        console.say(f"{cells.num_rows:,} cells of {rows:,} rows in {output}")
    elif not as_json and repair:
        show_repaired(console, cells)
    elif not as_json:
        show(console, cells, request.rank)
    console.result(
        {
            "model": explained.model,
            "job": explained.job,
            "output": output,
            "rows_failed": faults.count,
        }
        | ({} if target else {"cells": cells.to_pylist()})
    )


def _write(cells: pa.Table, target: OutputFile) -> None:
    with open_writer(target.path, target.format, cells.schema, safe_csv=target.safe_csv) as writer:
        for batch in cells.to_batches():
            writer.write(batch)


def show(console: Console, cells: pa.Table, rank: Rank = "surprise") -> None:
    """The explained cells as a table, with what its words mean below it."""
    identifiers = cells.column_names[1 : 1 + cells.num_columns - len(EXPLAINED)]
    named = cells.select(identifiers).to_pylist()
    explained_cells = cells.drop_columns(identifiers).rename_columns(EXPLAINED.names).to_pylist()
    console.table(
        ["row", *identifiers, rank, "p-value", *HEAD], _lines(named, explained_cells, rank)
    )
    console.say(f"{rank}: {RANKS[rank]}")
    console.say("cell surprise: how odd the value is beside the rest of its row; higher is odder")
    console.say(
        "expected: drawn with the cell hidden, given all the others; one in ten ordinary values"
        " lies outside its interval"
    )


def show_repaired(console: Console, cells: pa.Table) -> None:
    """The repaired cells as a table, with what its words mean below it."""
    identifiers = cells.column_names[1 : 1 + cells.num_columns - len(REPAIRED)]
    lines = []
    before = None
    for line in cells.to_pylist():
        row, *own = list(line.values())[: 1 + len(identifiers)]
        values = dict(
            zip(REPAIRED.names[1:], list(line.values())[1 + len(identifiers) :], strict=True)
        )
        head = [str(row), *map(cut, own), *_before_and_after(values)]
        lines.append(
            [
                *(head if row != before else [""] * len(head)),
                cut(values["column"]),
                cut(values["value"]),
                cut(values["repaired"]),
            ]
        )
        before = row
    console.table(["row", *identifiers, "nelbo", "p-value", "column", "value", "repaired"], lines)
    console.say("nelbo, p-value: of the row, before and after its cells have the repaired values")
    console.say(f"rows that are missing here are ordinary: their p-value is at least {ORDINARY_P}")


def _before_and_after(values: dict[str, Any]) -> tuple[str, str]:
    nelbo = f"{score_figure(values['nelbo'])} to {score_figure(values['nelbo_after'])}"
    return nelbo, f"{values['p_value']:.2g} to {values['p_value_after']:.2g}"


def _lines(
    named: Iterable[dict[str, str | None]], cells: Iterable[dict[str, Any]], rank: Rank
) -> Iterator[list[str]]:
    """A row's identifiers and its own figures stand beside its first cell only."""
    before = None
    for names, cell in zip(named, cells, strict=True):
        figures = [score_figure(cell[rank]), f"{cell['p_value']:.2g}"]
        own = [str(cell["row"]), *map(cut, names.values()), *figures]
        reason = cell["reason"] or ""
        if cell["row"] == before:
            own = [""] * len(own)
            reason = "" if reason == AS_A_WHOLE else reason
        before = cell["row"]
        yield [
            *own,
            cut(cell["column"]),
            cut(cell["value"]),
            *_expected(cell),
            score_figure(cell["cell_surprise"]),
            reason,
        ]


def _expected(cell: dict[str, Any]) -> tuple[str, str]:
    """What is expected, and the interval or the share of the most frequent category; and the share
    of missing ones, where that is not it. Nothing for a value that is itself expected."""
    missing = cell["missing"]
    if missing is None:
        return "", ""
    parts = []
    if cell["share"] is not None:
        parts.append(f"{100 * cell['share']:.0f} %")
    elif cell["low"] is not None:
        parts.append(f"{cut(rounded(cell['low']))} to {cut(rounded(cell['high']))}")
    if missing and (cell["share"] is None or cell["expected"] is not None):
        parts.append(f"{100 * missing:.0f} % missing")
    return cut(rounded(cell["expected"])), ", ".join(parts)

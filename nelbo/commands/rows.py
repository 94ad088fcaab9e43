"""score, generate, augment, reconstruct: in this process on an artifact, or as a job on a service.
The same rows either way."""

from pathlib import Path
from typing import Annotated, Any

import typer

from nelbo.client import Request
from nelbo.commands import options
from nelbo.commands.condition_files import read_like, read_weights
from nelbo.commands.console import Console, cut, score_figure
from nelbo.commands.row_errors import RowErrors
from nelbo.commands.runners import Done, choose_runner
from nelbo.commands.shown_rows import ShownRows
from nelbo.commands.table_files import OutputFile, TableFile, output_file
from nelbo.conditions import words_of
from nelbo.errors import InvalidRequest
from nelbo.files import DETECTED, CsvOptions
from nelbo.jobs import AugmentRequest, GenerateRequest, ReconstructRequest, ScoreRequest
from nelbo.rows import Anomaly
from nelbo.settings import read_settings
from nelbo.spelling.numbers import rounded
from nelbo.surprise import ONE_IN_TEN

SHOWN_CELLS = 3


@options.csv
def score(
    model: options.Model,
    file: options.File,
    output: options.Output,
    alpha: Annotated[
        float, typer.Option(metavar="P", help="rows with p-value <= alpha are anomalies")
    ] = 0.01,
    fdr: Annotated[
        float | None,
        typer.Option(
            metavar="Q", help="bound the false discovery rate instead of alpha", show_default=False
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="add the term and the surprise of each cell")
    ] = False,
    rank: options.RankOf = "surprise",
    errors: options.Errors = None,
    input_format: options.InputFormat = None,
    output_format: options.OutputFormat = None,
    safe_csv: options.SafeCsv = False,
    csv: CsvOptions = DETECTED,
    as_json: options.Json = False,
) -> None:
    """Score each row of a table, and say which rows are anomalies.

    OUT has the columns row, nelbo (how unlikely the row is, in nats), surprise (how odd the row is;
    its p-value is that of the surprise), p_value and anomaly. --explain adds term_COLUMN for each
    column and kl, which add up to the nelbo, and surprise_COLUMN, which says how odd each cell is.
    --rank decides which rows are shown first and changes nothing in OUT. Rows that cannot be scored
    are counted and left out. If a service is known (NELBO_URL, or `nelbo up` runs), it does the
    work; otherwise this process does.

    \b
    Examples:
      nelbo score adult new.csv -o scores.parquet --explain
      nelbo score adult new.csv -o scores.csv --rank nelbo
      nelbo score adult@2 new.parquet -o scores.csv --alpha 0.001 --errors bad.jsonl
      cat new.csv | nelbo score ./adult - -o - --input-format csv --fdr 0.1
    """
    request = options.request(
        ScoreRequest, model=model, alpha=alpha, fdr=fdr, explain=explain, rank=rank
    )
    table = TableFile(file, input_format, csv)
    target = output_file(output, output_format, as_json, safe_csv)
    _run(request, table, target, errors, Console(as_json))


def generate(
    model: options.Model,
    rows: Annotated[int, typer.Option(metavar="N", help="rows to make", show_default=False)],
    output: options.Output,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="condition that each row meets (several are allowed)",
            show_default=False,
        ),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="file with cells that each row has: JSON, as {COLUMN: VALUE}, or a table with one"
            " row",
            dir_okay=False,
        ),
    ] = None,
    balance: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="make the categories of COLUMN equally often"),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="file with the weights of a column's categories: JSON, as {COLUMN: {CATEGORY:"
            " WEIGHT}}, or a table with the columns COLUMN and weight",
            dir_okay=False,
        ),
    ] = None,
    rarity: Annotated[
        str | None,
        typer.Option(
            metavar="LOW:HIGH",
            help="percentiles between which each row's nelbo is, as 95:99.9",
            show_default=False,
        ),
    ] = None,
    seed: options.FreshSeed = None,
    without_identifiers: Annotated[
        bool, typer.Option("--without-identifiers", help="leave out the columns of identifiers")
    ] = False,
    output_format: options.OutputFormat = None,
    safe_csv: options.SafeCsv = False,
    as_json: options.Json = False,
) -> None:
    """Make new rows like those of the training table.

    With the same seed, --rows 10 gives the first 10 rows of --rows 100. OUT has the columns of the
    training table. Identifiers are new: none is in the training table, and no two rows of OUT have
    the same. Columns of free text are empty.

    Every row meets all conditions of --where, and its other cells fit them. A condition is
    'COLUMN = VALUE', with =, !=, <, <=, >, >=, 'in (A, B)', 'not in (A, B)', 'between A and B',
    'is missing' or 'is not missing'; 'and' joins several. 2024-05 means the whole month. Put a name
    or a value with 'and' or a comma in quotes. The command says how probable the conditions are. It
    refuses a condition that no row can meet.

    --rarity 95:99.9 makes rows that are rare but plausible, to test alarms with: of ordinary rows,
    5 % are as unlikely as the likeliest of them, and 0.1 % as the least likely.

    \b
    Examples:
      nelbo generate adult --rows 10000 --seed 1 -o made.csv
      nelbo generate adult --rows 500 --where 'income = >50K' --where 'age < 30' -o young.csv
      nelbo generate adult --rows 500 --where 'education in (Masters, Doctorate)' -o few.csv
      nelbo generate adult --rows 1000 --balance income -o balanced.csv
      nelbo generate adult --rows 1000 --rarity 95:99.9 --where 'age < 30' -o rare.csv
      nelbo generate adult --rows 1000 --weights weights.json --like row.json -o made.csv
      nelbo generate ./adult --rows 100 -o - --output-format jsonl
    """
    request = options.request(
        GenerateRequest,
        model=model,
        n=rows,
        seed=seed,
        where=tuple(where or ()),
        like=read_like(like),
        balance=balance,
        weights=read_weights(weights),
        rarity=_percentiles(rarity),
        identifiers=not without_identifiers,
    )
    target = output_file(output, output_format, as_json, safe_csv)
    _run(request, None, target, None, Console(as_json))


@options.csv
def augment(
    model: options.Model,
    file: options.File,
    output: options.Output,
    per_row: Annotated[int, typer.Option(metavar="K", help="rows to make of each given one")] = 1,
    spread: Annotated[
        float,
        typer.Option(
            metavar="S", help="from 0, near to the given row, to 1, anywhere in the table"
        ),
    ] = 0.0,
    keep: Annotated[
        str,
        typer.Option(metavar="COLUMNS", help="columns that each copy has from its row, as a,b"),
    ] = "",
    balance: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="make copies until all categories of COLUMN are equally frequent",
            show_default=False,
        ),
    ] = None,
    seed: options.FreshSeed = None,
    errors: options.Errors = None,
    input_format: options.InputFormat = None,
    output_format: options.OutputFormat = None,
    safe_csv: options.SafeCsv = False,
    csv: CsvOptions = DETECTED,
    as_json: options.Json = False,
) -> None:
    """Make rows like given ones: each is a draw near its row.

    A copy has its row's seldom categories, those of under 5 % of the training rows: copies of
    frauds are frauds. --keep names further columns. All other cells fit what is kept.

    With a --spread a copy is drawn farther off. With --spread 1 it shares nothing with its row but
    the columns of --keep.

    --balance COLUMN makes copies, instead of --per-row of each row, so that FILE and OUT together
    have as many rows of each category of COLUMN as FILE has of the most frequent one. Rows without
    a known category get none. Each copy has the category of its row.

    OUT has the columns row (the given row), copy (0, 1, 2 ...) and those of
    the table.

    \b
    Examples:
      nelbo augment adult few.csv --per-row 5 -o more.csv
      nelbo augment adult few.csv --per-row 5 --spread 0.3 --seed 1 -o more.parquet
      nelbo augment adult few.csv --per-row 5 --keep income,sex -o more.csv
      nelbo augment adult few.csv --balance income -o more.csv
    """
    request = options.request(
        AugmentRequest,
        model=model,
        per_row=per_row,
        seed=seed,
        spread=spread,
        keep=_listed(keep),
        balance=balance,
    )
    table = TableFile(file, input_format, csv)
    target = output_file(output, output_format, as_json, safe_csv)
    _run(request, table, target, errors, Console(as_json))


@options.csv
def reconstruct(
    model: options.Model,
    file: options.File,
    output: options.Output,
    mode: Annotated[
        bool, typer.Option("--mode", help="the most probable value, not a draw")
    ] = False,
    denoise: Annotated[
        bool, typer.Option("--denoise", help="replace the observed cells too")
    ] = False,
    columns: Annotated[
        str,
        typer.Option(
            metavar="COLUMNS", help="columns to fill, as a,b; all others stay (default: every one)"
        ),
    ] = "",
    leave_usual: Annotated[
        bool,
        typer.Option(
            "--leave-usual", help="leave cells missing that are usually missing in such rows"
        ),
    ] = False,
    seed: options.FreshSeed = None,
    errors: options.Errors = None,
    input_format: options.InputFormat = None,
    output_format: options.OutputFormat = None,
    safe_csv: options.SafeCsv = False,
    csv: CsvOptions = DETECTED,
    as_json: options.Json = False,
) -> None:
    """Fill the missing cells of a table, given the others.

    OUT has the column row and those of the table. Observed cells stay as they are, unless
    --denoise. A gap can belong there, as in a column of coupons: --leave-usual leaves a cell
    missing if it is missing in more than half of the rows that the model draws given the row's
    other cells.

    \b
    Examples:
      nelbo reconstruct adult gaps.csv -o filled.csv --mode
      nelbo reconstruct adult gaps.csv -o filled.csv --columns age,education
      nelbo reconstruct adult gaps.csv -o filled.csv --leave-usual
      nelbo reconstruct adult noisy.csv -o clean.csv --denoise --seed 1
    """
    request = options.request(
        ReconstructRequest,
        model=model,
        mode=mode,
        denoise=denoise,
        seed=seed,
        columns=_listed(columns),
        leave_usual=leave_usual,
    )
    table = TableFile(file, input_format, csv)
    target = output_file(output, output_format, as_json, safe_csv)
    _run(request, table, target, errors, Console(as_json))


def _percentiles(rarity: str | None) -> tuple[float, float] | None:
    """Two percentiles in an option such as 95:99.9."""
    if rarity is None:
        return None
    low, _, high = rarity.partition(":")
    try:
        return float(low), float(high)
    except ValueError:
        raise InvalidRequest(
            f"--rarity {rarity} is not two percentiles; write them as 95:99.9"
        ) from None


def _listed(names: str) -> tuple[str, ...]:
    """The names of columns in an option such as a,b."""
    return tuple(name.strip() for name in names.split(",") if name.strip())


def least_likely(row: Anomaly, shown: ShownRows | None = None) -> str:
    """A row in words: what names it, its scores, and its most surprising cells. Cells that are no
    more surprising than one in ten is are left out, but for the first."""
    highest = row.highest(SHOWN_CELLS)
    odd = [cell for cell in highest if cell[1] >= ONE_IN_TEN] or highest[:1]
    cells = ", ".join(_cell(row.row, name, surprise, shown) for name, surprise in odd)
    names = shown.names_of(row.row) if shown else {}
    named = ", ".join(f"{name} {text or 'missing'}" for name, text in names.items())
    who = f"row {row.row} ({named})" if named else f"row {row.row}"
    scores = f"surprise {score_figure(row.surprise)}, nelbo {score_figure(row.nelbo)}"
    return f"{who}: {scores}, p-value {row.p_value:.2g}; most surprising: {cells}"


def _cell(row: int, name: str, surprise: float, shown: ShownRows | None) -> str:
    """A cell and, in brackets, its surprise and what it was probably meant to be."""
    if shown is None:
        return f"{name} ({score_figure(surprise)})"
    meant = shown.meant(row, name)
    question = f", did you mean {meant}?" if meant else ""
    text = cut(rounded(shown.text(row, name)))
    return f"{name} {text} ({score_figure(surprise)}{question})"


def _run(
    request: Request,
    table: TableFile | None,
    target: OutputFile,
    errors: Path | None,
    console: Console,
) -> None:
    """Run a request here or on a service, and say what it came to."""
    runner = choose_runner(read_settings(), request.model, console)
    with RowErrors(errors, target.path) as faults:
        done = runner.run(request, table, target, faults)
    faults.check(done.written)
    for line in [*_lines(done, target), *faults.words()]:
        console.say(line)
    if done.seed is not None and getattr(request, "seed", None) is None:
        console.say(f"--seed {done.seed} makes the same rows again")
    console.result(_as_json(done, target, faults))


def _lines(done: Done, target: OutputFile) -> list[str]:
    where = "standard output" if target.path == "-" else target.path
    if done.anomalies is None:
        lines = [f"{done.written:,} rows in {where}"]
        if done.conditions:
            lines.append(words_of(done.conditions))
        return lines
    limit = f"p-value <= {done.threshold:.4g}" if done.threshold else "no p-value is small enough"
    lines = [
        f"{done.written:,} rows scored, {done.anomalies:,} of them anomalies ({limit}); scores in"
        f" {where}"
    ]
    if done.top:
        lines.append("  the least likely:")
    return lines + [f"  {least_likely(row, done.shown)}" for row in done.top]


def _as_json(done: Done, target: OutputFile, faults: RowErrors) -> dict[str, Any]:
    result: dict[str, Any] = {
        "model": done.model,
        "job": done.job,
        "output": target.path,
        "rows": done.rows,
        "rows_written": done.written,
        "rows_failed": faults.count,
    }
    if done.anomalies is None:
        result["seed"] = done.seed
    if done.conditions:
        result["conditions"] = done.conditions
    if done.anomalies is not None:
        result |= {
            "anomalies": done.anomalies,
            "threshold": done.threshold,
            "least_likely": [
                row.model_dump()
                | {"identifiers": done.shown.names_of(row.row) if done.shown else None}
                for row in done.top
            ],
        }
    return result

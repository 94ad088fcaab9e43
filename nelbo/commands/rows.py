"""score, generate, augment, reconstruct: in this process on an artifact, or as a job on a service.
The same rows either way."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pyarrow as pa
import typer

from nelbo.client import Client, JobHandle, Request
from nelbo.commands import local, options, service
from nelbo.commands.catalog import folder_of
from nelbo.commands.console import Console, Tell
from nelbo.commands.faults import Faults
from nelbo.commands.tables import Given, Out, out
from nelbo.encoding import check_columns
from nelbo.files import DETECTED, CsvOptions, Table, open_writer
from nelbo.jobs import AugmentRequest, GenerateRequest, ReconstructRequest, ScoreRequest
from nelbo.rows import Anomaly
from nelbo.scores import already_known, out_of_reach
from nelbo.settings import read_settings

if TYPE_CHECKING:
    from nelbo.engine import Engine

SHOWN_ROWS, SHOWN_TERMS = 3, 3


@dataclass(frozen=True)
class Done:
    """What a command came to: rows given or asked for, rows written, rows that could not be
    done."""

    model: str
    rows: int
    written: int
    faults: Faults
    job: str | None = None
    anomalies: int | None = None
    threshold: float | None = None
    top: list[Anomaly] = field(default_factory=list)


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
        bool, typer.Option("--explain", help="also a term for each column, and kl")
    ] = False,
    errors: options.Errors = None,
    input_format: options.InputFormat = None,
    output_format: options.OutputFormat = None,
    safe_csv: options.SafeCsv = False,
    csv: CsvOptions = DETECTED,
    as_json: options.Json = False,
) -> None:
    """Score each row of a table by its negative ELBO.

    OUT has the columns row, nelbo (nats: how unlikely the row is), p_value and anomaly; with
    --explain also term_COLUMN for each column, and kl, which add up to the nelbo. Rows that cannot
    be scored are counted and left out.

    \b
    Examples:
      nelbo score adult new.csv -o scores.parquet --explain
      nelbo score adult@2 new.parquet -o scores.csv --alpha 0.001 --errors bad.jsonl
      cat new.csv | nelbo score ./adult - -o - --input-format csv --fdr 0.1
    """
    asked = options.request(ScoreRequest, model=model, alpha=alpha, fdr=fdr, explain=explain)
    given, console = Given(file, input_format, csv), Console(as_json)
    tally = local.Tally()

    def work(
        engine: "Engine", table: Table, faults: Faults, tell: Tell
    ) -> Iterator[pa.RecordBatch]:
        return local.score(engine, table, asked, tally, faults, tell)

    done = _of_rows(
        asked, given, out(output, output_format, as_json, safe_csv), errors, console, work, tally
    )
    _report(console, done, output)


def generate(
    model: options.Model,
    rows: Annotated[int, typer.Option(metavar="N", help="rows to make", show_default=False)],
    output: options.Output,
    seed: options.Seed = 0,
    output_format: options.OutputFormat = None,
    safe_csv: options.SafeCsv = False,
    as_json: options.Json = False,
) -> None:
    """Make new rows like those of the training table.

    The first n rows of a longer generation are the shorter one. Identifiers are not made.

    \b
    Examples:
      nelbo generate adult --rows 10000 --seed 1 -o made.csv
      nelbo generate ./adult --rows 100 -o - --output-format jsonl
    """
    asked = options.request(GenerateRequest, model=model, n=rows, seed=seed)
    target, console, settings = (
        out(output, output_format, as_json, safe_csv),
        Console(as_json),
        read_settings(),
    )
    folder = folder_of(settings, model)
    if folder is None:
        with Client(settings=settings) as client, service.finished(client, asked, console) as job:
            service.download(job, target, console)
            done = _of_job(job, Faults())
    else:
        engine = local.load(folder, "generate")
        with console.progress("generating") as tell:
            written = _write(local.generate(engine, asked, settings, tell), target)
        done = Done(model, rows, written, Faults())
    _report(console, done, output)


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
    seed: options.Seed = 0,
    errors: options.Errors = None,
    input_format: options.InputFormat = None,
    output_format: options.OutputFormat = None,
    safe_csv: options.SafeCsv = False,
    csv: CsvOptions = DETECTED,
    as_json: options.Json = False,
) -> None:
    """Make rows like given ones: each is a draw near its row.

    With a --spread it is drawn farther off, and with --spread 1 it has no more to do with its row
    than a generated one. OUT has the columns row (the given row), copy (0, 1, 2 ...) and those of
    the table.

    \b
    Examples:
      nelbo augment adult few.csv --per-row 5 -o more.csv
      nelbo augment adult few.csv --per-row 5 --spread 0.3 --seed 1 -o more.parquet
    """
    asked = options.request(AugmentRequest, model=model, per_row=per_row, seed=seed, spread=spread)
    given, console = Given(file, input_format, csv), Console(as_json)

    def work(
        engine: "Engine", table: Table, faults: Faults, tell: Tell
    ) -> Iterator[pa.RecordBatch]:
        return local.augment(engine, table, asked, faults, tell)

    done = _of_rows(
        asked, given, out(output, output_format, as_json, safe_csv), errors, console, work
    )
    _report(console, done, output)


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
    seed: options.Seed = 0,
    errors: options.Errors = None,
    input_format: options.InputFormat = None,
    output_format: options.OutputFormat = None,
    safe_csv: options.SafeCsv = False,
    csv: CsvOptions = DETECTED,
    as_json: options.Json = False,
) -> None:
    """Fill the missing cells of a table, given the others.

    OUT has the column row and those of the table. Observed cells stay as they are, unless
    --denoise.

    \b
    Examples:
      nelbo reconstruct adult gaps.csv -o filled.csv --mode
      nelbo reconstruct adult noisy.csv -o clean.csv --denoise --seed 1
    """
    asked = options.request(ReconstructRequest, model=model, mode=mode, denoise=denoise, seed=seed)
    given, console = Given(file, input_format, csv), Console(as_json)

    def work(
        engine: "Engine", table: Table, faults: Faults, tell: Tell
    ) -> Iterator[pa.RecordBatch]:
        return local.reconstruct(engine, table, asked, faults, tell)

    done = _of_rows(
        asked, given, out(output, output_format, as_json, safe_csv), errors, console, work
    )
    _report(console, done, output)


Work = Callable[["Engine", Table, Faults, Tell], Iterator[pa.RecordBatch]]
"""The rows that an engine makes of a table."""


def _of_rows(
    asked: ScoreRequest | AugmentRequest | ReconstructRequest,
    given: Given,
    target: Out,
    errors: Path | None,
    console: Console,
    work: Work,
    tally: local.Tally | None = None,
) -> Done:
    """A job about given rows, wherever it is done."""
    settings = read_settings()
    folder = folder_of(settings, asked.model)
    with Faults(errors, target.path) as faults:
        if folder is None:
            with Client(settings=settings) as client:
                done = _on_service(client, asked, given, target, faults, console)
        else:
            done = _here(folder, asked, given, target, faults, console, work, tally)
    faults.check(done.written)
    return done


def _here(
    folder: Path,
    asked: ScoreRequest | AugmentRequest | ReconstructRequest,
    given: Given,
    target: Out,
    faults: Faults,
    console: Console,
    work: Work,
    tally: local.Tally | None,
) -> Done:
    engine = local.load(folder, asked.kind)
    with given.open(read_settings()) as table:
        console.notices([*table.notices, *check_columns(table.names, engine.schema)])
        console.notices(_out_of_reach(asked, engine.manifest.calibration.smallest))
        rows, counted = [0], f"{service.DOING[asked.kind]} {given.name}"
        with console.progress(counted) as tell:
            written = _write(work(engine, table, faults, _both(tell, rows)), target)
        console.notices(table.late_notices)
    if tally is not None:
        console.notices(already_known(tally.digest.hexdigest(), engine.manifest.table_digest))
    found = (
        {}
        if tally is None
        else {
            "anomalies": tally.anomalies,
            "threshold": tally.threshold,
            "top": tally.top[:SHOWN_ROWS],
        }
    )
    return Done(asked.model, rows[0], written, faults, **found)  # type: ignore[arg-type]  # the fields of a scoring


def _out_of_reach(asked: Request, smallest: float) -> Iterator[str]:
    if isinstance(asked, ScoreRequest):
        yield from out_of_reach(asked.alpha, asked.fdr, smallest)


def _both(tell: Tell, rows: list[int]) -> Tell:
    def told(done: int, of: int | None = None) -> None:
        rows[0] = done
        tell(done, of)

    return told


def _write(batches: Iterator[pa.RecordBatch], target: Out) -> int:
    """Write all rows; where there are none, OUT is left as it is."""
    filled = (batch for batch in batches if batch.num_rows)
    first = next(filled, None)
    if first is None:
        return 0
    written = 0
    with open_writer(target.path, target.format, safe_csv=target.safe_csv) as writer:
        for batch in itertools.chain([first], filled):
            writer.write(batch)
            written += batch.num_rows
    return written


def _on_service(
    client: Client,
    asked: ScoreRequest | AugmentRequest | ReconstructRequest,
    given: Given,
    target: Out,
    faults: Faults,
    console: Console,
) -> Done:
    file = service.upload(client, given, console)
    name, _, which = asked.model.partition("@")
    version = client.models.version(name, which or "champion")
    service.check_table(version, file, console)
    console.notices(_out_of_reach(asked, version.smallest_p_value or 0.0))
    if isinstance(asked, ScoreRequest):
        console.notices(already_known(file.digest, version.table_digest))
    request: Request = asked.model_copy(update={"file": file.id})
    with service.finished(client, request, console) as job:
        if job.view.progress.rows_failed:
            faults.add(job.errors())
        if job.view.progress.rows_failed < job.view.progress.rows:
            service.download(job, target, console)
        return _of_job(job, faults)


def _of_job(job: JobHandle, faults: Faults) -> Done:
    view, summary = job.view, job.view.summary or {}
    done = view.progress.rows - view.progress.rows_failed
    if view.kind != "score":
        return Done(view.model, view.progress.rows, summary.get("rows_made", done), faults, view.id)
    top = job.anomalies(SHOWN_ROWS)
    return Done(
        view.model,
        view.progress.rows,
        done,
        faults,
        view.id,
        summary.get("anomalies"),
        view.threshold,
        top,
    )


def _report(console: Console, done: Done, output: str) -> None:
    for line in [*_words(done, output), *done.faults.words()]:
        console.say(line)
    console.result(_as_json(done, output))


def _words(done: Done, output: str) -> list[str]:
    where = "standard output" if output == "-" else output
    if done.anomalies is None:
        return [f"{done.written:,} rows in {where}"]
    limit = f"p-value <= {done.threshold:.4g}" if done.threshold else "no p-value is small enough"
    lines = [
        f"{done.written:,} rows scored, {done.anomalies:,} of them anomalies ({limit}); scores in"
        f" {where}"
    ]
    return (
        lines
        + ["  the least likely:"] * bool(done.top)
        + [f"  {least_likely(row)}" for row in done.top]
    )


def least_likely(row: Anomaly, terms: int = SHOWN_TERMS) -> str:
    """A row in words: its nelbo, its p-value, and the columns that cost the most."""
    shown = ", ".join(f"{name} {value:.1f}" for name, value in row.highest(terms))
    return f"row {row.row}: nelbo {row.nelbo:.1f}, p-value {row.p_value:.2g}; {shown}"


def _as_json(done: Done, output: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "model": done.model,
        "job": done.job,
        "output": output,
        "rows": done.rows,
        "rows_written": done.written,
        "rows_failed": done.faults.count,
    }
    if done.anomalies is not None:
        top = [row.model_dump() for row in done.top]
        found |= {"anomalies": done.anomalies, "threshold": done.threshold, "least_likely": top}
    return found

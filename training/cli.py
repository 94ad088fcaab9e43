"""`python -P -m training.cli`: trains a model in a process of its own.

`nelbo train` runs it and then registers the artifact.
"""

import os
import signal

if __name__ == "__main__":
    # While torch is loaded, ^C and SIGTERM end the program without a traceback. `program.prepare`
    # takes over later.
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: os._exit(128 + number))

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

# OpenMP reads this when torch is loaded: waiting threads yield their core, as a busy machine needs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from nelbo import program
from nelbo.files import CsvOptions, Limits
from nelbo.jobs import LARGEST_SEED
from nelbo.schema import Schema
from nelbo.settings import read_settings

from .config import Config
from .data import TrainingSource
from .pipeline import Run, train
from .progress import errors, progress_bars

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="table: CSV, Parquet, Arrow or JSON Lines")],
    name: Annotated[str, typer.Option(help="name of the model")],
    out: Annotated[
        Path | None, typer.Option(help="folder for the artifact (default: ./NAME)")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file that overrides training settings (training.config.Config)"),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="train a draft in less than half the time")
    ] = False,
    schema: Annotated[
        Path | None, typer.Option(help="JSON file with the schema (default: inferred)")
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            max=LARGEST_SEED,
            help="random seed; the same table, settings and seed give the same artifact",
        ),
    ] = 0,
    rules: Annotated[
        str, typer.Option(help="further rules that made rows keep: a JSON array of texts")
    ] = "[]",
    csv: Annotated[
        str,
        typer.Option(help="dialect of a CSV file: JSON with fields of nelbo.files.CsvOptions"),
    ] = "{}",
    as_json: Annotated[
        bool, typer.Option("--json", help="print the result as one JSON object")
    ] = False,
) -> None:
    """Fit a variational autoencoder to a table and write it as an ONNX artifact."""
    source = table_source(file, csv)
    with progress_bars() as stage:
        finished = train(
            source,
            name,
            out or Path(name),
            with_declared(configuration(config, quick), json.loads(rules)),
            seed,
            Schema.read(schema) if schema else None,
            stage,
        )

    print_notices(finished.notices)
    print(json.dumps(_summary(finished)) if as_json else _words(finished))


def table_source(file: Path, csv: str) -> TrainingSource:
    """The table to train on. `csv` is the dialect as JSON."""
    settings = read_settings()
    limits = Limits(columns=settings.max_columns, unpacked_bytes=settings.max_upload_bytes)
    return TrainingSource(file, CsvOptions(**json.loads(csv)), limits)


def configuration(file: Path | None, quick: bool) -> Config:
    """The configuration in a file, or the defaults."""
    if file is not None:
        return Config.read(file)
    return Config.quick() if quick else Config()


def with_declared(config: Config, rules: Sequence[str]) -> Config:
    """The configuration with further rules."""
    return config.model_copy(update={"rules": (*config.rules, *rules)})


def print_notices(notices: Iterable[str]) -> None:
    for notice in notices:
        errors.print("[yellow]note:[/]", escape(notice), soft_wrap=True)


def main() -> None:
    program.prepare()
    command()


def command(app: typer.Typer = app) -> None:
    """Train and end with an exit code; an error is one sentence on standard error."""
    program.run(
        app, lambda sentence: errors.print("[red]error:[/]", escape(sentence), soft_wrap=True)
    )


def _summary(run: Run) -> dict[str, object]:
    manifest = run.artifact.manifest
    return {
        "folder": str(run.artifact.folder),
        "digest": run.artifact.digest,
        "model": manifest.name,
        "rows": manifest.data["rows"],
        "columns": len(manifest.order),
        "seconds": run.seconds,
        "metrics": manifest.metrics,
        "report": str(run.report) if run.report else None,
        "notices": list(run.notices),
    }


def _words(run: Run) -> str:
    manifest = run.artifact.manifest
    rows = f"{manifest.data['rows']:,} rows"
    columns = f"{len(manifest.order)} columns"
    seconds = f"{sum(run.seconds.values()):.0f} s"
    nelbo = _figure(manifest.metrics.get("nelbo"), "{:.2f} nats")
    lines = [
        f"{run.artifact.folder}: {rows}, {columns}, {seconds}",
        f"  mean nelbo of held-out rows  {nelbo}",
        f"  synthetic columns, pairs     off by {_errors(manifest.metrics, '')}",
        f"  … fresh real rows            off by {_errors(manifest.metrics, '_floor')}",
    ]
    if run.report:
        lines.append(f"  report                       {run.report}")
    return "\n".join(lines)


def _errors(metrics: Mapping[str, float], suffix: str) -> str:
    """The errors of single columns and of pairs of columns, in percent."""
    names = (f"shape_error{suffix}", f"pair_error{suffix}")
    return ", ".join(_figure(metrics.get(name), "{:.1f} %") for name in names)


def _figure(value: float | None, form: str) -> str:
    return "not measured" if value is None else form.format(value)


if __name__ == "__main__":
    main()

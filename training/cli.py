"""`python -P -m training.cli`: trains in a process of its own; `nelbo train` runs it and registers
what it made."""

import os
import signal

if __name__ == "__main__":
    # ^C and SIGTERM end the program without a trace while torch is loaded; `program.prepare` takes
    # over.
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: os._exit(128 + number))

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

# Read by OpenMP when torch is loaded: threads that wait give their core away, which a busy machine
# needs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from nelbo import program
from nelbo.files import CsvOptions, Limits
from nelbo.schema import Schema
from nelbo.settings import read_settings
from training.config import Config
from training.data import Source
from training.pipeline import Run, Stage, train

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
errors = Console(stderr=True, highlight=False)


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="CSV, Parquet, Arrow or JSON Lines")],
    name: Annotated[str, typer.Option(help="name of the model")],
    out: Annotated[
        Path | None, typer.Option(help="folder of the artifact; the name if not given")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="run.toml with keys of training.config.Config")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="a draft in less than half of the time")
    ] = False,
    schema: Annotated[
        Path | None, typer.Option(help="schema file (JSON) in place of the inferred one")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="same table, configuration and seed: same artifact")
    ] = 0,
    csv: Annotated[
        str,
        typer.Option(help="how a CSV file is written: JSON with fields of nelbo.files.CsvOptions"),
    ] = "{}",
    as_json: Annotated[
        bool, typer.Option("--json", help="one JSON object on standard output")
    ] = False,
) -> None:
    """Fit a variational autoencoder to a table and write it as an ONNX artifact."""
    settings = read_settings()
    limits = Limits(columns=settings.max_columns, unpacked_bytes=settings.max_upload_bytes)
    source = Source(file, CsvOptions(**json.loads(csv)), limits)
    with _progress() as stage:
        done = train(
            source,
            name,
            out or Path(name),
            Config.read(config) if config else Config.quick() if quick else Config(),
            seed,
            Schema.read(schema) if schema else None,
            stage,
        )
    for notice in done.notices:
        errors.print("[yellow]note:[/]", escape(notice), soft_wrap=True)
    print(json.dumps(_summary(done)) if as_json else _words(done))


def main() -> None:
    program.prepare()
    command()


def command() -> None:
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
    manifest, seconds = run.artifact.manifest, sum(run.seconds.values())

    def of(name: str, form: str) -> str:
        return form.format(manifest.metrics[name]) if name in manifest.metrics else "not measured"

    off_by = {
        end: [of(f"{name}{end}", "{:.1f} %") for name in ("shape_error", "pair_error")]
        for end in ("", "_floor")
    }
    return "\n".join(
        [
            f"{run.artifact.folder}: {manifest.data['rows']:,} rows, {len(manifest.order)} columns,"
            f" {seconds:.0f} s",
            f"  mean nelbo of held-out rows  {of('nelbo', '{:.2f} nats')}",
            f"  synthetic columns, pairs     off by {', '.join(off_by[''])}",
            f"  … fresh real rows            off by {', '.join(off_by['_floor'])}",
            *([f"  look at                      {run.report}"] if run.report else []),
        ]
    )


class _progress:  # reads as a function: `with _progress() as stage`
    """A bar for each stage on a terminal; elsewhere one line a stage."""

    def __enter__(self) -> Stage:
        columns = (
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[words]}"),
        )
        self.bars, self.tasks = (
            Progress(*columns, console=errors, disable=not errors.is_terminal),
            dict[str, TaskID](),
        )
        self.bars.start()
        return self.tell

    def tell(self, stage: str, done: int, of: int, words: str) -> None:
        if stage not in self.tasks:
            self._close_last()
            self.tasks[stage] = self.bars.add_task(stage, total=None, words=words)
            if not errors.is_terminal:
                errors.print(f"{stage}: {words}")
        self.bars.update(self.tasks[stage], completed=done, total=of or None, words=words)

    def _close_last(self) -> None:
        if self.tasks:
            last = self.bars.tasks[-1]
            self.bars.update(last.id, total=last.completed or 1, completed=last.completed or 1)

    def __exit__(self, *_: object) -> None:
        self._close_last()
        self.bars.stop()


if __name__ == "__main__":
    main()

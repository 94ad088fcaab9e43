"""train, push and schema: from a table to a registered version of a model."""

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import pyarrow as pa
import typer

from nelbo import data_folder, program
from nelbo.artifact import read_artifact
from nelbo.client import Client, find_url
from nelbo.commands import options
from nelbo.commands.console import Console, print_json
from nelbo.commands.table_files import TableFile
from nelbo.errors import InvalidInput, MissingExtra, NelboError, Unavailable
from nelbo.files import DETECTED, CsvOptions, check_target, open_target
from nelbo.jobs import LARGEST_SEED
from nelbo.rule_finding import MOST_ROWS, candidate_rules
from nelbo.schema import Kind, Schema
from nelbo.schema_inference import Inspector
from nelbo.settings import Settings, read_settings
from nelbo.views import Version

NOTHING: Mapping[str, str] = MappingProxyType({})
KINDS = Kind.__args__  # type: ignore[attr-defined]  # of a Literal


@options.csv
def train(
    file: options.File,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="name of the model", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="folder for the artifact (default: ./NAME)", file_okay=False
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML file that overrides training settings"),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="train a draft in less than half the time")
    ] = False,
    schema: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSON file with the schema, as `nelbo schema` prints it (default: inferred)",
        ),
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="what made rows must keep, beside the rules that training finds, such as"
            " 'start <= end', 'model -> seats' or 'total = net + tax'; may be repeated",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            max=LARGEST_SEED,
            help="random seed; the same table, settings and seed give the same artifact",
        ),
    ] = 0,
    input_format: options.InputFormat = None,
    csv: CsvOptions = DETECTED,
    as_json: options.Json = False,
) -> None:
    """Train a model on a table, and register it.

    The artifact (manifest, ONNX graphs, model card, report.html) is written to DIR. It becomes the
    next version of the model NAME: on the service if one runs, otherwise in the data folder.

    \b
    Examples:
      nelbo train adult.csv --name adult
      nelbo train adult.csv --name draft --quick
      nelbo train stays.csv --name stays --rule 'arrival <= departure'
      nelbo train adult.parquet --name adult --out models/adult --seed 1 --config run.toml
    """
    data_folder.check_name(name)
    if quick and config:
        raise InvalidInput("--quick and --config exclude each other; use one of them")
    settings = read_settings()
    console = Console(as_json)
    folder = out or Path(name)
    _check_registering(settings)

    files = {"config": config, "schema": schema}
    more = {option: str(path) for option, path in files.items() if path is not None}
    more["csv"] = json.dumps(csv.given())
    more["rules"] = json.dumps(rule or [])
    with TableFile(file, input_format, csv).on_disk() as path:
        summary = run(path, name, folder, seed, more, quick)

    with _kept(folder, name):
        version = _register(folder, name, settings, console)
    report = f"; its quality is in {folder / 'report.html'}" if summary["report"] else ""
    console.say(f"{folder} is {version.model}@{version.version}{report}")
    console.result(summary | {"model": version.model, "version": version.version})


def push(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="folder with an artifact", show_default=False)
    ],
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="name of the model (default: the name in the artifact)"),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Register an artifact as the next version of a model.

    It is registered on the service if one runs, otherwise in the data folder.

    \b
    Examples:
      nelbo push ./adult
      nelbo push ./adult --name adult-2024
    """
    settings = read_settings()
    console = Console(as_json)
    name = read_artifact(folder).manifest.name if name is None else name
    data_folder.check_name(name)
    _check_registering(settings)
    version = _register(folder, name, settings, console)
    console.say(f"{folder} is {version.model}@{version.version}")
    console.result(version.model_dump())


@options.csv
def schema(
    file: options.File,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="OUT", help="file to write (default: standard output)"
        ),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN=KIND",
            help=f"set the kind of a column; kinds are {', '.join(KINDS)}",
            show_default=False,
        ),
    ] = None,
    input_format: options.InputFormat = None,
    csv: CsvOptions = DETECTED,
    as_json: options.Json = False,
) -> None:
    """Infer the schema of a table and print it as JSON.

    A list of the columns is printed on standard error: the kind, what decided it, and examples.
    Then come the rules that all rows keep, such as start <= end. Correct a kind with --kind, or
    edit the file (drop or add a rule under "rules"); then train with it.

    \b
    Examples:
      nelbo schema adult.csv
      nelbo schema adult.csv --kind zip=categorical -o schema.json
      nelbo train adult.csv --name adult --schema schema.json
    """
    console = Console(as_json)
    if output is not None:
        check_target(output)
    inspector = Inspector(dict(_column_and_kind(text) for text in kind or ()))
    sample: list[pa.RecordBatch] = []
    with TableFile(file, input_format, csv).open(read_settings()) as table:
        with console.progress(f"reading {table.name}") as tell:
            rows = 0
            for batch in table.batches():
                inspector.update(batch)
                if rows < MOST_ROWS:
                    sample.append(batch)
                rows += batch.num_rows
                tell(rows, table.rows)
        inferred = inspector.finish()
        with console.waiting("looking for rules"):
            rules = candidate_rules(pa.Table.from_batches(sample), inferred.schema)
    inferred = replace(inferred, schema=inferred.schema.model_copy(update={"rules": rules}))

    console.notices([*table.notices, *table.late_notices, *inferred.notices])
    if not as_json:
        lines = [
            (
                decision.column.name,
                decision.column.kind,
                decision.rule,
                ", ".join(decision.examples),
            )
            for decision in inferred.decisions
        ]
        console.table(("column", "kind", "because", "such as"), lines, beside=True)
        if rules:
            support = [(rule.text, f"{rule.rows:,}") for rule in rules]
            console.table(("rule", "rows that keep it"), support, beside=True)

    if output is not None:
        _save(output, _lines(inferred.schema))
    elif as_json:
        console.result(_short(inferred.schema))
    elif not sys.stdout.isatty():
        print_json(_lines(inferred.schema))
    else:
        console.say(f"`nelbo schema {file} -o schema.json` writes a file to edit and to train with")


def _short(schema: Schema) -> dict[str, Any]:
    """A schema as a dictionary, without its default values."""
    return {
        "missing": list(schema.missing),
        **schema.model_dump(mode="json", exclude_defaults=True),
        "rules": [rule.text for rule in schema.rules or ()],
    }


def _lines(schema: Schema) -> str:
    """A schema as JSON, with one line for each column."""
    content = _short(schema)
    columns = ",\n".join(
        f"    {json.dumps(column, ensure_ascii=False)}" for column in content["columns"]
    )
    missing = json.dumps(content["missing"], ensure_ascii=False)
    rules = json.dumps(content["rules"], ensure_ascii=False)
    return f'{{\n  "columns": [\n{columns}\n  ],\n  "rules": {rules},\n  "missing": {missing}\n}}'


def _save(path: Path, text: str) -> None:
    with open_target(path) as target:
        target.write(text.encode() + b"\n")


def _column_and_kind(text: str) -> tuple[str, Kind]:
    column, _, name = text.rpartition("=")
    for kind in KINDS:
        if column and kind == name:
            return column, kind
    raise typer.BadParameter(
        f"{text!r} is not COLUMN=KIND; kinds are {', '.join(KINDS)}", param_hint="--kind"
    )


def run(
    file: Path,
    name: str,
    folder: Path,
    seed: int,
    more: Mapping[str, str] = NOTHING,
    quick: bool = False,
) -> dict[str, Any]:
    """Train in a process of its own, so that torch is never loaded here. Returns its summary.

    more: further options of `training.cli`.

    The progress and the errors of the training are on standard error. If it fails, this command
    ends with the same exit code.
    """
    fixed = {"name": name, "out": str(folder), "seed": str(seed)}
    return in_child("train", "training.cli", file, {**fixed, **more}, quick)


def in_child(
    name: str, module: str, file: Path, arguments: Mapping[str, str], quick: bool
) -> dict[str, Any]:
    """Run a module of training about a table, for the command of this name. Returns its summary."""
    if find_spec("torch") is None:
        raise MissingExtra(f"nelbo {name}", "training")
    command = [
        sys.executable,
        "-P",
        "-m",
        "nelbo.programs",
        module,
        *(f"--{key}={value}" for key, value in arguments.items()),
        *(["--quick"] if quick else []),
        "--json",
        "--",
        str(file),
    ]
    # The child is in a process group of its own, so that ^C on the terminal does not reach it: it
    # would print a traceback while it starts.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0) as child:
        try:
            answer, _ = child.communicate()
        except BaseException:
            child.terminate()
            child.wait()
            raise
    if child.returncode:
        raise _failure(child.returncode)
    summary: dict[str, Any] = json.loads(answer)
    return summary


def _failure(status: int) -> Exception:
    """The error that ends this command after a training with this status.

    A training that could has printed the reason itself.
    """
    if status > 0:
        return typer.Exit(status)
    if status in (-signal.SIGINT, -signal.SIGTERM):
        return typer.Exit(program.STOPPED - status)
    if status == -signal.SIGKILL:
        return NelboError(
            "SIGKILL ended the training, perhaps for lack of memory; free some memory, or train on"
            " fewer rows (max_train_rows)"
        )
    return NelboError(f"{signal.Signals(-status).name} ended the training")


def _check_registering(settings: Settings) -> None:
    """Raise an error, before the work, if the artifact could not be registered after it."""
    if find_url(settings):
        with Client(settings=settings) as client:
            next(client.models.list(), None)
    else:
        data_folder.check_registering(settings)


@contextmanager
def _kept(folder: Path, name: str) -> Iterator[None]:
    """If registering fails, add to the error how to register the artifact later."""
    command = shlex.join(["nelbo", "push", str(folder), "--name", name])
    advice = f"The model is trained: the artifact is in {folder}; `{command}` registers it"
    try:
        yield
    except NelboError as problem:
        problem.message = f"{problem.message}. {advice}"
        raise
    except OSError as problem:
        raise Unavailable(f"{problem.strerror or problem}. {advice}") from None


def _register(folder: Path, name: str, settings: Settings, console: Console) -> Version:
    if find_url(settings):
        with Client(settings=settings) as client:
            with console.progress(f"pushing {name}", "bytes") as tell:
                pushed = client.models.push(folder, name=name, progress=tell, wait=False)
            with console.waiting(f"verifying {name}@{pushed.version}"):
                return client.models.wait(pushed)
    with data_folder.opened(settings, make=True) as here:
        return data_folder.register(here, folder, name).view

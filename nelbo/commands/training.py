"""train, push, schema: from a table to a registered version."""

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer

from nelbo import program
from nelbo.artifact import read_artifact
from nelbo.client import Client, find_url
from nelbo.commands import catalog, options
from nelbo.commands.console import Console, print_json
from nelbo.commands.tables import Given
from nelbo.errors import InvalidInput, MissingExtra, NelboError, Unavailable
from nelbo.files import DETECTED, CsvOptions, check_target, open_target
from nelbo.inference import Inspector
from nelbo.schema import Kind, Schema
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
        typer.Option(metavar="DIR", help="folder of the artifact (./NAME)", file_okay=False),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="run.toml: how to train, where not as usual")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="a draft in less than half of the time")
    ] = False,
    schema: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="schema as `nelbo schema` prints it, in place of the inferred one"
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="same table, configuration and seed: same artifact"),
    ] = 0,
    input_format: options.InputFormat = None,
    csv: CsvOptions = DETECTED,
    as_json: options.Json = False,
) -> None:
    """Train a model on a table and register its next version.

    The artifact (manifest, ONNX graphs, model card, report.html) is written to DIR. It is
    registered on the service where one runs, else in the data folder.

    \b
    Examples:
      nelbo train adult.csv --name adult
      nelbo train adult.csv --name draft --quick
      nelbo train adult.parquet --name adult --out models/adult --seed 1 --config run.toml
    """
    catalog.check_name(name)
    if quick and config:
        raise InvalidInput("--quick is a configuration of its own; give either --quick or --config")
    settings, console, folder = read_settings(), Console(as_json), out or Path(name)
    _check_registering(settings)
    given = Given(file, input_format, csv)
    more = {"config": config, "schema": schema, "csv": json.dumps(csv.given())}
    with given.on_disk() as path:
        made = run(
            path,
            name,
            folder,
            seed,
            {key: str(value) for key, value in more.items() if value is not None},
            quick,
        )
    with _kept(folder, name):
        version = _register(folder, name, settings, console)
    worth = f"; what it is worth: {folder / 'report.html'}" if made["report"] else ""
    console.say(f"{folder} is {version.model}@{version.version}{worth}")
    console.result(made | {"model": version.model, "version": version.version})


def push(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="folder with an artifact", show_default=False)
    ],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="name of the model (that in the artifact)")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Register an artifact as the next version of a model.

    On the service where one runs, else in the data folder.

    \b
    Examples:
      nelbo push ./adult
      nelbo push ./adult --name adult-2024
    """
    settings, console = read_settings(), Console(as_json)
    name = read_artifact(folder).manifest.name if name is None else name
    catalog.check_name(name)
    _check_registering(settings)
    version = _register(folder, name, settings, console)
    console.say(f"{folder} is {version.model}@{version.version}")
    console.result(version.model_dump())


@options.csv
def schema(
    file: options.File,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="OUT", help="instead of standard output"),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN=KIND",
            help=f"give a column's kind: {', '.join(KINDS)}",
            show_default=False,
        ),
    ] = None,
    input_format: options.InputFormat = None,
    csv: CsvOptions = DETECTED,
    as_json: options.Json = False,
) -> None:
    """Infer the schema of a table and print it as JSON.

    Beside it, on standard error: each column's kind, the rule that decided, and examples. Change a
    kind here, or anything else in the file, and train with it.

    \b
    Examples:
      nelbo schema adult.csv
      nelbo schema adult.csv --kind zip=categorical -o schema.json
      nelbo train adult.csv --name adult --schema schema.json
    """
    console = Console(as_json)
    if output is not None:
        check_target(output)
    overrides = dict(_kind(given) for given in kind or ())
    with Given(file, input_format, csv).open(read_settings()) as table:
        inspector = Inspector(overrides)
        with console.progress(f"reading {table.name}") as tell:
            rows = 0
            for batch in table.batches():
                inspector.update(batch)
                rows += batch.num_rows
                tell(rows, table.rows)
        found = inspector.finish()
    console.notices([*table.notices, *table.late_notices, *found.notices])
    if not as_json:
        lines = [
            (one.column.name, one.column.kind, one.rule, ", ".join(one.examples))
            for one in found.decisions
        ]
        console.table(("column", "kind", "because", "such as"), lines, beside=True)
    if output is not None:
        _save(output, _lines(found.schema))
    elif as_json:
        console.result(_shown(found.schema))
    elif not sys.stdout.isatty():
        print_json(_lines(found.schema))
    else:
        console.say(
            f"nelbo schema {file} -o schema.json writes it as a file to edit and to train with"
        )


def _shown(schema: Schema) -> dict[str, Any]:
    """A schema without what is as usual."""
    return {
        "missing": list(schema.missing),
        **schema.model_dump(mode="json", exclude_defaults=True),
    }


def _lines(schema: Schema) -> str:
    """A schema as JSON, a line a column."""
    shown = _shown(schema)
    columns = ",\n".join(
        f"    {json.dumps(column, ensure_ascii=False)}" for column in shown["columns"]
    )
    return (
        f'{{\n  "columns": [\n{columns}\n  ],\n  "missing":'
        f" {json.dumps(shown['missing'], ensure_ascii=False)}\n}}"
    )


def _save(path: Path, text: str) -> None:
    with open_target(path) as target:
        target.write(text.encode() + b"\n")


def _kind(given: str) -> tuple[str, Kind]:
    name, _, kind = given.rpartition("=")
    for known in KINDS:
        if name and known == kind:
            return name, known
    raise typer.BadParameter(
        f"{given!r} is not COLUMN=KIND with one of {', '.join(KINDS)}", param_hint="--kind"
    )


def run(
    file: Path,
    name: str,
    folder: Path,
    seed: int,
    more: Mapping[str, str] = NOTHING,
    quick: bool = False,
) -> dict[str, Any]:
    """Train in a process of its own, so that torch is never loaded here; its progress and its words
    go to standard error.

    Ends this command with the exit code of a training that failed, which has said why.
    """
    if find_spec("torch") is None:
        raise MissingExtra("nelbo train", "training")
    fixed = {"name": name, "out": str(folder), "seed": str(seed)}
    arguments = [f"--{key}={value}" for key, value in {**fixed, **more}.items()]
    flags = ["--quick"] * quick
    command = [
        sys.executable,
        "-P",
        "-m",
        "nelbo.programs",
        "training.cli",
        *arguments,
        *flags,
        "--json",
        "--",
        str(file),
    ]
    # In a group of its own, the child never sees the terminal's ^C, which would show a trace while
    # it starts.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0) as child:
        try:
            answer, _ = child.communicate()
        except BaseException:
            child.terminate()
            child.wait()
            raise
    if child.returncode:
        raise _ended(child.returncode)
    found: dict[str, Any] = json.loads(answer)
    return found


def _ended(status: int) -> Exception:
    """What ends this command after a training that failed: one that could has said why."""
    if status in (-signal.SIGINT, -signal.SIGTERM):
        return typer.Exit(program.STOPPED - status)
    if status < 0:
        message = f"{signal.Signals(-status).name} ended the training"
        if status == -signal.SIGKILL:
            message += (
                "; there may be too little memory: make some free, or train on fewer rows"
                " (max_train_rows)"
            )
        return NelboError(message)
    return typer.Exit(status)


def _check_registering(settings: Settings) -> None:
    """Refuse before the work what would keep an artifact from being registered."""
    if find_url(settings):
        with Client(settings=settings) as client:
            next(client.models.list(), None)
    else:
        catalog.check_registering(settings)


@contextmanager
def _kept(folder: Path, name: str) -> Iterator[None]:
    """Where registering fails, say where the artifact is and how to register it."""
    command = shlex.join(["nelbo", "push", str(folder), "--name", name])
    where = f"the artifact is in {folder}; `{command}` registers it"
    try:
        yield
    except NelboError as problem:
        problem.message = f"{problem.message}. The model is trained: {where}"
        raise
    except OSError as problem:
        raise Unavailable(f"{problem.strerror or problem}. The model is trained: {where}") from None


def _register(folder: Path, name: str, settings: Settings, console: Console) -> Version:
    if find_url(settings):
        with Client(settings=settings) as client:
            with console.progress(f"pushing {name}", "bytes") as tell:
                pushed = client.models.push(folder, name=name, progress=tell, wait=False)
            with console.waiting(f"verifying {name}@{pushed.version}"):
                return client.models.wait(pushed)
    with catalog.opened(settings, make=True) as here:
        return catalog.register(here, folder, name).view

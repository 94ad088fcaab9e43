"""`nelbo`: all commands in one app. An error is one sentence and an exit code."""

import os
import signal
import sys

if os.path.basename(sys.argv[0]) in ("nelbo", "cli.py"):
    # While the modules below are loaded, ^C and SIGTERM end the program without a traceback.
    # `program.prepare` takes over later.
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: os._exit(128 + number))

from collections import UserDict
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import nelbo
from nelbo import program


@dataclass(frozen=True)
class _Command:
    """Where a command is, in nelbo.commands, and the first sentence of its help."""

    module: str
    name: str
    summary: str

    def load(self, name: str) -> Any:
        """The command, as click runs it."""
        with program.ending_at_once():
            command = getattr(import_module(f"nelbo.commands.{self.module}"), self.name)
        app = typer.Typer(rich_markup_mode=None)
        app.callback()(options)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
        group = typer.main.get_command(app)
        assert isinstance(group, TyperGroup)
        return group.commands[name]


COMMANDS = {
    "up": _Command("system", "up", "Run the whole service on this machine."),
    "train": _Command("training", "train", "Train a model on a table, and register it."),
    "clean": _Command(
        "clean",
        "clean",
        "Find the wrong cells of a table: misspelt, misplaced, impossible or missing values.",
    ),
    "score": _Command(
        "rows", "score", "Score each row of a table, and say which rows are anomalies."
    ),
    "generate": _Command("rows", "generate", "Make new rows like those of the training table."),
    "augment": _Command(
        "rows", "augment", "Make rows like given ones: each is a draw near its row."
    ),
    "reconstruct": _Command(
        "rows", "reconstruct", "Fill the missing cells of a table, given the others."
    ),
    "explain": _Command(
        "explain", "explain", "Show which cells make a row odd, and what they should be."
    ),
    "results": _Command("jobs", "results", "Fetch the results of a job."),
    "push": _Command("training", "push", "Register an artifact as the next version of a model."),
    "schema": _Command("training", "schema", "Infer the schema of a table and print it as JSON."),
    "doctor": _Command(
        "doctor", "doctor", "Check the installation and the service, and say what to do."
    ),
    "audit": _Command("audit", "audit", "List changes and deletions, and who made them."),
    "migrate": _Command("system", "migrate", "Upgrade the database to the schema of this program."),
    "demo": _Command("system", "demo", "Show everything on a real table, in about two minutes."),
    "jobs": _Command("jobs", "app", "List (the default), show, cancel or retry jobs."),
    "models": _Command("models", "app", "List (the default), show, promote or delete models."),
    "keys": _Command(
        "keys", "app", "List (the default), create, rotate, revoke or import API keys."
    ),
    "owners": _Command("owners", "app", "Erase an owner with everything that belongs to it."),
}


class _Loaded(UserDict[str, Any]):
    """The commands, each loaded when it is asked for: all of them take a second."""

    def __getitem__(self, name: str) -> Any:
        return COMMANDS[name].load(name)


class _Commands(TyperGroup):
    """Lists the commands without loading them."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Loaded(COMMANDS)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.summary) for name, command in COMMANDS.items()])


app = typer.Typer(
    cls=_Commands,
    help="Find unusual rows in tables, and make new rows like those of a table."
    " `nelbo COMMAND --help` shows examples.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _print_version(flag: bool) -> None:
    if flag:
        print(nelbo.__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="print the version and exit", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """The options before the command."""


def main() -> None:
    """Run the command of this process.

    Exit codes: 0 done; 1 failed or refused; 2 wrong usage; 3 not found or not allowed; 130 after
    ^C; 143 after SIGTERM.
    """
    program.prepare()
    command()


def command() -> None:
    """Run a command and exit with its code. An error is one sentence on standard error."""
    program.run(
        lambda: app(prog_name="nelbo"),
        lambda sentence: print(f"nelbo: {sentence}", file=sys.stderr),
    )


if __name__ == "__main__":
    main()

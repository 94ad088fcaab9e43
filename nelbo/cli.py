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

from typing import Annotated

import typer

import nelbo
from nelbo import program
from nelbo.commands import (
    audit,
    clean,
    doctor,
    explain,
    jobs,
    keys,
    models,
    owners,
    rows,
    system,
    training,
)

app = typer.Typer(
    help="Find unusual rows in tables, and make new rows like those of a table."
    " `nelbo COMMAND --help` shows examples.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
for function in (
    system.up,
    training.train,
    clean.clean,
    rows.score,
    rows.generate,
    rows.augment,
    rows.reconstruct,
    explain.explain,
    jobs.results,
    training.push,
    training.schema,
    doctor.doctor,
    audit.audit,
    system.migrate,
    system.demo,
):
    app.command()(function)
app.add_typer(jobs.app, name="jobs")
app.add_typer(models.app, name="models")
app.add_typer(keys.app, name="keys")
app.add_typer(owners.app, name="owners")


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

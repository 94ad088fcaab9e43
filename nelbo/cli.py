"""`nelbo`: the commands in one app, and how an error becomes one sentence and an exit code."""

import os
import sys
import traceback
from typing import Annotated

import typer

import nelbo
from nelbo.commands import doctor, explain, jobs, models, rows, system, training
from nelbo.errors import NelboError

app = typer.Typer(
    help="Score table rows by negative ELBO and make rows like them. `nelbo COMMAND --help` has examples.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
for command in (
    system.up,
    training.train,
    rows.score,
    rows.generate,
    rows.augment,
    rows.reconstruct,
    explain.explain,
    jobs.results,
    training.push,
    training.schema,
    doctor.doctor,
    system.migrate,
    system.demo,
):
    app.command()(command)
app.add_typer(jobs.app, name="jobs")
app.add_typer(models.app, name="models")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(nelbo.__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="print the version", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Options before the command."""


def main() -> None:
    """Run a command. Exit codes: 0 done, 1 failed or refused, 2 wrong usage, 3 not found or not allowed, 130 ^C."""
    try:
        app(prog_name="nelbo")
    except NelboError as problem:
        _fail(problem.message, problem.exit_code)
    except BrokenPipeError:
        _fail(None, 1)
    except KeyboardInterrupt:
        _fail(None, 130)
    except OSError as problem:
        where = f"{problem.filename}: " if problem.filename else ""
        _fail(f"{where}{problem.strerror or problem}", 1)
    except Exception as problem:
        if os.environ.get("NELBO_LOG_LEVEL", "").upper() == "DEBUG":
            traceback.print_exc()
        _fail(f"a fault of Nelbo itself: {type(problem).__name__}: {problem} (NELBO_LOG_LEVEL=DEBUG shows where)", 1)


def _fail(sentence: str | None, code: int) -> None:
    """End with one sentence on standard error; what standard output still holds is nobody's any more."""
    if sentence is not None:
        print(f"nelbo: {sentence}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


if __name__ == "__main__":
    main()

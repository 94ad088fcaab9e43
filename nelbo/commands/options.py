"""Arguments and options that several commands share, and the requests that are made from them."""

import functools
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import typer
from pydantic import BaseModel, ValidationError

from nelbo.files import CsvOptions
from nelbo.jobs import LARGEST_SEED

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="a model (name, name@2 or name@alias), or a folder with an artifact",
        show_default=False,
    ),
]
File = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="CSV, Parquet, Arrow or JSON Lines file, also .gz or .zst; - reads standard input",
        show_default=False,
    ),
]
Output = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT",
        help="CSV, Parquet, Arrow or JSON Lines file to write, also .gz or .zst;"
        " - writes to standard output",
    ),
]
OutputOrScreen = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT",
        help="CSV, Parquet, Arrow or JSON Lines file to write (default: a table on the screen)",
    ),
]
OutputFormat = Annotated[
    str | None,
    typer.Option(
        metavar="FORMAT",
        help="format of OUT: csv, parquet, arrow or jsonl (default: by its suffix)",
    ),
]
RankOf = Annotated[
    str,
    typer.Option(
        metavar="SCORE",
        help="score that ranks rows: surprise finds one wrong cell in a row, and rows that are odd"
        " all over; nelbo is the bound on -log p(row) in nats",
    ),
]
SafeCsv = Annotated[
    bool,
    typer.Option(
        "--safe-csv",
        help="in CSV, put an apostrophe before text that a spreadsheet would run as a formula",
    ),
]
InputFormat = Annotated[
    str | None,
    typer.Option(
        metavar="FORMAT",
        help="format of FILE: csv, parquet, arrow or jsonl (default: by its suffix)",
    ),
]
_CSV = {
    "delimiter": Annotated[
        str | None,
        typer.Option(
            metavar="CHAR",
            help="CSV delimiter: a character, tab, or ' ' for any number of spaces"
            " (default: detected)",
        ),
    ],
    "encoding": Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="encoding of CSV or JSON Lines, such as utf-8 or windows-1252 (default: detected)",
        ),
    ],
    "decimal": Annotated[
        str | None,
        typer.Option(metavar="CHAR", help="CSV decimal sign: . or , (default: detected)"),
    ],
    "header": Annotated[
        bool | None,
        typer.Option(
            "--header/--no-header",
            help="whether the first CSV line holds the column names (default: detected)",
        ),
    ],
    "skip": Annotated[
        int | None,
        typer.Option(
            "--skip-lines",
            metavar="N",
            min=0,
            help="number of CSV lines to skip at the beginning (default: detected)",
        ),
    ],
}
Errors = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="file for the rows that could not be done, with the reasons, as JSON Lines",
        dir_okay=False,
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        max=LARGEST_SEED,
        help="random seed; the same seed, version and row number give the same row",
    ),
]
FreshSeed = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=0,
        max=LARGEST_SEED,
        help="random seed; the same seed, version and row number give the same row (default: a"
        " fresh one, which the command prints)",
        show_default=False,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="print the result as one JSON object on standard output")
]

_Command = TypeVar("_Command", bound=Callable[..., None])
_Request = TypeVar("_Request", bound=BaseModel)
_FLAGS = {"n": "--rows"}


def csv(command: _Command) -> _Command:
    """The command with an option for each field of a CSV dialect, in place of its `csv`."""

    @functools.wraps(command)
    def with_options(**arguments: Any) -> None:
        dialect = {name: arguments.pop(name) for name in _CSV}
        command(csv=CsvOptions(**dialect), **arguments)

    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name == "csv":
            parameters += _dialect_parameters()
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    # Typer reads these two.
    # Any function has one.
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {
        parameter.name: parameter.annotation for parameter in parameters
    }
    return cast(_Command, with_options)


def _dialect_parameters() -> Iterator[inspect.Parameter]:
    for name, option in _CSV.items():
        yield inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option
        )


def request(kind: Callable[..., _Request], **fields: Any) -> _Request:
    """A request with these fields. A value out of range is wrong usage (exit code 2)."""
    try:
        return kind(**fields)
    except ValidationError as problem:
        first = problem.errors()[0]
        name = str(first["loc"][0])
        flag = _FLAGS.get(name, "MODEL" if name == "model" else f"--{name.replace('_', '-')}")
        raise typer.BadParameter(
            f"{first['msg']}, not {first['input']!r}", param_hint=flag
        ) from None

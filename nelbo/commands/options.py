"""Arguments and options that several commands share, and how a request is made of them."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import typer
from pydantic import BaseModel, ValidationError

from nelbo.files import CsvOptions

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="a folder with an artifact, or name, name@2, name@alias",
        show_default=False,
    ),
]
File = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="CSV, Parquet, Arrow or JSON Lines by its suffix, or these with .gz or .zst; - is a"
        " pipe",
        show_default=False,
    ),
]
Output = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT",
        help="CSV, Parquet, Arrow or JSON Lines by its suffix, or these with .gz or .zst; - is a"
        " pipe",
    ),
]
OutputOrScreen = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT",
        help="CSV, Parquet, Arrow or JSON Lines, instead of a table to look at",
    ),
]
OutputFormat = Annotated[
    str | None, typer.Option(metavar="FORMAT", help="csv, parquet, arrow or jsonl, for OUT")
]
SafeCsv = Annotated[
    bool,
    typer.Option(
        "--safe-csv",
        help="in CSV, put an apostrophe before text that a spreadsheet would take for a formula",
    ),
]
InputFormat = Annotated[
    str | None, typer.Option(metavar="FORMAT", help="csv, parquet, arrow or jsonl, for FILE")
]
_CSV = {
    "delimiter": Annotated[
        str | None,
        typer.Option(
            metavar="CHAR",
            help="delimiter of a CSV file (detected): a character, tab, or ' ' for any number of"
            " blanks",
        ),
    ],
    "encoding": Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="encoding of a text file, such as utf-8 or windows-1252 (detected)"
        ),
    ],
    "decimal": Annotated[
        str | None,
        typer.Option(metavar="CHAR", help="decimal sign of a CSV file, . or , (detected)"),
    ],
    "header": Annotated[
        bool | None,
        typer.Option(
            "--header/--no-header",
            help="whether a CSV file has column names above its rows (detected)",
        ),
    ],
    "skip": Annotated[
        int | None,
        typer.Option(
            "--skip-lines",
            metavar="N",
            min=0,
            help="number of lines above the header of a CSV file (detected)",
        ),
    ],
}
Errors = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="gets the rows that could not be done, as JSON Lines", dir_okay=False
    ),
]
Seed = Annotated[
    int, typer.Option(metavar="N", help="the same seed, version and row number make the same row")
]
Json = Annotated[bool, typer.Option("--json", help="one JSON object on standard output")]

_Command = TypeVar("_Command", bound=Callable[..., None])
_Request = TypeVar("_Request", bound=BaseModel)
_FLAGS = {"n": "--rows"}


def csv(command: _Command) -> _Command:
    """The command with an option for each field of its parameter `csv`."""

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        fields = {name: given.pop(name) for name in _CSV}
        command(csv=CsvOptions(**fields), **given)

    parameters = dict(inspect.signature(command).parameters)
    names = list(parameters)
    at = names.index("csv")
    kind = inspect.Parameter.KEYWORD_ONLY
    options = [
        inspect.Parameter(name, kind, default=None, annotation=option)
        for name, option in _CSV.items()
    ]
    before, after = (
        [parameters[name].replace(kind=kind) for name in part]
        for part in (names[:at], names[at + 1 :])
    )
    every = [*before, *options, *after]
    with_options.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]  # what typer reads
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in every}
    return cast(_Command, with_options)


def request(kind: Callable[..., _Request], **fields: Any) -> _Request:
    """The request that the options make; an option out of its range is wrong usage (exit code
    2)."""
    try:
        return kind(**fields)
    except ValidationError as problem:
        first = problem.errors()[0]
        name = str(first["loc"][0])
        flag = _FLAGS.get(name, "MODEL" if name == "model" else f"--{name.replace('_', '-')}")
        raise typer.BadParameter(
            f"{first['msg']}, not {first['input']!r}", param_hint=flag
        ) from None

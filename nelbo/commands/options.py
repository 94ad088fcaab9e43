"""Arguments and options that several commands share, and how a request is made of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, ValidationError

Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="a folder with an artifact, or name, name@2, name@alias", show_default=False),
]
File = Annotated[
    str, typer.Argument(metavar="FILE", help="CSV, Parquet, Arrow or JSON Lines by its suffix; - is a pipe", show_default=False)
]
Output = Annotated[
    str, typer.Option("--output", "-o", metavar="OUT", help="CSV, Parquet, Arrow or JSON Lines by its suffix; - is a pipe")
]
OutputOrScreen = Annotated[
    str | None,
    typer.Option("--output", "-o", metavar="OUT", help="CSV, Parquet, Arrow or JSON Lines, instead of a table to look at"),
]
OutputFormat = Annotated[str | None, typer.Option(metavar="FORMAT", help="csv, parquet, arrow or jsonl, for OUT")]
InputFormat = Annotated[str | None, typer.Option(metavar="FORMAT", help="csv, parquet, arrow or jsonl, for FILE")]
Delimiter = Annotated[str | None, typer.Option(metavar="CHAR", help="of a CSV file (detected)")]
Encoding = Annotated[str | None, typer.Option(metavar="NAME", help="of a text file, such as utf-8 or windows-1252 (detected)")]
Decimal = Annotated[str | None, typer.Option(metavar="CHAR", help="decimal sign of a CSV file, . or , (detected)")]
Errors = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="gets the rows that could not be done, as JSON Lines", dir_okay=False),
]
Seed = Annotated[int, typer.Option(metavar="N", help="the same seed, version and row number make the same row")]
Json = Annotated[bool, typer.Option("--json", help="one JSON object on standard output")]

_Request = TypeVar("_Request", bound=BaseModel)
_FLAGS = {"n": "--rows"}


def request(kind: Callable[..., _Request], **fields: Any) -> _Request:
    """The request that the options make; an option out of its range is wrong usage (exit code 2)."""
    try:
        return kind(**fields)
    except ValidationError as problem:
        first = problem.errors()[0]
        name = str(first["loc"][0])
        flag = _FLAGS.get(name, "MODEL" if name == "model" else f"--{name.replace('_', '-')}")
        raise typer.BadParameter(f"{first['msg']}, not {first['input']!r}", param_hint=flag) from None

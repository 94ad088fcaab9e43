"""up, migrate, demo: what runs on this machine."""

from importlib.util import find_spec
from typing import Annotated

import typer

from nelbo import privacy
from nelbo.commands import options
from nelbo.commands.console import Console
from nelbo.commands.demo import show
from nelbo.errors import MissingExtra
from nelbo.settings import read_settings
from nelbo.store.session import connect
from nelbo.up import up as run_all


def up(
    port: Annotated[
        int,
        typer.Option(metavar="PORT", min=0, max=65_535, help="port of the API; 0 takes a free one"),
    ] = 8765,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="chunks computed side by side", show_default=False),
    ] = None,
) -> None:
    """Run API, worker, broker and database on this machine.

    Everything lies in the data folder, $NELBO_HOME. ^C stops it.

    \b
    Examples:
      nelbo up
      NELBO_HOME=./data nelbo up --port 9000 --workers 4
    """
    settings = read_settings()
    if not all(map(find_spec, ("celery", "fastapi", "onnxruntime"))):
        raise MissingExtra("nelbo up", "local")
    run_all(settings, port, workers, Console().say)


def migrate(as_json: options.Json = False) -> None:
    """Bring the database to this program's schema.

    `nelbo up` does it by itself.

    \b
    Example:
      NELBO_DATABASE_URL=postgresql://nelbo@db/nelbo nelbo migrate
    """
    settings, console = read_settings(), Console(as_json)
    database = connect(settings.database)
    try:
        database.migrate()
        if database.dialect == "sqlite":
            privacy.prepare(settings)
    finally:
        database.dispose()
    console.say("the database has this program's schema")
    console.result({"migrated": True})


def demo(
    port: Annotated[
        int,
        typer.Option(metavar="PORT", min=0, max=65_535, help="port of the API; 0 takes a free one"),
    ] = 0,
) -> None:
    """Show all of it on a real table, in about two minutes.

    Starts everything, trains, scores, generates and augments over HTTP, and stops what it started.

    \b
    Example:
      nelbo demo
    """
    show(read_settings(), port, Console())

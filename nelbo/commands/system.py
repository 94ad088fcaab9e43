"""up, migrate and demo: the service on this machine."""

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
        typer.Option(metavar="PORT", min=0, max=65_535, help="port of the API; 0: any free port"),
    ] = 8765,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="number of chunks computed at a time", show_default=False
        ),
    ] = None,
) -> None:
    """Run the whole service on this machine.

    These are the API, a worker, a broker and a database. All data is in the data folder,
    $NELBO_HOME. ^C stops the service.

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
    """Upgrade the database to the schema of this program.

    `nelbo up` does this itself. A deployment runs it before the other programs.

    \b
    Example:
      NELBO_DATABASE_URL=postgresql://nelbo@db/nelbo nelbo migrate
    """
    settings = read_settings()
    console = Console(as_json)
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
        typer.Option(metavar="PORT", min=0, max=65_535, help="port of the API; 0: any free port"),
    ] = 0,
) -> None:
    """Show everything on a real table, in about two minutes.

    The demo starts the service, trains a model, scores, generates and augments rows over HTTP, and
    stops the service.

    \b
    Example:
      nelbo demo
    """
    show(read_settings(), port, Console())

"""audit: changes and deletions, from the service or, if none runs, from the database."""

from collections.abc import Iterator
from itertools import islice
from typing import Annotated

import typer

from nelbo import data_folder
from nelbo.client import Client, find_url
from nelbo.commands import options
from nelbo.commands.console import Console, when
from nelbo.settings import Settings, read_settings
from nelbo.store import audit as store
from nelbo.views import Change

PAGE = 500


def audit(
    owner: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER", help="only changes to what this owner has", show_default=False
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, help="number of changes, the newest first")
    ] = 20,
    as_json: options.Json = False,
) -> None:
    """List changes and deletions, and who made them.

    These are the changes of models, aliases and API keys, and the deletions of models, files and
    jobs. On a service with API keys, the command needs a key with the scope admin.

    \b
    Examples:
      nelbo audit
      nelbo audit --owner ann --limit 100 --json
    """
    changes = list(islice(_changes(read_settings(), owner), limit))
    console = Console(as_json)
    if as_json:
        console.result({"changes": [change.model_dump() for change in changes]})
        return
    console.table(
        ["when (UTC)", "by", "key", "address", "owner", "action", "subject", "detail"],
        [
            [
                when(change.at),
                change.by,
                change.key and f"nb_{change.key}",
                change.address,
                change.owner,
                change.action,
                change.subject,
                change.detail,
            ]
            for change in changes
        ],
    )


def _changes(settings: Settings, owner: str | None) -> Iterator[Change]:
    if find_url(settings):
        with Client(settings=settings) as client:
            yield from client.audit.list(owner=owner)
        return
    with data_folder.opened(settings) as here:
        before = None
        while page := store.list_changes(here.database, owner=owner, limit=PAGE, before=before):
            yield from page
            before = page[-1].id

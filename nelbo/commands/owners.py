"""owners: erase all that there is of one."""

import time
from dataclasses import asdict
from typing import Annotated

import typer

from nelbo import copies
from nelbo.audit import COMMAND_LINE
from nelbo.commands import catalog, options
from nelbo.commands.catalog import Catalog
from nelbo.commands.console import Console
from nelbo.errors import Conflict, NotFound, Unavailable
from nelbo.settings import read_settings
from nelbo.storage import artifact_key, file_prefix
from nelbo.store import owners as store
from nelbo.store.expiry import live_digests

REFUSED_S = 2.0
"""After so long every API process refuses a key that was revoked."""
app = typer.Typer(
    help="The owners whose jobs, files, models and keys are in the database: erase.",
    no_args_is_help=True,
)


@app.callback()
def owners() -> None:
    """The owners whose jobs, files, models and keys are in the database."""


@app.command()
def erase(
    owner: Annotated[
        str, typer.Argument(metavar="OWNER", help="name of the owner", show_default=False)
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="count what would be erased, and erase nothing")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Erase all jobs, results, files, models and keys of an owner.

    Run it where database, storage and data folder are. A SQLite file is written anew, which takes
    as long as to copy it. Backups and logs are not changed; workers on other machines remove their
    copies within a minute.

    \b
    Examples:
      nelbo owners erase ann --dry-run
      nelbo owners erase ann --yes
    """
    console = Console(as_json)
    with catalog.opened(read_settings()) as here:
        found = store.holdings(here.database, owner)
        if not found:
            raise NotFound(
                f"the database holds nothing of an owner {owner!r}; `nelbo keys list` shows the"
                " owners of keys"
            )
        if not dry_run:
            if not yes:
                typer.confirm(
                    f"erase {found} of {owner}? Nothing can bring them back", abort=True, err=True
                )
            _erase(here, owner, found)
            _rewrite(here, console)
    console.say(f"{'would erase' if dry_run else 'erased'} {found} of {owner}")
    console.result({"owner": owner, "erased": not dry_run} | asdict(found))


def _rewrite(here: Catalog, console: Console) -> None:
    try:
        here.database.rewrite()
    except Unavailable as problem:
        console.say(
            "the rows are gone, but the SQLite file was not written anew and may keep their bytes:"
            f" {problem.message}"
        )
        console.say("make room on the disk, stop the service and run: sqlite3 nelbo.db VACUUM")


def _erase(here: Catalog, owner: str, found: store.Holdings) -> None:
    """In an order that may be cut short anywhere: what is left is erased when the command is run
    again."""
    if store.revoke_keys(here.database, owner):
        time.sleep(REFUSED_S)
    store.erase_jobs(here.database, owner)
    for file_id in store.erase_files(here.database, owner):
        here.storage.delete(file_prefix(file_id))
    for version_id in store.erase_models(here.database, owner):
        here.storage.delete(artifact_key(version_id))
    copies.tidy(here.cache, lambda digests: live_digests(here.database, digests))
    store.forget(here.database, owner, COMMAND_LINE, found)
    if left := store.holdings(here.database, owner):
        raise Conflict(
            f"while {owner} was erased, {left} came in; stop who sends them, and run this again"
        )

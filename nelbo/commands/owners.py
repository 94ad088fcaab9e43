"""owners: erase an owner with everything that belongs to it."""

import time
from dataclasses import asdict
from typing import Annotated

import typer

from nelbo import copies, data_folder
from nelbo.audit import COMMAND_LINE
from nelbo.commands import options
from nelbo.commands.console import Console
from nelbo.data_folder import LocalCatalog
from nelbo.errors import Conflict, NotFound, Unavailable
from nelbo.settings import read_settings
from nelbo.storage import artifact_key, file_prefix
from nelbo.store import owners as store
from nelbo.store.expiry import live_digests

REFUSED_S = 2.0
"""Seconds after which every API process refuses a revoked key."""
app = typer.Typer(
    help="Erase an owner with everything that belongs to it.",
    no_args_is_help=True,
)


@app.callback()
def owners() -> None:
    """The commands about owners."""


@app.command()
def erase(
    owner: Annotated[
        str, typer.Argument(metavar="OWNER", help="name of the owner", show_default=False)
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="erase without asking")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="only count what would be erased")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Erase all jobs, files, models and keys of an owner.

    Run it where the database, the storage and the data folder are. A SQLite file is rewritten,
    which takes about as long as copying it. Workers on other machines delete their copies within a
    minute. Backups and logs do not change.

    \b
    Examples:
      nelbo owners erase ann --dry-run
      nelbo owners erase ann --yes
    """
    console = Console(as_json)
    with data_folder.opened(read_settings()) as here:
        holdings = store.holdings(here.database, owner)
        if not holdings:
            raise NotFound(
                f"the database holds nothing of an owner {owner!r};"
                " `nelbo keys list` shows the owners of keys"
            )
        if not dry_run:
            if not yes:
                question = f"erase {holdings} of {owner}? This cannot be undone"
                typer.confirm(question, abort=True, err=True)
            _erase(here, owner, holdings)
            _rewrite(here, console)
    console.say(f"{'would erase' if dry_run else 'erased'} {holdings} of {owner}")
    console.result({"owner": owner, "erased": not dry_run} | asdict(holdings))


def _rewrite(here: LocalCatalog, console: Console) -> None:
    try:
        here.database.rewrite()
    except Unavailable as problem:
        console.say(
            "the rows are erased, but the SQLite file could not be rewritten and may still hold"
            f" their bytes: {problem.message}"
        )
        console.say("free some disk space, stop the service and run: sqlite3 nelbo.db VACUUM")


def _erase(here: LocalCatalog, owner: str, holdings: store.Holdings) -> None:
    """Erase everything, in an order that may break off anywhere.

    Running the command again erases the rest.
    """
    if store.revoke_keys(here.database, owner):
        time.sleep(REFUSED_S)
    store.erase_jobs(here.database, owner)
    for file_id in store.erase_files(here.database, owner):
        here.storage.delete(file_prefix(file_id))
    for version_id in store.erase_models(here.database, owner):
        here.storage.delete(artifact_key(version_id))
    copies.tidy(here.cache, lambda digests: live_digests(here.database, digests))
    store.forget(here.database, owner, COMMAND_LINE, holdings)
    newer = store.holdings(here.database, owner)
    if newer:
        raise Conflict(
            f"{newer} of {owner} arrived meanwhile; stop the programs that send them, and run this"
            " again"
        )

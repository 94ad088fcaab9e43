"""keys: create, list, rotate, revoke, import; in the database that the settings name, by whoever
may write to it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from nelbo.audit import COMMAND_LINE
from nelbo.commands import catalog, options
from nelbo.commands.console import Console, when
from nelbo.errors import InvalidInput, NotFound
from nelbo.settings import read_settings
from nelbo.store import keys as store
from nelbo.store.keys import SCOPES, KeyEntry, Scope
from nelbo.store.session import Database, connect

HOUR_S, DAY_S = 3_600.0, 86_400.0
app = typer.Typer(
    help="The API keys in the database: list (also without a word), create, rotate, revoke, import."
)
Key = Annotated[
    str,
    typer.Argument(
        metavar="KEY", help="the key's prefix, such as nb_0123456789abcdef", show_default=False
    ),
]
Days = Annotated[
    float | None,
    typer.Option(
        "--days", metavar="N", min=0, help="days until the key expires", show_default=False
    ),
]


@app.callback(invoke_without_command=True)
def keys(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_keys()


@app.command()
def create(
    owner: Annotated[
        str, typer.Argument(metavar="OWNER", help="whose key it is", show_default=False)
    ],
    scope: Annotated[
        str,
        typer.Option(metavar="SCOPE", help="read < submit (jobs, files) < train (models) < admin"),
    ] = "train",
    label: Annotated[str, typer.Option(metavar="TEXT", help="what the key is for")] = "",
    days: Days = None,
    as_json: options.Json = False,
) -> None:
    """Create an API key and print it, this once.

    From the first key on the service answers nobody without one.

    \b
    Examples:
      nelbo keys create ann
      nelbo keys create ann --scope read --label dashboard --days 90
    """
    with _database(make=True) as database:
        entry, key = store.create(
            database,
            owner,
            COMMAND_LINE,
            scope=_scope(scope),
            label=label,
            lifetime_s=None if days is None else days * DAY_S,
        )
    console = Console(as_json)
    console.say(
        f"key {entry.prefix} of {entry.owner} may {_may(entry.scope)}{_until(entry)}; it is shown"
        " only now:"
    )
    console.result(_view(entry) | {"key": key}, key)


@app.command("list")
def list_keys(
    owner: Annotated[
        str | None,
        typer.Option(metavar="OWNER", help="only keys of this owner", show_default=False),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List API keys: prefix, owner, scope, when each was last used and until when it lives.

    \b
    Examples:
      nelbo keys list
      nelbo keys list --owner ann --json
    """
    with _database() as database:
        found = store.list_keys(database, owner)
    console = Console(as_json)
    if as_json:
        console.result({"keys": [_view(entry) for entry in found]})
        return
    if not found:
        console.say("no keys; `nelbo keys create OWNER` makes one")
        return
    console.table(
        [
            "key",
            "owner",
            "scope",
            "state",
            "label",
            "created (UTC)",
            "last used (UTC)",
            "expires (UTC)",
        ],
        [
            [
                e.prefix,
                e.owner,
                e.scope,
                e.state,
                e.label,
                when(e.created_at),
                when(e.last_used_at),
                when(e.expires_at),
            ]
            for e in found
        ],
    )


@app.command()
def rotate(
    key: Key,
    grace_hours: Annotated[
        float, typer.Option(metavar="N", min=0, help="hours that the old key still works")
    ] = 24.0,
    days: Days = None,
    as_json: options.Json = False,
) -> None:
    """Create a new key in place of an old one, which works for some more hours.

    The new key has the old one's owner, scope, label and, without --days, its lifetime.

    \b
    Examples:
      nelbo keys rotate nb_0123456789abcdef
      nelbo keys rotate nb_0123456789abcdef --grace-hours 1 --days 90
    """
    lifetime_s = None if days is None else days * DAY_S
    with _database() as database:
        old, new, made = store.rotate(
            database,
            store.id_of(key),
            COMMAND_LINE,
            grace_s=grace_hours * HOUR_S,
            lifetime_s=lifetime_s,
        )
    console = Console(as_json)
    console.say(f"key {old.prefix} of {old.owner} works until {when(old.expires_at)} UTC")
    console.say(f"key {new.prefix} replaces it{_until(new)}; it is shown only now:")
    console.result(_view(new) | {"key": made, "replaces": _view(old)}, made)


@app.command()
def revoke(key: Key, as_json: options.Json = False) -> None:
    """End an API key for good, within two seconds.

    \b
    Example:
      nelbo keys revoke nb_0123456789abcdef
    """
    with _database() as database:
        entry = store.revoke(database, store.id_of(key), COMMAND_LINE)
    console = Console(as_json)
    console.say(f"key {entry.prefix} of {entry.owner} is revoked")
    console.result(_view(entry))


@app.command("import")
def import_keys(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="a keys file of an older Nelbo; - is a pipe", show_default=False
        ),
    ],
    as_json: options.Json = False,
) -> None:
    """Store the keys of an older Nelbo's keys file in the database, once.

    Keys that were stored before stay as they are: a revoked one is not revived.

    \b
    Examples:
      nelbo keys import api_keys
      nelbo keys import - < deploy/secrets/api_keys
    """
    lines, bad = store.parse_lines(_content(file))
    with _database(make=True) as database:
        stored = store.import_lines(database, lines, COMMAND_LINE)
    console = Console(as_json)
    if bad:
        numbers = ", ".join(map(str, bad[:20]))
        console.say(
            f"left out {len(bad):,} lines that are not '<id> <owner> <SHA-256 of the key>': line"
            f" {numbers}"
        )
    console.say(
        f"stored {stored:,} of {len(lines):,} keys; {len(lines) - stored:,} were stored before"
    )
    console.say(
        "the database counts from now on: end a key with `nelbo keys revoke`; delete the file"
    )
    console.result({"stored": stored, "keys": len(lines), "bad_lines": bad})


@contextmanager
def _database(make: bool = False) -> Iterator[Database]:
    """The database of the settings; a file that is not there is made only where a key is to be
    stored in it."""
    settings = read_settings()
    if not make and not catalog.exists(settings):
        raise NotFound(
            f"no database is in {settings.home}, so there are no keys; NELBO_DATABASE_URL names"
            " another database,"
            " NELBO_HOME another data folder"
        )
    database = connect(settings.database)
    try:
        if catalog.exists(settings):
            database.check()
        else:
            database.migrate()
        yield database
    finally:
        database.dispose()


def _scope(scope: str) -> Scope:
    for known in SCOPES:
        if scope == known:
            return known
    raise typer.BadParameter(f"{scope!r} is none of {', '.join(SCOPES)}", param_hint="--scope")


def _content(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except FileNotFoundError:
        raise NotFound(f"no file {file}") from None
    except OSError as problem:
        raise InvalidInput(f"{file} cannot be read: {problem.strerror}") from None


def _view(entry: KeyEntry) -> dict[str, Any]:
    return {"prefix": entry.prefix} | asdict(entry)


def _may(scope: Scope) -> str:
    allowed = {
        "read": "read",
        "submit": "read, upload tables and submit jobs",
        "train": "read, submit jobs, and push and change models",
        "admin": "do all this and see the audit of all owners",
    }
    return allowed[scope]


def _until(entry: KeyEntry) -> str:
    return "" if entry.expires_at is None else f" until {when(entry.expires_at)} UTC"

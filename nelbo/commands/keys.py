"""keys: create, list, rotate, revoke and import API keys, in the database of the settings."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from nelbo import data_folder
from nelbo.audit import COMMAND_LINE
from nelbo.commands import options
from nelbo.commands.console import Console, when
from nelbo.errors import InvalidInput, NotFound
from nelbo.settings import read_settings
from nelbo.store import keys as store
from nelbo.store.keys import SCOPES, KeyEntry, Scope
from nelbo.store.session import Database, connect

HOUR_S = 3_600.0
DAY_S = 86_400.0
app = typer.Typer(help="List (the default), create, rotate, revoke or import API keys.")
Key = Annotated[
    str,
    typer.Argument(
        metavar="KEY", help="prefix of a key, such as nb_0123456789abcdef", show_default=False
    ),
]
Days = Annotated[
    float | None,
    typer.Option(
        "--days",
        metavar="N",
        min=0,
        help="number of days until the key expires (default: never)",
        show_default=False,
    ),
]


@app.callback(invoke_without_command=True)
def keys(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_keys()


@app.command()
def create(
    owner: Annotated[
        str, typer.Argument(metavar="OWNER", help="name of the owner", show_default=False)
    ],
    scope: Annotated[
        str,
        typer.Option(
            metavar="SCOPE",
            help="what the key allows, each including the one before:"
            " read, submit (files, jobs), train (models), admin (audit)",
        ),
    ] = "train",
    label: Annotated[str, typer.Option(metavar="TEXT", help="what the key is for")] = "",
    days: Days = None,
    as_json: options.Json = False,
) -> None:
    """Create an API key and print it.

    The key is shown only this once. As soon as there is a key, the service refuses requests without
    one.

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
        f"key {entry.prefix} of {entry.owner} may {_may(entry.scope)}{_until(entry)};"
        " it is shown only now:"
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
    """List API keys.

    The list shows the prefix, owner, scope, state and label of each key, and when it was created,
    was last used and expires.

    \b
    Examples:
      nelbo keys list
      nelbo keys list --owner ann --json
    """
    with _database() as database:
        entries = store.list_keys(database, owner)
    console = Console(as_json)
    if as_json:
        console.result({"keys": [_view(entry) for entry in entries]})
        return
    if not entries:
        console.say("no keys; `nelbo keys create OWNER` creates one")
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
                entry.prefix,
                entry.owner,
                entry.scope,
                entry.state,
                entry.label,
                when(entry.created_at),
                when(entry.last_used_at),
                when(entry.expires_at),
            ]
            for entry in entries
        ],
    )


@app.command()
def rotate(
    key: Key,
    grace_hours: Annotated[
        float,
        typer.Option(metavar="N", min=0, help="number of hours for which the old key still works"),
    ] = 24.0,
    days: Days = None,
    as_json: options.Json = False,
) -> None:
    """Replace an API key by a new one.

    The old key works for some more hours (--grace-hours). The new key has the same owner, scope and
    label, and without --days the same lifetime.

    \b
    Examples:
      nelbo keys rotate nb_0123456789abcdef
      nelbo keys rotate nb_0123456789abcdef --grace-hours 1 --days 90
    """
    lifetime_s = None if days is None else days * DAY_S
    with _database() as database:
        old, new, new_key = store.rotate(
            database,
            store.id_of(key),
            COMMAND_LINE,
            grace_s=grace_hours * HOUR_S,
            lifetime_s=lifetime_s,
        )
    console = Console(as_json)
    console.say(f"key {old.prefix} of {old.owner} works until {when(old.expires_at)} UTC")
    console.say(f"key {new.prefix} replaces it{_until(new)}; it is shown only now:")
    console.result(_view(new) | {"key": new_key, "replaces": _view(old)}, new_key)


@app.command()
def revoke(key: Key, as_json: options.Json = False) -> None:
    """Revoke an API key for ever.

    Every API process refuses it within two seconds.

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
            metavar="FILE",
            help="keys file of an older Nelbo; - reads standard input",
            show_default=False,
        ),
    ],
    as_json: options.Json = False,
) -> None:
    """Import the keys file of an older Nelbo into the database.

    Keys that are in the database already do not change: a revoked key stays revoked.

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
            f"left out {len(bad):,} lines that are not '<id> <owner> <SHA-256 of the key>':"
            f" line {numbers}"
        )
    console.say(
        f"imported {stored:,} of {len(lines):,} keys; {len(lines) - stored:,} were in the database"
        " already"
    )
    console.say("from now on, end a key with `nelbo keys revoke`; delete the file")
    console.result({"stored": stored, "keys": len(lines), "bad_lines": bad})


@contextmanager
def _database(make: bool = False) -> Iterator[Database]:
    """The database of the settings.

    make: whether to create a SQLite file that does not exist, because a key is to be stored.
    """
    settings = read_settings()
    if not make and not data_folder.exists(settings):
        raise NotFound(
            f"there is no database in {settings.home}, and so there are no keys;"
            " set NELBO_DATABASE_URL to another database or NELBO_HOME to another data folder"
        )
    database = connect(settings.database)
    try:
        if data_folder.exists(settings):
            database.check()
        else:
            database.migrate()
        yield database
    finally:
        database.dispose()


def _scope(scope: str) -> Scope:
    for name in SCOPES:
        if scope == name:
            return name
    raise typer.BadParameter(
        f"{scope!r} is not a scope; choose one of {', '.join(SCOPES)}", param_hint="--scope"
    )


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
        "train": "read, upload tables, submit jobs, and push and change models",
        "admin": "do everything, and see the audit of all owners",
    }
    return allowed[scope]


def _until(entry: KeyEntry) -> str:
    return "" if entry.expires_at is None else f" until {when(entry.expires_at)} UTC"

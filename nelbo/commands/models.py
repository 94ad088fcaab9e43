"""models: list, show, promote, delete; on the service, or in the data folder where none runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Protocol

import typer

from nelbo import copies
from nelbo.audit import COMMAND_LINE
from nelbo.client import Client, find_url
from nelbo.commands import catalog, options
from nelbo.commands.console import Console, when
from nelbo.errors import InvalidInput
from nelbo.settings import read_settings
from nelbo.storage import artifact_key
from nelbo.store import catalog as store
from nelbo.store.expiry import live_digests
from nelbo.views import Model, Version, VersionDetails, details

app = typer.Typer(
    help="The models that are registered: list (also without a word), show, promote, delete."
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="name of a model", show_default=False)]


@app.callback(invoke_without_command=True)
def models(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_models()


@app.command("list")
def list_models(as_json: options.Json = False) -> None:
    """List all models with their versions and aliases.

    \b
    Example:
      nelbo models list
    """
    console, settings, found = Console(as_json), read_settings(), list[Model]()
    if find_url(settings) or catalog.exists(settings):
        with _models() as models:
            found = list(models.list())
    if as_json:
        console.result({"models": [model.model_dump() for model in found]})
        return
    if not found:
        console.say("no models yet; `nelbo train` makes one")
        return
    console.table(
        ["model", "versions", "aliases"],
        [[model.name, _listed(model.versions), _aliases(model)] for model in found],
    )


@app.command()
def show(name: Name, as_json: options.Json = False) -> None:
    """Show a model: its versions with state, quality and aliases.

    \b
    Example:
      nelbo models show adult
    """
    with _models() as models:
        model, versions = models.get(name), list(models.versions(name))
        champion = models.version(name, "champion") if "champion" in model.aliases else None
    console = Console(as_json)
    if as_json:
        found = model.model_dump() | {"versions": [version.model_dump() for version in versions]}
        console.result(found | {"champion": champion.model_dump() if champion else None})
        return
    console.table(
        ["version", "state", "aliases", "registered (UTC)", "reason"],
        [
            [v.version, v.state, _aliases(model, v.version), when(v.created_at), v.reason]
            for v in versions
        ],
    )
    if champion:
        print(f"\nchampion is {name}@{champion.version}:")
        smallest = ("smallest_p_value", champion.smallest_p_value)
        console.table(["metric", "value"], [*sorted(champion.metrics.items()), smallest])
        print()
        columns = champion.table_schema.columns if champion.table_schema else ()
        console.table(
            ["column", "kind", "categories"],
            [[c.name, c.kind, len(c.categories) or None] for c in columns],
        )


@app.command()
def promote(
    model: Annotated[
        str,
        typer.Argument(
            metavar="NAME@VERSION", help="the version, by number or alias", show_default=False
        ),
    ],
    alias: Annotated[
        str, typer.Option(metavar="ALIAS", help="champion is what the plain name means")
    ] = "champion",
    as_json: options.Json = False,
) -> None:
    """Let an alias stand for a version: promotion, and the way back.

    \b
    Examples:
      nelbo models promote adult@2
      nelbo models promote adult@3 --alias candidate
      nelbo models promote adult@candidate
    """
    name, version = _one_version(model)
    with _models() as models:
        found = models.set_alias(name, alias, models.version(name, version).version)
    console = Console(as_json)
    console.say(f"{name}@{alias} is now {name}@{found.aliases[alias]}")
    console.result(found.model_dump())


@app.command()
def delete(
    model: Annotated[
        str,
        typer.Argument(
            metavar="NAME[@VERSION]", help="a model, or one version of it", show_default=False
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    as_json: options.Json = False,
) -> None:
    """Delete a model with all its versions, or one version.

    \b
    Examples:
      nelbo models delete adult@1
      nelbo models delete adult --yes
    """
    name, at, version = model.partition("@")
    with _models() as models:
        number = models.version(name, version).version if at else None
        models.get(name)
        if not yes:
            typer.confirm(
                f"delete {name}@{number}?" if at else f"delete {name} with all its versions?",
                abort=True,
                err=True,
            )
        models.delete(name, number)
    console = Console(as_json)
    console.say(f"deleted {model}")
    console.result({"deleted": model})


class Models(Protocol):
    """What the service and the data folder both can do."""

    def list(self) -> Iterator[Model]: ...
    def get(self, name: str) -> Model: ...
    def versions(self, name: str) -> Iterator[Version]: ...
    def version(self, name: str, version: int | str) -> VersionDetails: ...
    def set_alias(self, name: str, alias: str, version: int) -> Model: ...
    def delete(self, name: str, version: int | None = None) -> None: ...


@contextmanager
def _models() -> Iterator[Models]:
    settings = read_settings()
    if find_url(settings):
        with Client(settings=settings) as client:
            yield client.models
    else:
        with catalog.opened(settings) as here:
            yield _Local(here)


class _Local:
    """The models of the data folder."""

    def __init__(self, here: catalog.Catalog) -> None:
        self._here, self._database = here, here.database

    def list(self) -> Iterator[Model]:
        after = ""
        while page := store.list_models(self._database, catalog.OWNER, after=after):
            yield from page
            after = page[-1].name

    def get(self, name: str) -> Model:
        return store.get_model(self._database, catalog.OWNER, name)

    def versions(self, name: str) -> Iterator[Version]:
        return (entry.view for entry in store.list_versions(self._database, catalog.OWNER, name))

    def version(self, name: str, version: int | str) -> VersionDetails:
        entry = store.resolve(self._database, catalog.OWNER, f"{name}@{version}")
        return details(entry.view, store.get_manifest(self._database, entry))

    def set_alias(self, name: str, alias: str, version: int) -> Model:
        store.set_alias(self._database, catalog.OWNER, name, alias, version, by=COMMAND_LINE)
        return self.get(name)

    def delete(self, name: str, version: int | None = None) -> None:
        if version is None:
            gone = store.delete_model(self._database, catalog.OWNER, name, by=COMMAND_LINE)
        else:
            gone = [
                store.delete_version(self._database, catalog.OWNER, name, version, by=COMMAND_LINE)
            ]
        for version_id in gone:
            self._here.storage.delete(artifact_key(version_id))
        copies.tidy(self._here.cache, partial(live_digests, self._database))


def _one_version(model: str) -> tuple[str, str]:
    name, at, version = model.partition("@")
    if not at or not version:
        raise InvalidInput(f"{model!r} names no version; say which one, as in {name or 'adult'}@2")
    return name, version


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


def _aliases(model: Model, version: int | None = None) -> str:
    if version is not None:
        return ", ".join(alias for alias, number in model.aliases.items() if number == version)
    return ", ".join(f"{alias} = {number}" for alias, number in model.aliases.items())

"""models: list, show, promote and delete models, on the service or else in the data folder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Protocol

import typer

from nelbo import copies, data_folder
from nelbo.audit import COMMAND_LINE
from nelbo.client import Client, find_url
from nelbo.commands import options
from nelbo.commands.console import Console, when
from nelbo.errors import InvalidInput
from nelbo.settings import read_settings
from nelbo.storage import artifact_key
from nelbo.store import catalog as store
from nelbo.store.expiry import live_digests
from nelbo.views import Model, Version, VersionDetails, details

app = typer.Typer(help="List (the default), show, promote or delete models.")
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
    settings = read_settings()
    models: list[Model] = []
    if find_url(settings) or data_folder.exists(settings):
        with _registry() as registry:
            models = list(registry.list())

    console = Console(as_json)
    if as_json:
        console.result({"models": [model.model_dump() for model in models]})
        return
    if not models:
        console.say("no models yet; `nelbo train` trains one")
        return
    console.table(
        ["model", "versions", "aliases"],
        [
            [model.name, ", ".join(map(str, model.versions)), _all_aliases(model)]
            for model in models
        ],
    )


@app.command()
def show(name: Name, as_json: options.Json = False) -> None:
    """Show the versions of a model, and the quality of its champion.

    \b
    Example:
      nelbo models show adult
    """
    with _registry() as registry:
        model = registry.get(name)
        versions = list(registry.versions(name))
        champion = registry.version(name, "champion") if "champion" in model.aliases else None

    console = Console(as_json)
    if as_json:
        content = model.model_dump() | {"versions": [version.model_dump() for version in versions]}
        console.result(content | {"champion": champion.model_dump() if champion else None})
        return
    console.table(
        ["version", "state", "aliases", "registered (UTC)", "reason"],
        [
            [
                version.version,
                version.state,
                _aliases_of(model, version.version),
                when(version.created_at),
                version.reason,
            ]
            for version in versions
        ],
    )
    if champion:
        print(f"\nchampion is {name}@{champion.version}:")
        _show_quality(champion, console)


def _show_quality(version: VersionDetails, console: Console) -> None:
    """Print the metrics and the columns of a version."""
    smallest = ("smallest_p_value", version.smallest_p_value)
    console.table(["metric", "value"], [*sorted(version.metrics.items()), smallest])
    print()
    columns = version.table_schema.columns if version.table_schema else ()
    console.table(
        ["column", "kind", "categories"],
        [[column.name, column.kind, len(column.categories) or None] for column in columns],
    )


@app.command()
def promote(
    model: Annotated[
        str,
        typer.Argument(
            metavar="NAME@VERSION",
            help="a version of a model, by number or alias",
            show_default=False,
        ),
    ],
    alias: Annotated[
        str,
        typer.Option(
            metavar="ALIAS", help="alias to set; the name of a model alone means its champion"
        ),
    ] = "champion",
    as_json: options.Json = False,
) -> None:
    """Set an alias of a model to a version.

    Commands and jobs that name the alias use this version from now on. To go back, promote the
    earlier version again.

    \b
    Examples:
      nelbo models promote adult@2
      nelbo models promote adult@3 --alias candidate
      nelbo models promote adult@candidate
    """
    name, version = _name_and_version(model)
    with _registry() as registry:
        number = registry.version(name, version).version
        promoted = registry.set_alias(name, alias, number)
    console = Console(as_json)
    console.say(f"{name}@{alias} is now {name}@{promoted.aliases[alias]}")
    console.result(promoted.model_dump())


@app.command()
def delete(
    model: Annotated[
        str,
        typer.Argument(
            metavar="NAME[@VERSION]",
            help="a model, or one version of it by number or alias",
            show_default=False,
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="delete without asking")] = False,
    as_json: options.Json = False,
) -> None:
    """Delete a model with all its versions, or one version.

    \b
    Examples:
      nelbo models delete adult@1
      nelbo models delete adult --yes
    """
    name, separator, version = model.partition("@")
    with _registry() as registry:
        number = registry.version(name, version).version if separator else None
        registry.get(name)
        if not yes:
            subject = f"{name} with all its versions" if number is None else f"{name}@{number}"
            typer.confirm(f"delete {subject}?", abort=True, err=True)
        registry.delete(name, number)
    console = Console(as_json)
    console.say(f"deleted {model}")
    console.result({"deleted": model})


class Registry(Protocol):
    """The models of a service, or of the data folder."""

    def list(self) -> Iterator[Model]: ...
    def get(self, name: str) -> Model: ...
    def versions(self, name: str) -> Iterator[Version]: ...
    def version(self, name: str, version: int | str) -> VersionDetails: ...
    def set_alias(self, name: str, alias: str, version: int) -> Model: ...
    def delete(self, name: str, version: int | None = None) -> None: ...


@contextmanager
def _registry() -> Iterator[Registry]:
    """The models of the service or, if none runs, of the data folder."""
    settings = read_settings()
    if find_url(settings):
        with Client(settings=settings) as client:
            yield client.models
    else:
        with data_folder.opened(settings) as here:
            yield _LocalRegistry(here)


class _LocalRegistry:
    """The models of the data folder."""

    def __init__(self, here: data_folder.LocalCatalog) -> None:
        self._here = here
        self._database = here.database

    def list(self) -> Iterator[Model]:
        after = ""
        while page := store.list_models(self._database, data_folder.OWNER, after=after):
            yield from page
            after = page[-1].name

    def get(self, name: str) -> Model:
        return store.get_model(self._database, data_folder.OWNER, name)

    def versions(self, name: str) -> Iterator[Version]:
        return (
            entry.view for entry in store.list_versions(self._database, data_folder.OWNER, name)
        )

    def version(self, name: str, version: int | str) -> VersionDetails:
        entry = store.resolve(self._database, data_folder.OWNER, f"{name}@{version}")
        return details(entry.view, store.get_manifest(self._database, entry))

    def set_alias(self, name: str, alias: str, version: int) -> Model:
        store.set_alias(self._database, data_folder.OWNER, name, alias, version, by=COMMAND_LINE)
        return self.get(name)

    def delete(self, name: str, version: int | None = None) -> None:
        for version_id in self._delete(name, version):
            self._here.storage.delete(artifact_key(version_id))
        copies.tidy(self._here.cache, partial(live_digests, self._database))

    def _delete(self, name: str, version: int | None) -> Sequence[str]:
        """Delete from the database; the ids of the deleted versions."""
        if version is None:
            return store.delete_model(self._database, data_folder.OWNER, name, by=COMMAND_LINE)
        version_id = store.delete_version(
            self._database, data_folder.OWNER, name, version, by=COMMAND_LINE
        )
        return [version_id]


def _name_and_version(model: str) -> tuple[str, str]:
    name, _, version = model.partition("@")
    if not version:
        raise InvalidInput(f"{model!r} names no version; an example is {name or 'adult'}@2")
    return name, version


def _all_aliases(model: Model) -> str:
    return ", ".join(f"{alias} = {number}" for alias, number in model.aliases.items())


def _aliases_of(model: Model, version: int) -> str:
    return ", ".join(alias for alias, number in model.aliases.items() if number == version)

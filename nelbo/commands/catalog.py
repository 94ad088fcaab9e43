"""The catalog of the data folder, used in this process where no service runs."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nelbo import copies, privacy
from nelbo.artifact import is_artifact, read_artifact
from nelbo.audit import COMMAND_LINE
from nelbo.errors import InvalidInput, NotFound
from nelbo.files import check_folder
from nelbo.ids import new_id
from nelbo.packing import pack
from nelbo.settings import Settings
from nelbo.storage import Storage, artifact_key, open_storage
from nelbo.store import catalog
from nelbo.store.session import Database, connect

OWNER = "local"
ROOM = 16 * 2**20
"""Free disk, in bytes, that must be there to register a version; most artifacts are smaller."""
NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,99}")


@dataclass(frozen=True)
class Catalog:
    """Database and storage of the data folder."""

    database: Database
    storage: Storage
    cache: Path


@contextmanager
def opened(settings: Settings, make: bool = False) -> Iterator[Catalog]:
    """The catalog; one that is not there is made only where something is to be registered. Raises
    NotFound, Unavailable."""
    if not make and not exists(settings):
        raise NotFound(
            f"no service runs and no model is registered in {settings.home}; `nelbo train` makes"
            " one, NELBO_HOME names another"
            " data folder, NELBO_URL a service"
        )
    database = connect(settings.database)
    try:
        if make:
            database.migrate()
            privacy.prepare(settings)
        else:
            database.check()
        yield Catalog(database, open_storage(settings.storage), copies.artifacts(settings.home))
    finally:
        database.dispose()


def exists(settings: Settings) -> bool:
    """Whether there is a catalog to look into: a server's may be there, a file's is where the file
    is."""
    return settings.sqlite_file is None or settings.sqlite_file.exists()


def check_registering(settings: Settings) -> None:
    """Refuse a data folder, a database or a storage that cannot take a version, before there is
    one."""
    if not exists(settings):
        check_folder(settings.home, ROOM)
        return
    with opened(settings, make=True) as here:
        if here.storage.folder is not None:
            check_folder(here.storage.folder, ROOM)
        trial = artifact_key(new_id())
        here.storage.put(trial, b"")
        here.storage.delete(trial)


def check_name(name: str) -> None:
    """Refuse a name that no model can have."""
    if not NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} cannot be the name of a model: it has letters, digits, '.', '_' and '-', at"
            " most 100, and begins"
            " with a letter or a digit"
        )


def folder_here(settings: Settings, model: str) -> Path:
    """The folder of MODEL's artifact for work that no service does: what one on the same data
    folder has is here too."""
    if names_a_folder(model):
        return Path(model)
    if settings.url:
        raise InvalidInput(
            f"no service does this, so {model!r} at {settings.url} does not serve; name an"
            " artifact's folder"
        )
    with opened(settings) as here:
        version = catalog.resolve(here.database, OWNER, model)
        return copies.load(here.storage, version.id, version.digest, here.cache, _verified)


def names_a_folder(model: str) -> bool:
    """Whether MODEL is the folder of an artifact: no name has a slash."""
    return "/" in model or is_artifact(Path(model))


def register(here: Catalog, folder: Path, name: str) -> catalog.VersionEntry:
    """Register an artifact as the next version of a model."""
    artifact = read_artifact(folder)
    version_id = new_id()
    with tempfile.TemporaryDirectory(prefix="nelbo-") as temporary:
        packed = Path(temporary) / "artifact.zip"
        pack(folder, packed)
        here.storage.put(artifact_key(version_id), packed)
    manifest = artifact.manifest.model_dump(mode="json")
    return catalog.add_version(
        here.database,
        OWNER,
        name,
        manifest,
        artifact.digest,
        version_id=version_id,
        by=COMMAND_LINE,
    )


def _verified(folder: Path) -> Path:
    return read_artifact(folder).folder

"""The models of the data folder, for work that no service does."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nelbo import copies, privacy
from nelbo.artifact import read_artifact
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
"""Free disk space in bytes that registering a version needs. Most artifacts are smaller."""
NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,99}")


@dataclass(frozen=True)
class LocalCatalog:
    """The database and the storage of the data folder."""

    database: Database
    storage: Storage
    cache: Path


@contextmanager
def opened(settings: Settings, make: bool = False) -> Iterator[LocalCatalog]:
    """The catalog of the data folder.

    make: whether to create it if it does not exist, because something is to be registered.

    Raises NotFound, or Unavailable if the database does not answer.
    """
    if not make and not exists(settings):
        raise NotFound(
            f"no service runs, and no model is registered in {settings.home}; train one with"
            " `nelbo train`, or set NELBO_HOME to another data folder or NELBO_URL to a service"
        )
    database = connect(settings.database)
    try:
        if make:
            database.migrate()
            privacy.prepare(settings)
        else:
            database.check()
        yield LocalCatalog(
            database, open_storage(settings.storage), copies.artifacts(settings.home)
        )
    finally:
        database.dispose()


def exists(settings: Settings) -> bool:
    """Whether the catalog may exist. A SQLite file can be looked for, a server cannot."""
    return settings.sqlite_file is None or settings.sqlite_file.exists()


def check_registering(settings: Settings) -> None:
    """Raise an error if data folder, database or storage cannot take a version."""
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
    """Raise InvalidInput if no model can have this name."""
    if not NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} cannot be the name of a model: a name has at most 100 letters, digits,"
            " '.', '_' and '-', and begins with a letter or a digit"
        )


def register(here: LocalCatalog, folder: Path, name: str) -> catalog.VersionEntry:
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

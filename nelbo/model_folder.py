"""Which folder MODEL is: an artifact's own, or a copy of a model of the data folder."""

from pathlib import Path

from nelbo.artifact import is_artifact, read_artifact
from nelbo.errors import InvalidInput
from nelbo.settings import Settings


def names_a_folder(model: str) -> bool:
    """Whether MODEL is the folder of an artifact: no name has a slash."""
    return "/" in model or is_artifact(Path(model))


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
    # Imported here, because SQLAlchemy takes longer than to score a few rows.
    from nelbo import copies, data_folder
    from nelbo.store import catalog

    with data_folder.opened(settings) as here:
        version = catalog.resolve(here.database, data_folder.OWNER, model)
        return copies.load(here.storage, version.id, version.digest, here.cache, _verified)


def _verified(folder: Path) -> Path:
    return read_artifact(folder).folder

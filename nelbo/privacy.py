"""The data folder: private to its owner, also if an older version left it open to other users."""

import contextlib
import os
import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit

from nelbo.home import CACHE, HEALTH, LOGS, STORAGE, UP_LOCK, UP_RECORD
from nelbo.settings import Settings

FOR_OTHERS = 0o077
"""The mode bits that give other users access. No file of a serving process has them."""


def close_to_others() -> None:
    """Make all new files and folders of this process and its children private to its user."""
    os.umask(FOR_OTHERS)


def prepare(settings: Settings) -> None:
    """Create the data folder, or make it and its parts private.

    Parts that this user may not change are left as they are.
    """
    with contextlib.suppress(OSError):  # the first write into the folder raises a clear error
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in open_to_others(settings):
        if path.is_relative_to(settings.home):
            with contextlib.suppress(PermissionError):
                path.chmod(stat.S_IMODE(path.stat().st_mode) & ~FOR_OTHERS)


def open_to_others(settings: Settings) -> list[Path]:
    """The parts of the data folder, and the database, that other users may open."""
    return [path for path in _parts(settings) if path.exists() and _is_open(path)]


def _parts(settings: Settings) -> list[Path]:
    names = (STORAGE, CACHE, HEALTH, LOGS, UP_RECORD, UP_LOCK)
    parts = [settings.home, *(settings.home / name for name in names)]
    if file := settings.sqlite_file:
        parts += [Path(f"{file}{suffix}") for suffix in ("", "-wal", "-shm")]
    if settings.storage_url.startswith("file://"):
        parts.append(Path(unquote(urlsplit(settings.storage_url).path)))
    return list(dict.fromkeys(parts))


def _is_open(path: Path) -> bool:
    """Whether other users have access. A shared folder such as /tmp does not count: it must stay.

    Its sticky bit tells it.
    """
    mode = path.stat().st_mode
    return bool(mode & FOR_OTHERS) and not mode & stat.S_ISVTX

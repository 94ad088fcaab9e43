"""The data folder: made for its owner alone, and closed where an older version left it open to
other users."""

import contextlib
import os
import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit

from nelbo.home import CACHE, HEALTH, LOGS, STORAGE, UP_LOCK, UP_RECORD
from nelbo.settings import Settings

FOR_OTHERS = 0o077
"""The bits of a mode that let other users in: no file that a serving process makes has them."""


def close_to_others() -> None:
    """From here on this process and its children make files and folders that no other user may
    open."""
    os.umask(FOR_OTHERS)


def prepare(settings: Settings) -> None:
    """Make the data folder, or close it and what Nelbo keeps in it. What this user may not change
    stays as it is."""
    with contextlib.suppress(OSError):  # whoever needs the folder says so when it writes there
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in open_to_others(settings):
        if path.is_relative_to(settings.home):
            with contextlib.suppress(PermissionError):
                path.chmod(stat.S_IMODE(path.stat().st_mode) & ~FOR_OTHERS)


def open_to_others(settings: Settings) -> list[Path]:
    """The data folder, the database and the folders of storage, cache and logs, as far as other
    users may open them."""
    return [path for path in _parts(settings) if path.exists() and _is_open(path)]


def _parts(settings: Settings) -> list[Path]:
    home = settings.home
    parts = [
        home,
        *(home / name for name in (STORAGE, CACHE, HEALTH, LOGS, UP_RECORD, UP_LOCK)),
    ]
    if file := settings.sqlite_file:
        parts += [Path(f"{file}{suffix}") for suffix in ("", "-wal", "-shm")]
    if settings.storage_url.startswith("file://"):
        parts.append(Path(unquote(urlsplit(settings.storage_url).path)))
    return list(dict.fromkeys(parts))


def _is_open(path: Path) -> bool:
    """A folder that everyone may write to, such as /tmp, is not ours to close."""
    mode = path.stat().st_mode
    return bool(mode & FOR_OTHERS) and not mode & stat.S_ISVTX

"""The worker's local folder of temporary copies, which a process that dies cannot remove."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nelbo.home import CACHE

PREFIX = "temporary-"


@contextmanager
def temporary(home: Path) -> Iterator[Path]:
    """An empty folder that is removed afterwards."""
    folder = _folder(home)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=PREFIX) as name:
        yield Path(name)


def tidy(home: Path, old_s: float) -> int:
    """Remove temporary folders that nothing was written to for `old_s` seconds.

    The processes that created them have died. Returns the number of folders removed.
    """
    removed = 0
    for folder in _folder(home).glob(f"{PREFIX}*"):
        try:
            age_s = time.time() - folder.stat().st_mtime
        except FileNotFoundError:
            continue
        if age_s > old_s:
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
    return removed


def _folder(home: Path) -> Path:
    return home / CACHE

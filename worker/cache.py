"""The worker's local folder: temporary copies that a process which dies cannot remove."""

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
    with tempfile.TemporaryDirectory(dir=folder, prefix=PREFIX) as made:
        yield Path(made)


def tidy(home: Path, old_s: float) -> int:
    """Remove temporary folders that nothing was written to for `old_s` seconds: whoever made them
    died. Gives their number."""
    removed = 0
    for folder in _folder(home).glob(f"{PREFIX}*"):
        try:
            old = time.time() - folder.stat().st_mtime > old_s
        except FileNotFoundError:
            continue
        if old:
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
    return removed


def _folder(home: Path) -> Path:
    return home / CACHE

"""Copies of stored artifacts on this machine, shared by its processes and named by digest."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from nelbo.errors import InvalidArtifact, NotFound
from nelbo.home import CACHE
from nelbo.packing import unpack
from nelbo.storage import Storage, artifact_key

_T = TypeVar("_T")
AT_ONCE = 500
"""Number of digests per query."""


def artifacts(home: Path) -> Path:
    """The folder of the copies."""
    return home / CACHE / "artifacts"


def load(
    storage: Storage, version_id: str, digest: str, cache: Path, use: Callable[[Path], _T]
) -> _T:
    """The result of `use` for the artifact's folder. A damaged copy is fetched again, once."""
    try:
        return use(fetch(storage, version_id, digest, cache))
    except (InvalidArtifact, NotFound):
        shutil.rmtree(cache / digest, ignore_errors=True)
        return use(fetch(storage, version_id, digest, cache))


def fetch(storage: Storage, version_id: str, digest: str, cache: Path) -> Path:
    """The artifact's folder on this machine, fetched and verified if there is none yet."""
    target = cache / digest
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".") as temporary:
            _publish(_unpacked(storage, version_id, digest, Path(temporary)), target)
    return target


def _unpacked(storage: Storage, version_id: str, digest: str, temporary: Path) -> Path:
    """The artifact of a version, fetched into a folder and verified."""
    packed = temporary / "packed.zip"
    folder = temporary / "artifact"
    storage.fetch(artifact_key(version_id), packed)
    stored = unpack(packed, folder).digest
    if stored != digest:
        raise InvalidArtifact(
            f"the stored artifact has digest {stored[:12]}…, expected {digest[:12]}…; push it again"
        )
    return folder


def tidy(cache: Path, live: Callable[[Sequence[str]], set[str]], old_s: float = 86_400.0) -> int:
    """Remove copies that are no longer `live`, and temporary folders older than `old_s` seconds.

    Returns their number. Another database may still need a removed copy; it is then fetched again.
    """
    if not cache.is_dir():
        return 0
    removed = 0
    names = sorted(folder.name for folder in cache.iterdir() if not folder.name.startswith("."))
    for start in range(0, len(names), AT_ONCE):
        digests = names[start : start + AT_ONCE]
        for name in sorted(set(digests) - live(digests)):
            _remove(cache / name)
            removed += 1
    return removed + sum(_remove_old(folder, old_s) for folder in cache.glob(".*"))


def _remove(folder: Path) -> None:
    """Remove a folder at once: no other process sees it half removed."""
    with (
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as temporary,
        suppress(FileNotFoundError),
    ):
        os.rename(folder, Path(temporary) / "copy")


def _remove_old(folder: Path, old_s: float) -> bool:
    with suppress(FileNotFoundError):
        if time.time() - folder.stat().st_mtime > old_s:
            shutil.rmtree(folder, ignore_errors=True)
            return True
    return False


def _publish(folder: Path, target: Path) -> None:
    """Give a complete folder its final name, unless another process has published a copy first."""
    try:
        os.rename(folder, target)
    except OSError:
        if not target.exists():
            raise

"""Copies of stored artifacts on this machine, one for all of its processes, named by their
digests."""

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
"""Digests that one question about their versions names."""


def artifacts(home: Path) -> Path:
    """The folder of the copies."""
    return home / CACHE / "artifacts"


def load(
    storage: Storage, version_id: str, digest: str, cache: Path, use: Callable[[Path], _T]
) -> _T:
    """What `use` makes of the artifact's folder. A copy that is damaged is fetched again: only what
    is stored counts."""
    try:
        return use(fetch(storage, version_id, digest, cache))
    except (InvalidArtifact, NotFound):
        shutil.rmtree(cache / digest, ignore_errors=True)
        return use(fetch(storage, version_id, digest, cache))


def fetch(storage: Storage, version_id: str, digest: str, cache: Path) -> Path:
    """The artifact's folder on this machine, fetched and verified where it is not there yet."""
    target = cache / digest
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".") as temporary:
            _publish(_unpacked(storage, version_id, digest, Path(temporary)), target)
    return target


def _unpacked(storage: Storage, version_id: str, digest: str, temporary: Path) -> Path:
    """What is stored of a version, verified in a folder of its own."""
    packed, folder = temporary / "packed.zip", temporary / "artifact"
    storage.fetch(artifact_key(version_id), packed)
    found = unpack(packed, folder).digest
    if found != digest:
        raise InvalidArtifact(
            f"the stored artifact has digest {found[:12]}…, wanted {digest[:12]}…; push it again"
        )
    return folder


def tidy(cache: Path, live: Callable[[Sequence[str]], set[str]], old_s: float = 86_400.0) -> int:
    """Remove the copies whose digests are not `live` any more, and what a process that died left of
    one; their number. A copy that is still needed, by another database, is fetched again."""
    if not cache.is_dir():
        return 0
    removed = 0
    names = sorted(folder.name for folder in cache.iterdir() if not folder.name.startswith("."))
    for start in range(0, len(names), AT_ONCE):
        some = names[start : start + AT_ONCE]
        for name in sorted(set(some) - live(some)):
            _remove(cache / name)
            removed += 1
    return removed + sum(_remove_old(folder, old_s) for folder in cache.glob(".*"))


def _remove(folder: Path) -> None:
    """At once for others: nobody sees a half of it."""
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
    """Give a complete folder its name at once; another process may have been faster with the same
    content."""
    try:
        os.rename(folder, target)
    except OSError:
        if not target.exists():
            raise

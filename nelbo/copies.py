"""Copies of stored artifacts on this machine, one for all of its processes, named by their digests."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from nelbo.errors import InvalidArtifact, NotFound
from nelbo.packing import unpack
from nelbo.storage import Storage, artifact_key

_T = TypeVar("_T")


def artifacts(home: Path) -> Path:
    """The folder of the copies."""
    return home / "cache" / "artifacts"


def load(storage: Storage, version_id: str, digest: str, cache: Path, use: Callable[[Path], _T]) -> _T:
    """What `use` makes of the artifact's folder. A copy that is damaged is fetched again: only what is stored counts."""
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
        raise InvalidArtifact(f"the stored artifact has digest {found[:12]}…, wanted {digest[:12]}…; push it again")
    return folder


def _publish(folder: Path, target: Path) -> None:
    """Give a complete folder its name at once; another process may have been faster with the same content."""
    try:
        os.rename(folder, target)
    except OSError:
        if not target.exists():
            raise

"""Engines of this process by artifact digest, and the artifacts' local copies."""

import os
import shutil
import tempfile
from collections import OrderedDict
from pathlib import Path

from nelbo.artifact import unpack
from nelbo.engine import Engine
from nelbo.errors import InvalidArtifact
from nelbo.storage import Storage, artifact_key
from nelbo.store.catalog import VersionEntry


class Engines:
    """At most `keep` engines in memory; artifacts under `folder`, one for all processes of this machine."""

    def __init__(self, storage: Storage, folder: Path, keep: int = 4) -> None:
        self._storage, self._folder, self._keep = storage, folder, keep
        self._loaded: OrderedDict[str, Engine] = OrderedDict()

    def get(self, version: VersionEntry) -> Engine:
        """The engine of a version. Raises InvalidArtifact where what is stored is not what its digest names."""
        digest = version.digest
        if digest not in self._loaded:
            self._loaded[digest] = self._load(version)
            if len(self._loaded) > self._keep:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(digest)
        return self._loaded[digest]

    def fetch(self, version: VersionEntry) -> Path:
        """The artifact's folder on this machine, fetched and verified where it is not there yet."""
        target = self._folder / version.digest
        if not target.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._folder, prefix=".") as temporary:
                _publish(self.unpacked(version, Path(temporary)), target)
        return target

    def _load(self, version: VersionEntry) -> Engine:
        try:
            return Engine.load(self.fetch(version))
        except InvalidArtifact:
            # The copy on this machine may be what is damaged: only what is stored counts.
            shutil.rmtree(self._folder / version.digest, ignore_errors=True)
            return Engine.load(self.fetch(version))

    def unpacked(self, version: VersionEntry, temporary: Path) -> Path:
        """What is stored of a version, whether or not this machine has a copy, verified in a folder of its own."""
        packed, folder = temporary / "packed.zip", temporary / "artifact"
        self._storage.fetch(artifact_key(version.id), packed)
        found = unpack(packed, folder).digest
        if found != version.digest:
            raise InvalidArtifact(
                f"the stored artifact of {version.name} has digest {found[:12]}…, wanted {version.digest[:12]}…; push it again"
            )
        return folder


def _publish(folder: Path, target: Path) -> None:
    """Give a complete folder its name at once; another process may have been faster with the same content."""
    try:
        os.rename(folder, target)
    except OSError:
        if not target.exists():
            raise

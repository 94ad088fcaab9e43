"""Engines of this process by artifact digest, over the copies of artifacts on this machine."""

from collections import OrderedDict
from functools import partial
from pathlib import Path

from nelbo import copies
from nelbo.engine import Engine
from nelbo.storage import Storage
from nelbo.store.catalog import VersionEntry
from worker import confined


class Engines:
    """At most `keep` engines at a time, each with a confined process; artifacts under `folder`,
    shared by this machine."""

    def __init__(
        self, storage: Storage, folder: Path, limits: confined.Limits, keep: int = 4
    ) -> None:
        self._storage, self._folder, self._keep = storage, folder, keep
        self._load = partial(confined.load, limits=limits)
        self._loaded: OrderedDict[str, Engine] = OrderedDict()

    def get(self, version: VersionEntry) -> Engine:
        """The engine of a version. Raises InvalidArtifact where what is stored is not what its
        digest names."""
        digest = version.digest
        if digest not in self._loaded:
            self._loaded[digest] = copies.load(
                self._storage, version.id, digest, self._folder, self._load
            )
            if len(self._loaded) > self._keep:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(digest)
        for other in self._loaded.values():
            if other is not self._loaded[digest] and isinstance(
                other.graphs, confined.ConfinedGraphs
            ):
                other.graphs.rest()
        return self._loaded[digest]

    def fetch(self, version: VersionEntry) -> Path:
        """The artifact's folder on this machine, fetched and verified where it is not there yet."""
        return copies.fetch(self._storage, version.id, version.digest, self._folder)

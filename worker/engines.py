"""The engines of this process, by the digest of their artifact."""

from collections import OrderedDict
from functools import partial
from pathlib import Path

from nelbo import copies
from nelbo.engine import Engine
from nelbo.storage import Storage
from nelbo.store.catalog import VersionEntry
from worker import confined


class Engines:
    """At most `keep` loaded engines, each with a confined process.

    The processes of this machine share the copies of artifacts under `folder`.
    """

    def __init__(
        self, storage: Storage, folder: Path, limits: confined.ModelLimits, keep: int = 4
    ) -> None:
        self._storage = storage
        self._folder = folder
        self._keep = keep
        self._load = partial(confined.load, limits=limits)
        self._loaded: OrderedDict[str, Engine] = OrderedDict()

    def get(self, version: VersionEntry) -> Engine:
        """The engine of a version.

        Raises InvalidArtifact where the stored artifact does not match its digest.
        """
        digest = version.digest
        if digest not in self._loaded:
            self._loaded[digest] = copies.load(
                self._storage, version.id, digest, self._folder, self._load
            )
            if len(self._loaded) > self._keep:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(digest)
        engine = self._loaded[digest]

        for other in self._loaded.values():
            if other is not engine and isinstance(other.graphs, confined.ConfinedGraphs):
                other.graphs.rest()
        return engine

    def fetch(self, version: VersionEntry) -> Path:
        """The artifact's folder on this machine, fetched and verified on first use."""
        return copies.fetch(self._storage, version.id, version.digest, self._folder)

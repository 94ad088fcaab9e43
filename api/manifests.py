"""Manifests in the memory of the API: read by one thread, as the largest takes 80 MiB while it is
read."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from nelbo.store import catalog
from nelbo.store.catalog import VersionEntry
from nelbo.store.session import Database

_T = TypeVar("_T")
_READER = ThreadPoolExecutor(1, "manifests")
"""A lock would not do: what one thread has freed is not given to another by the C library, each has
a heap of its own."""


def of_manifest(
    database: Database, version: VersionEntry, use: Callable[[dict[str, Any]], _T]
) -> _T:
    """What `use` makes of a version's manifest, of which it should keep little; an empty one until
    the version is verified."""
    return _READER.submit(lambda: use(catalog.get_manifest(database, version))).result()

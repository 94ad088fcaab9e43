"""The manifests of models. One thread reads them, because reading one may take 80 MiB."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from nelbo.store import catalog
from nelbo.store.catalog import VersionEntry
from nelbo.store.session import Database

_T = TypeVar("_T")
_READER = ThreadPoolExecutor(1, "manifests")
"""A lock is not enough: each thread has a heap of its own, and keeps what it has freed."""


def of_manifest(
    database: Database, version: VersionEntry, use: Callable[[dict[str, Any]], _T]
) -> _T:
    """What `use` returns for the manifest of a version; it should keep only a little of it.

    The manifest is empty until the version is verified.
    """
    return _READER.submit(lambda: use(catalog.get_manifest(database, version))).result()

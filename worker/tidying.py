"""Removes what is old, in bounded batches.

These are the remains of dead processes, expired results and stored bytes that are no longer used.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from nelbo import copies
from nelbo.ids import made_at
from nelbo.jobs import INTERNAL_KINDS
from nelbo.settings import Settings
from nelbo.storage import (
    ARTIFACTS,
    FILES,
    PUSHES,
    Storage,
    artifact_key,
    file_prefix,
    open_storage,
    push_key,
    stored_ids,
)
from nelbo.store import expiry, files
from nelbo.store.session import Database
from worker import cache

OLD_S = 24 * 3600.0
"""Age in seconds at which unfinished uploads and temporary folders are given up.

The same holds for pushes that were never registered.
"""
READERS_S = 3600.0
"""Seconds between a deletion and the removal of its rows, so that readers can finish."""
BATCHES = 40
"""Maximum number of batches of each kind in one run; the next run continues."""
IDS_PER_QUERY = 500
DAY_S = 86_400.0


def tidy(database: Database, settings: Settings, old_s: float = OLD_S) -> dict[str, int]:
    """Remove what is old in the database and in this host's cache.

    Returns the number of each thing removed, without zeros.
    """
    counts = {
        "files_rejected": files.reject_stale_files(database, old_s),
        "folders_removed": cache.tidy(settings.home, old_s),
        "copies_removed": copies.tidy(
            copies.artifacts(settings.home), partial(expiry.live_digests, database), old_s
        ),
        "manifests_emptied": sum(_batches(lambda: expiry.empty_manifests(database))),
        "internal_jobs_expired": expiry.expire_jobs(database, old_s, kinds=INTERNAL_KINDS),
        "jobs_expired": _aged(
            settings.keep_results_days, lambda age_s: expiry.expire_jobs(database, age_s)
        ),
        "chunks_purged": sum(_batches(lambda: expiry.purge(database, READERS_S))),
        "jobs_forgotten": _aged(
            settings.keep_deleted_days, lambda age_s: expiry.forget_jobs(database, age_s)
        ),
    }
    return {name: count for name, count in counts.items() if count}


def tidy_storage(database: Database, settings: Settings, old_s: float = OLD_S) -> dict[str, int]:
    """Remove the bytes of deleted, rejected and abandoned files and artifacts.

    Afterwards the database forgets such files. Bytes that the database does not know stay: the
    folder or bucket may be older than the database, or may be shared with others.
    """
    storage = open_storage(settings.storage)
    counts = {
        "uploads_removed": _remove(
            storage, FILES, file_prefix, partial(expiry.dead_files, database)
        ),
        "artifacts_removed": _remove(
            storage, ARTIFACTS, artifact_key, partial(expiry.dead_versions, database)
        ),
        "pushes_removed": _remove(
            storage, PUSHES, push_key, lambda ids: {name for name in ids if _is_older(name, old_s)}
        ),
        "files_forgotten": _aged(
            settings.keep_deleted_days, lambda age_s: expiry.forget_files(database, age_s)
        ),
    }
    return {name: count for name, count in counts.items() if count}


def _aged(days: float, sweep: Callable[[float], int]) -> int:
    """The number removed; 0 days means that nothing is removed."""
    return sum(_batches(lambda: sweep(days * DAY_S))) if days else 0


def _batches(batch: Callable[[], int]) -> Iterator[int]:
    for _ in range(BATCHES):
        count = batch()
        yield count
        if not count:
            return


def _is_older(name: str, age_s: float) -> bool:
    """Whether an id was created more than `age_s` ago; a foreign name has no age."""
    created_at = made_at(name)
    return created_at is not None and time.time() - created_at > age_s


def _remove(
    storage: Storage,
    folder: str,
    key: Callable[[str], str],
    dead: Callable[[Sequence[str]], set[str]],
) -> int:
    """Remove the dead objects of a folder and return their number."""
    ids = stored_ids(storage, folder)
    removed = 0
    for start in range(0, len(ids), IDS_PER_QUERY):
        for dead_id in dead(ids[start : start + IDS_PER_QUERY]):
            storage.delete(key(dead_id))
            removed += 1
    return removed

"""What time does away with, in bounded batches: what the dead left, results that expired, stored
bytes of no use any more."""

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
"""Age at which an upload that never ended, a push that was never registered and a temporary folder
are given up."""
READERS_S = 3600.0
"""What was deleted by its age is removed so much later: whoever was fetching it comes to the
end."""
BATCHES = 40
"""Of each sort in one tidying; the next one goes on."""
AT_ONCE = 500
"""Ids that one query is about."""
DAY_S = 86_400.0


def tidy(database: Database, settings: Settings, old_s: float = OLD_S) -> dict[str, int]:
    """Do away with what is old in the database and in this host's cache; the numbers that are not
    0, by what it was."""
    done = {
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
    return {what: number for what, number in done.items() if number}


def tidy_storage(database: Database, settings: Settings, old_s: float = OLD_S) -> dict[str, int]:
    """Remove the bytes of what was rejected or deleted, as an upload whose receiver died, and of
    pushes that came to nothing; then what is left of such files in the database. Bytes that the
    database does not know stay: a folder or bucket may be older than its database, or not be its
    alone."""
    storage = open_storage(settings.storage)
    done = {
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
    return {what: number for what, number in done.items() if number}


def _aged(days: float, sweep: Callable[[float], int]) -> int:
    """0 days: kept for ever."""
    return sum(_batches(lambda: sweep(days * DAY_S))) if days else 0


def _batches(batch: Callable[[], int]) -> Iterator[int]:
    for _ in range(BATCHES):
        done = batch()
        yield done
        if not done:
            return


def _is_older(name: str, age_s: float) -> bool:
    """Whether an id was made that long ago. What Nelbo did not name has no age."""
    time_made = made_at(name)
    return time_made is not None and time.time() - time_made > age_s


def _remove(
    storage: Storage,
    folder: str,
    key: Callable[[str], str],
    dead: Callable[[Sequence[str]], set[str]],
) -> int:
    """Remove those of a folder that are dead, and give their number."""
    ids = stored_ids(storage, folder)
    removed = 0
    for start in range(0, len(ids), AT_ONCE):
        for dead_id in dead(ids[start : start + AT_ONCE]):
            storage.delete(key(dead_id))
            removed += 1
    return removed

"""What time does away with, in bounded batches: what the dead left, results that expired, stored bytes that nobody owns."""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath

from nelbo.settings import Settings
from nelbo.storage import Storage, artifact_key, file_prefix, open_storage
from nelbo.store import expiry, files
from nelbo.store.session import Database
from worker import cache

OLD_S = 24 * 3600.0
"""Age at which an upload that never ended, bytes that nobody owns and a temporary folder are given up."""
READERS_S = 3600.0
"""What was deleted by its age is removed so much later: whoever was fetching it comes to the end."""
BATCHES = 40
"""Of each sort in one tidying; the next one goes on."""
DAY_S = 86_400.0


def tidy(database: Database, settings: Settings, old_s: float = OLD_S) -> dict[str, int]:
    """Do away with what is old in the database and in this host's cache; the numbers that are not 0, by what it was."""
    done = {
        "files_rejected": files.reject_stale_files(database, old_s),
        "folders_removed": cache.tidy(settings.home, old_s),
        "internal_jobs_expired": expiry.expire_jobs(database, old_s, kinds=expiry.INTERNAL),
        "jobs_expired": _aged(settings.keep_results_days, lambda age_s: expiry.expire_jobs(database, age_s)),
        "chunks_purged": sum(_batches(lambda: expiry.purge(database, READERS_S))),
        "jobs_forgotten": _aged(settings.keep_deleted_days, lambda age_s: expiry.forget_jobs(database, age_s)),
        "files_forgotten": _aged(settings.keep_deleted_days, lambda age_s: expiry.forget_files(database, age_s)),
    }
    return {what: number for what, number in done.items() if number}


def tidy_storage(database: Database, settings: Settings, old_s: float = OLD_S) -> dict[str, int]:
    """Remove stored bytes that nobody owns: of uploads whose receiver died, of pushes that were never registered, of what
    was rejected or deleted. Ids tell when they were made, and nothing young is looked at: it may be about to be registered."""
    storage = open_storage(settings.storage)
    uploads, artifacts = (_old(storage.names(folder), old_s) for folder in ("files", "artifacts"))
    done = {
        "uploads_removed": _remove(storage, uploads, lambda ids: expiry.unowned_files(database, ids), file_prefix),
        "artifacts_removed": _remove(storage, artifacts, lambda ids: expiry.unowned_versions(database, ids), artifact_key),
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


def _old(names: Sequence[str], old_s: float) -> list[str]:
    """The ids among names that were made so long ago; what we did not name is not ours to remove."""
    return [name for name in (PurePosixPath(name).stem for name in names) if _made_at(name) < time.time() - old_s]


def _made_at(name: str) -> float:
    """When an id was made, in seconds since the epoch (UUID version 7 begins with it in milliseconds)."""
    try:
        found = uuid.UUID(name)
    except ValueError:
        return float("inf")
    return (found.int >> 80) / 1_000 if found.version == 7 else float("inf")


def _remove(
    storage: Storage, ids: Sequence[str], unowned: Callable[[Sequence[str]], set[str]], place: Callable[[str], str]
) -> int:
    removed = 0
    for start in range(0, len(ids), 500):
        for name in unowned(ids[start : start + 500]):
            storage.delete(place(name))
            removed += 1
    return removed

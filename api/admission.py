"""Whether the service takes more: counts in SQL as limits for the ledger, and free disk where bytes
are about to go."""

from pathlib import Path

from api.deps import Service
from nelbo.errors import Overloaded, OverQuota, TooLarge
from nelbo.settings import Settings
from nelbo.storage import free_bytes
from nelbo.store import usage
from nelbo.store.queue import QUOTA_S, Limits

FULL_DISK_S = 60.0


def limits(settings: Settings) -> Limits:
    """What the accepting transaction counts against."""
    return Limits(
        rows_of_owner=settings.max_queued_rows,
        rows=settings.max_queued_rows_in_all,
        jobs_of_owner=settings.max_unfinished_jobs,
        wait_s=settings.max_queue_s,
    )


def need_disk(service: Service, coming: str | None = None) -> None:
    """Raise Overloaded where the disk of uploads or of a SQLite database is about to be full.

    `coming` is the Content-Length of what is about to be stored, where it was told. A bucket has no
    end.
    """
    expected = _declared(coming)
    wanted = service.settings.min_free_bytes
    storage = service.storage.folder
    if storage is not None:
        _need(storage, wanted + expected, "where uploads are stored")
    database = service.database.folder
    if database is not None:
        _need(database, wanted, "where the database lies")
    need_database_room(service)


def need_database_room(service: Service) -> None:
    """Raise Overloaded where the disk of a PostgreSQL database is full, or about to be as far as
    the settings tell."""
    service.database.need_room(service.settings.database_max_bytes, service.settings.min_free_bytes)


def need_room(service: Service, owner: str, coming: str | None = None) -> None:
    """Raise Overloaded where the disk is about to be full, TooLarge where the owner would store
    more than they may.

    What their uploads have received so far counts, so that many at once get no further than one.
    """
    need_disk(service, coming)
    stored = (
        usage.usage(service.database, owner).stored_bytes
        + service.uploads.bytes_of(owner)
        + _declared(coming)
    )
    limit = service.settings.max_stored_bytes
    if stored > limit:
        raise TooLarge(
            f"with this you would keep {stored:,} bytes here; one owner may keep {limit:,} (the"
            " setting max_stored_bytes):"
            " delete files, models and jobs that you no longer need"
        )


def need_readers(service: Service, owner: str) -> None:
    """Raise OverQuota where too many uploads and pushes of the owner have not been read: how long
    one takes cannot be told from its size."""
    unread, limit = usage.usage(service.database, owner).unread, service.settings.max_unread
    if unread >= limit:
        raise OverQuota(
            f"{unread:,} uploads and pushes of yours have not been read and verified; at most"
            f" {limit:,} may wait (the"
            " setting max_unread): try again when one is ready",
            retry_after=QUOTA_S,
        )


def _declared(length: str | None) -> int:
    return int(length) if length and length.isdecimal() else 0


def _need(folder: Path, wanted: int, where: str) -> None:
    free = free_bytes(folder)
    if free < wanted:
        raise Overloaded(
            f"{free / 2**20:,.0f} MiB of disk are free {where}, and {wanted / 2**20:,.0f} MiB must"
            " be (the setting"
            " min_free_bytes): delete jobs and files that are done with, or ask whoever runs the"
            " service for a larger disk",
            retry_after=FULL_DISK_S,
        )

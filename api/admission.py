"""Whether the service accepts more: the limits of the queue, and free space for what is stored."""

from pathlib import Path

from api.deps import Service
from nelbo.errors import Overloaded, OverQuota, TooLarge
from nelbo.settings import Settings
from nelbo.storage import free_bytes
from nelbo.store import usage
from nelbo.store.queue import QUOTA_S, QueueLimits

FULL_DISK_S = 60.0
"""Seconds after which a client may try again when the disk is full."""


def limits(settings: Settings) -> QueueLimits:
    """The limits that the transaction which accepts a job checks."""
    return QueueLimits(
        rows_of_owner=settings.max_queued_rows,
        rows=settings.max_queued_rows_in_all,
        jobs_of_owner=settings.max_unfinished_jobs,
        wait_s=settings.max_queue_s,
    )


def need_disk(service: Service, coming: str | None = None) -> None:
    """Raise Overloaded if the disk of the uploads or of the database is about to be full.

    coming: Content-Length of the body that will be stored, if it is known. A bucket is never full.
    """
    reserve = service.settings.min_free_bytes
    storage = service.storage.folder
    if storage is not None:
        _need(storage, reserve + _declared(coming), "uploads")
    database = service.database.folder
    if database is not None:
        _need(database, reserve, "the database")
    need_database_room(service)


def need_database_room(service: Service) -> None:
    """Raise Overloaded if a PostgreSQL database is full, or about to reach its limit."""
    service.database.need_room(service.settings.database_max_bytes, service.settings.min_free_bytes)


def need_room(service: Service, owner: str, coming: str | None = None) -> None:
    """Raise Overloaded if the disk is about to be full, TooLarge if the owner stores too much.

    The bytes that running uploads have received count too, so that many uploads at once cannot
    exceed the limit.
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
            f"you would store {stored:,} bytes here; the limit per owner is {limit:,} (the setting"
            " max_stored_bytes): delete files, models and jobs that you no longer need"
        )


def need_readers(service: Service, owner: str) -> None:
    """Raise OverQuota if too many uploads and pushes of the owner are not yet read.

    Their number is limited, because the size of an upload does not say how long reading takes.
    """
    unread = usage.usage(service.database, owner).unread
    limit = service.settings.max_unread
    if unread >= limit:
        raise OverQuota(
            f"{unread:,} of your uploads and pushes are not yet read or verified; the limit is"
            f" {limit:,} (the setting max_unread): try again when one is ready",
            retry_after=QUOTA_S,
        )


def _declared(length: str | None) -> int:
    return int(length) if length and length.isdecimal() else 0


def _need(folder: Path, minimum: int, content: str) -> None:
    free = free_bytes(folder)
    if free < minimum:
        raise Overloaded(
            f"the disk of {content} has {free / 2**20:,.0f} MiB of free space, and"
            f" {minimum / 2**20:,.0f} MiB are needed (the setting min_free_bytes): delete jobs and"
            " files that you no longer need, or ask whoever runs the service for a larger disk",
            retry_after=FULL_DISK_S,
        )

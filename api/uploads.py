"""Uploads: bodies that stream from the network into the storage, at constant memory."""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager

from anyio import CapacityLimiter, from_thread, to_thread
from fastapi import Request

from api.places import Places
from nelbo.storage import Storage

CHECK_BYTES = 64 * 2**20
"""Number of bytes of a body after which the free space is checked again."""


class Uploads:
    """The uploads that this process is receiving.

    Each occupies a thread while its client sends. These threads are not those of the other routes,
    so that slow uploads do not delay them.
    """

    def __init__(self, number: int, of_owner: int) -> None:
        advice = (
            " (the settings max_uploads and max_uploads_of_owner): try again when one has ended"
        )
        self._places = Places(number, of_owner, "uploads", advice, retry_after=5)
        self._threads = CapacityLimiter(number)
        self._running: set[Upload] = set()

    @contextmanager
    def begun(self, owner: str) -> Iterator["Upload"]:
        """An upload, which lasts until its end is stored in SQL.

        Raises OverQuota or Overloaded if there are too many.
        """
        upload = Upload(owner, self._threads)
        with self._places.taken(owner):
            self._running.add(upload)
            try:
                yield upload
            finally:
                self._running.remove(upload)

    def bytes_of(self, owner: str) -> int:
        """Number of bytes that the owner's uploads have received. They are not yet in SQL."""
        return sum(upload.bytes for upload in self._running.copy() if upload.owner == owner)


class Upload:
    """One upload, and the number of bytes that have arrived."""

    def __init__(self, owner: str, threads: CapacityLimiter) -> None:
        self.owner = owner
        self.bytes = 0
        self._threads = threads

    async def receive(
        self, request: Request, storage: Storage, key: str, check: Callable[[], None]
    ) -> int:
        """Store the body of a request under this key, and return its size.

        If it breaks off or is refused, nothing of it remains.

        check: called on the storing thread after each CHECK_BYTES and at the end. It raises an
        error if there is too little space.
        """
        pieces = self._pulled(request.stream(), check)
        await to_thread.run_sync(storage.put, key, pieces, limiter=self._threads)
        return self.bytes

    def _pulled(
        self, body: AsyncGenerator[bytes, None], check: Callable[[], None]
    ) -> Iterator[bytes]:
        """The pieces of the body, for a thread. Each is fetched on the event loop when needed."""
        checked = 0
        while (piece := from_thread.run(_next, body)) is not None:
            self.bytes += len(piece)
            if self.bytes - checked >= CHECK_BYTES:
                check()
                checked = self.bytes
            if piece:
                yield piece
        check()


async def _next(body: AsyncGenerator[bytes, None]) -> bytes | None:
    return await anext(body, None)

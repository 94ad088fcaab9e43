"""Bodies that stream from the network into the storage, at constant memory however long they are,
few at a time."""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager

from anyio import CapacityLimiter, from_thread, to_thread
from fastapi import Request

from api.places import Places
from nelbo.storage import Storage

CHECK_BYTES = 64 * 2**20
"""How much of a body comes between two looks at what there is room for."""


class Uploads:
    """The uploads that go on in this process. Each holds a thread while its client sends, hence
    threads of their own: the routes that answer at once share others."""

    def __init__(self, number: int, of_owner: int) -> None:
        advice = (
            " (the settings max_uploads and max_uploads_of_owner): try again when one has ended"
        )
        self._places = Places(number, of_owner, "uploads", advice, retry_after=5)
        self._threads = CapacityLimiter(number)
        self._going_on: set[Upload] = set()

    @contextmanager
    def begun(self, owner: str) -> Iterator["Upload"]:
        """An upload, until its end is in SQL. Raises OverQuota or Overloaded where too many go
        on."""
        upload = Upload(owner, self._threads)
        with self._places.taken(owner):
            self._going_on.add(upload)
            try:
                yield upload
            finally:
                self._going_on.remove(upload)

    def bytes_of(self, owner: str) -> int:
        """What this owner's uploads have received so far; SQL does not know of it yet."""
        return sum(upload.bytes for upload in self._going_on.copy() if upload.owner == owner)


class Upload:
    """One upload, and how much of it has come."""

    def __init__(self, owner: str, threads: CapacityLimiter) -> None:
        self.owner = owner
        self.bytes = 0
        self._threads = threads

    async def receive(
        self, request: Request, storage: Storage, key: str, check: Callable[[], None]
    ) -> int:
        """Store a request's body under this key and return its size. What breaks off or is refused
        leaves nothing.

        check: called on the thread that stores, after each CHECK_BYTES and at the end; it raises
        where there is no room.
        """
        pieces = self._pulled(request.stream(), check)
        await to_thread.run_sync(storage.put, key, pieces, limiter=self._threads)
        return self.bytes

    def _pulled(
        self, body: AsyncGenerator[bytes, None], check: Callable[[], None]
    ) -> Iterator[bytes]:
        """The body's pieces, for a thread: each is fetched on the event loop when the storage asks
        for it."""
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

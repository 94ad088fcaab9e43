"""Bodies that stream from the network into the storage, at constant memory however long they are, few at a time."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from anyio import CapacityLimiter, from_thread, to_thread
from fastapi import Request

from api.places import Places
from nelbo.storage import Storage


@dataclass
class _Count:
    bytes: int = 0


class Uploads:
    """The uploads that go on. Each holds a thread while its client sends, hence threads of their own: the routes that
    answer at once share others."""

    def __init__(self, number: int, of_owner: int) -> None:
        advice = " (the settings max_uploads and max_uploads_of_owner): try again when one has ended"
        self._places = Places(number, of_owner, "uploads", advice, retry_after=5)
        self._threads = CapacityLimiter(number)

    def place(self, owner: str) -> AbstractContextManager[None]:
        """A place for one upload, to be held before anything is stored. Raises OverQuota or Overloaded."""
        return self._places.taken(owner)

    async def receive(self, request: Request, storage: Storage, key: str) -> int:
        """Store a request's body under this key and return its size. What breaks off or is refused leaves nothing."""
        count = _Count()
        await to_thread.run_sync(storage.put, key, _pulled(request.stream(), count), limiter=self._threads)
        return count.bytes


def _pulled(body: AsyncGenerator[bytes, None], count: _Count) -> Iterator[bytes]:
    """The body's pieces, for a thread: each is fetched on the event loop when the storage asks for it."""
    while True:
        try:
            piece = from_thread.run(_next, body)
        except StopAsyncIteration:
            return
        count.bytes += len(piece)
        if piece:
            yield piece


async def _next(body: AsyncGenerator[bytes, None]) -> bytes:
    return await anext(body)

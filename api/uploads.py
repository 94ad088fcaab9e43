"""Bodies that stream from the network into the storage, at constant memory however long they are."""

from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass

import anyio.from_thread
from fastapi import Request
from starlette.concurrency import run_in_threadpool

from nelbo.storage import Storage


@dataclass
class _Count:
    bytes: int = 0


async def receive(request: Request, storage: Storage, key: str) -> int:
    """Store a request's body under this key and return its size. What breaks off or is refused leaves nothing."""
    count = _Count()
    await run_in_threadpool(storage.put, key, _pulled(request.stream(), count))
    return count.bytes


def _pulled(body: AsyncGenerator[bytes, None], count: _Count) -> Iterator[bytes]:
    """The body's pieces, for a thread: each is fetched on the event loop when the storage asks for it."""
    while True:
        try:
            piece = anyio.from_thread.run(_next, body)
        except StopAsyncIteration:
            return
        count.bytes += len(piece)
        if piece:
            yield piece


async def _next(body: AsyncGenerator[bytes, None]) -> bytes:
    return await anext(body)

"""Connections: limits of time and size for sending a request and for reading its answer."""

import asyncio
import json
import resource
from collections.abc import Callable
from operator import itemgetter
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.protection import SECURITY_HEADERS

HEAD_S = 10.0
"""Seconds for the head of a request, from the start of the connection or the previous answer."""
UNREAD_S = 60.0
"""Seconds for which a client may leave an answer unread before its connection is closed."""
REST_S = 5.0
"""Seconds for which the rest of a body is read, and dropped, after an early answer such as a 413.

A connection that is closed with unread bytes is reset, and the client may lose the answer.
"""
REST_BYTES = 4 * 2**20
"""Maximum number of these bytes."""
MAX_CONNECTIONS = 4_096
"""Maximum number of connections at the same time."""
BACKLOG = 128
"""Maximum number of connections that wait to be accepted."""
OTHER_FILES = 2 * BACKLOG + 64
"""Number of open files that are reserved for all else, if the system allows fewer files: on a busy
machine, all that wait are accepted twice before a connection above the limit is closed."""
CHUNKS = 1_000
"""A body with more chunks needs at least CHUNK_BYTES per chunk on average.

A chunk of one byte costs as much time of the event loop, which all clients share, as 64 KiB.
"""
CHUNK_BYTES = 256
NOT_HTTP = {
    "type": "about:blank",
    "title": "Bad Request",
    "status": 400,
    "detail": "the request is not valid HTTP/1.1, or its body has too many small chunks;"
    " send larger ones",
}


def allow_many() -> None:
    """Let this process open the files that its connections need, as far as the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = MAX_CONNECTIONS + OTHER_FILES
    if most != resource.RLIM_INFINITY:
        files = min(files, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))


def _most_connections() -> int:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return min(MAX_CONNECTIONS, max(1, files - OTHER_FILES))


class _Requests(h11.Connection):
    """The requests of a connection. h11 by itself reads any number of tiny chunks."""

    _chunks = _bytes = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._bytes = 0
        elif isinstance(event, h11.Data):
            self._chunks += event.chunk_start
            self._bytes += len(event.data)
            if self._chunks > CHUNKS and self._bytes < self._chunks * CHUNK_BYTES:
                raise h11.RemoteProtocolError("too many small chunks")
        return event


class Connection(H11Protocol):
    """A connection with limits of time. uvicorn's own waits without limit for a client."""

    _head: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _rest: asyncio.TimerHandle | None = None
    _rest_bytes = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn = _Requests(h11.SERVER)

    # The type is uvicorn's.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, _Transport(transport, self._close)))
        self._await_head()
        if len(self.connections) > _most_connections():
            # Without this, accept() would fail for the next connection, again and again, with an
            # error in the log each time.
            self._longest_idle()._drop()

    def connection_lost(self, exc: Exception | None) -> None:
        for deadline in (self._head, self._unread, self._rest):
            if deadline is not None:
                deadline.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._rest is not None:
            self._rest_bytes += len(data)
            if self._rest_bytes > REST_BYTES:
                self.transport.abort()
            return
        super().data_received(data)
        self._await_head()

    def on_response_complete(self) -> None:
        # Otherwise the unread body of a refused request, up to 256 KiB, stays in memory until the
        # garbage collector runs.
        self.cycle.body = bytearray()
        super().on_response_complete()
        self._await_head()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()  # An answer has begun, so that no error can be sent.
            return
        headers = [
            ("Content-Type", "application/problem+json"),
            ("Connection", "close"),
            *SECURITY_HEADERS,
        ]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=json.dumps(NOT_HTTP).encode()),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _longest_idle(self) -> "Connection":
        """The connection that has been without a request for longest; without any, this one."""
        idle = [
            (other._head.when(), other)
            for other in self.connections
            if isinstance(other, Connection) and other._head
        ]
        return min(idle, key=itemgetter(0), default=(0.0, self))[1]

    def _drop(self) -> None:
        """Close the connection, and no longer count it. The event loop forgets it later."""
        self.connections.discard(self)
        self.transport.abort()

    def _await_head(self) -> None:
        """Set a deadline for the next head. Bytes that arrive one by one do not extend it."""
        due = self.conn.their_state is h11.IDLE
        if due and self._head is None:
            self._head = self.loop.call_later(HEAD_S, self.transport.abort)
        elif not due and self._head is not None:
            self._head.cancel()
            self._head = None

    def _close(self, transport: asyncio.Transport) -> None:
        if self.conn.their_state is not h11.SEND_BODY or self._rest is not None:
            transport.close()
            return
        if transport.can_write_eof():
            transport.write_eof()
        transport.resume_reading()
        self._rest = self.loop.call_later(REST_S, transport.abort)


class _Transport:
    """A transport that leaves closing to a function. All else is the transport's own."""

    def __init__(
        self, transport: asyncio.Transport, close: Callable[[asyncio.Transport], None]
    ) -> None:
        self._transport = transport
        self._close = close
        self._closing = False

    def close(self) -> None:
        self._closing = True
        self._close(self._transport)

    def is_closing(self) -> bool:
        return self._closing or self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

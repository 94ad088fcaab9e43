"""Connections: how long a client may take to send a request and to read its answer, and what it may send unread."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.protection import SECURITY_HEADERS

HEAD_S = 10.0
"""Seconds for the head of a request, from the connection's first moment or from the answer before."""
UNREAD_S = 60.0
"""Seconds that a client may leave an answer unread before its connection is cut."""
REST_S, REST_BYTES = 5.0, 4 * 2**20
"""After an answer that did not wait for the whole body, such as a 413: how long and how much of the rest is still read,
and dropped. A connection that is closed with bytes unread is reset, and the client may lose the answer."""
NOT_HTTP = {
    "type": "about:blank",
    "title": "Bad Request",
    "status": 400,
    "detail": "the request cannot be read as HTTP/1.1",
}


class Connection(H11Protocol):
    """uvicorn's connection, which would wait for a head, a reader and the rest of a body as long as they take."""

    _head: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _rest: asyncio.TimerHandle | None = None
    _rest_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(cast(asyncio.Transport, _Transport(transport, self._close)))
        self._await_head()

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
        # What nobody read would stay until the garbage collector finds it: 256 KiB for each refused request.
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
            self.transport.abort()  # An answer has begun: there is no other way to tell.
            return
        headers = [("Content-Type", "application/problem+json"), ("Connection", "close"), *SECURITY_HEADERS]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=json.dumps(NOT_HTTP).encode()),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _await_head(self) -> None:
        """A head that is due has a deadline, which its bytes do not put off, however many come one by one."""
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
    """A transport that asks how to close itself; all else is the transport's own."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[asyncio.Transport], None]) -> None:
        self._transport, self._close = transport, close
        self._closing = False

    def close(self) -> None:
        self._closing = True
        self._close(self._transport)

    def is_closing(self) -> bool:
        return self._closing or self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

"""What happens around every request: its id, checks, the limit of its body, a line in the log."""

import re
import time
from collections.abc import Collection, MutableMapping
from typing import TYPE_CHECKING, Any

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import origins
from api.errors import respond
from api.protection import SECURITY_HEADERS
from nelbo import logs
from nelbo.errors import NelboError, NotAuthenticated, NotFound, Unavailable
from nelbo.ids import new_id

if TYPE_CHECKING:
    from api.auth import ApiKeys

log = logs.get(__name__)
MAX_BODY_BYTES = 64 * 2**10
"""Maximum size of a body. The routes for rows, tables and artifacts set another limit."""
GAP_S = 30.0
"""Maximum number of seconds between two pieces of a body."""
GRACE_S = 30.0
"""Seconds of waiting for a body, after which MIN_BYTES_PER_S counts."""
MIN_BYTES_PER_S = 4 * 2**10
"""Minimum rate at which a body must arrive, on average."""
_LIMIT = "nelbo.body_limit"
_FIELDS = "nelbo.log_fields"
_JOB = re.compile(r"(?:/v1/jobs/)?([0-9a-f-]{36})")
_REQUEST_ID = re.compile(r"[!-~]{1,128}")


def allow_body(scope: MutableMapping[str, Any], limit: int, advice: str) -> None:
    """Set another limit for the body of this request. A refusal ends with the advice."""
    scope[_LIMIT] = (limit, advice)


def log_also(scope: MutableMapping[str, Any], **fields: Any) -> None:
    """Add fields to the log line of this request."""
    scope[_FIELDS] |= fields


class AroundRequests:
    """ASGI middleware around all requests.

    The id of a request is the client's `X-Request-ID`, or a new one. Each answer carries it.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self.app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = Headers(scope=scope).get("x-request-id", "")
        scope["request_id"] = request_id if _REQUEST_ID.fullmatch(request_id) else new_id()
        scope[_FIELDS] = {"client": scope["client"][0] if scope.get("client") else ""}
        scope[_LIMIT] = (MAX_BODY_BYTES, "no request of this kind needs more")
        await _Exchange(scope, receive, send).run(self._checked)

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._check(scope)
        except NelboError as refusal:
            await respond(Request(scope), refusal)(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _check(self, scope: Scope) -> None:
        if not await _needs_key(scope["app"].state.service.keys):
            origins.check_host(scope, self._hosts)
        origins.check_page(scope, self._hosts)
        if len(Headers(scope=scope).getlist("authorization")) > 1:
            # A proxy may have checked another one than this service would.
            raise NotAuthenticated("the request has several Authorization headers; send one")
        if "\0" in scope["path"]:
            # PostgreSQL refuses a query with a NUL character.
            raise NotFound("no address contains a NUL character")


async def _needs_key(keys: "ApiKeys") -> bool:
    """Whether requests need a key. It is unknown, and taken for no, without the database."""
    need = keys.known_need()
    if need is not None:
        return need
    try:
        return await run_in_threadpool(keys.needed)
    except Unavailable:
        return False


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        headers = Headers(scope=scope)
        declared = headers.get("content-length", "")
        self.declared_bytes = int(declared) if declared.isdecimal() else 0
        self.two_lengths = "content-length" in headers and "transfer-encoding" in headers
        self.body_bytes = 0
        self.body_ended = self.declared_bytes == 0 and "transfer-encoding" not in headers
        self.waited_s = 0.0
        self.status = 0
        self.started_at = time.monotonic()

    async def run(self, app: ASGIApp) -> None:
        try:
            await app(self.scope, self.receive, self.send)
        except ClientDisconnect:
            log.info("client left", **self._fields())
        except Exception:
            log.exception("request crashed", **self._fields())
            if self.status:
                # The answer has begun. A cut connection shows the client that it is not complete.
                raise
            request_id = self.scope["request_id"]
            internal = NelboError(
                f"internal error; quote the request id {request_id} when you report it"
            )
            await respond(Request(self.scope), internal)(self.scope, self.receive, self.send)
        else:
            log.info("request", **self._fields())

    async def receive(self) -> Message:
        self._check(self.declared_bytes)
        if self.body_ended:
            return await self._receive()  # It returns when the connection ends.
        message = await self._next_piece()
        if message["type"] == "http.request":
            self.body_bytes += len(message.get("body", b""))
            self.body_ended = not message.get("more_body", False)
            # The declared length may be wrong or missing, so the bytes themselves are counted.
            self._check(self.body_bytes)
        return message

    async def _next_piece(self) -> Message:
        """The next piece of the body.

        Raises HTTPException 408 if the client is too slow. Only the time of waiting for the client
        counts.
        """
        began = time.monotonic()
        try:
            with anyio.fail_after(GAP_S):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(
                408, f"no byte of the body arrived for {GAP_S:.0f} s; send it faster"
            ) from None
        self.waited_s += time.monotonic() - began
        if self.waited_s > GRACE_S and self.body_bytes < self.waited_s * MIN_BYTES_PER_S:
            raise HTTPException(
                408,
                f"{self.body_bytes:,} bytes of the body arrived in {self.waited_s:.0f} s; the"
                f" minimum is {MIN_BYTES_PER_S:,} bytes per second: send it faster",
            )
        return message

    def _check(self, body_bytes: int) -> None:
        limit, advice = self.scope[_LIMIT]
        if body_bytes > limit:
            raise HTTPException(413, f"the body is larger than {limit:,} bytes; {advice}")

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.scope["request_id"]
            self._note_job(headers.get("location", ""))
            for name, value in SECURITY_HEADERS:
                headers.setdefault(name, value)
            # A request with two lengths may hide another request (RFC 9112, 6.1), and a body that
            # is not read to its end may be followed by anything.
            if self.two_lengths or not self.body_ended:
                headers["Connection"] = "close"
        await self._send(message)

    def _note_job(self, location: str) -> None:
        """Log the job that the address names, or the one that was created."""
        if match := _JOB.fullmatch(self.scope.get("path_params", {}).get("job_id", location)):
            log_also(self.scope, job_id=match[1])

    def _fields(self) -> dict[str, Any]:
        route = self.scope.get("route")
        return {
            "method": self.scope["method"],
            "route": getattr(route, "path_format", None) or self.scope["path"],
            "status": self.status,
            "ms": round((time.monotonic() - self.started_at) * 1_000, 1),
            "body_bytes": self.body_bytes,
            "request_id": self.scope["request_id"],
            **self.scope[_FIELDS],
        }

"""Around every request: its id, whose it may be, the limit of its body, one line in the log, a last answer on a crash."""

import logging
import re
import time
from collections.abc import Collection, MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import origins
from api.deps import Service
from api.errors import respond
from nelbo.errors import NelboError, NotAuthenticated, NotFound
from nelbo.jobs import new_id

log = logging.getLogger(__name__)
MAX_BODY_BYTES = 32 * 2**20
"""Largest JSON body: room for the inline rows of a wide table. Uploads have a limit of their own."""
_LIMIT = "nelbo.body_limit"
_REQUEST_ID = re.compile(r"[!-~]{1,128}")


def allow_body(scope: MutableMapping[str, Any], limit: int, advice: str) -> None:
    """Set another limit for this request's body; a refusal says the advice."""
    scope[_LIMIT] = (limit, advice)


class AroundRequests:
    """ASGI middleware; `X-Request-ID` of the client is kept and echoed, otherwise one is made."""

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self.app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        scope["request_id"] = given if _REQUEST_ID.fullmatch(given) else new_id()
        scope[_LIMIT] = (MAX_BODY_BYTES, "upload the rows as a file and name it in the job")
        await _Exchange(scope, receive, send).run(self._checked)

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check(scope)
        except NelboError as refusal:
            await respond(Request(scope), refusal)(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        service: Service = scope["app"].state.service
        if not service.keys.needed:
            origins.check_host(scope, self._hosts)
        origins.check_page(scope, self._hosts)
        if len(Headers(scope=scope).getlist("authorization")) > 1:
            # A proxy may have looked at another one than this service would.
            raise NotAuthenticated("the request has several Authorization headers; send one")
        if "\0" in scope["path"]:
            # PostgreSQL cannot even be asked for a name that holds NUL.
            raise NotFound("there is nothing at an address that holds NUL")


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        declared = Headers(scope=scope).get("content-length", "")
        self.declared_bytes = int(declared) if declared.isdecimal() else 0
        self.body_bytes = 0
        self.status = 0
        self.started_at = time.monotonic()

    async def run(self, app: ASGIApp) -> None:
        try:
            await app(self.scope, self.receive, self.send)
        except ClientDisconnect:
            log.info("client left", extra=self._fields())
        except Exception:
            log.exception("request crashed", extra=self._fields())
            if self.status:
                raise  # The answer has begun: only a cut connection can tell the client that it is not whole.
            sorry = NelboError("an error of ours, recorded in the service's log under this request id")
            await respond(Request(self.scope), sorry)(self.scope, self.receive, self.send)
        else:
            log.info("request", extra=self._fields())

    async def receive(self) -> Message:
        self._check(self.declared_bytes)
        message = await self._receive()
        if message["type"] == "http.request":
            self.body_bytes += len(message.get("body", b""))
            # What was declared may be a lie or missing: what counts is counted.
            self._check(self.body_bytes)
        return message

    def _check(self, body_bytes: int) -> None:
        limit, advice = self.scope[_LIMIT]
        if body_bytes > limit:
            raise HTTPException(413, f"the body is larger than {limit:,} bytes; {advice}")

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message)["X-Request-ID"] = self.scope["request_id"]
        await self._send(message)

    def _fields(self) -> dict[str, Any]:
        route = self.scope.get("route")
        return {
            "method": self.scope["method"],
            "route": getattr(route, "path", None) or self.scope["path"],
            "status": self.status,
            "ms": round((time.monotonic() - self.started_at) * 1_000, 1),
            "body_bytes": self.body_bytes,
            "request_id": self.scope["request_id"],
        }

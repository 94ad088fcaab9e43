"""Around every request: its id, the limit of its body, one line in the log, and a last answer on a crash."""

import logging
import re
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import respond
from nelbo.errors import NelboError, NotFound
from nelbo.jobs import new_id

log = logging.getLogger(__name__)
MAX_BODY_BYTES = 32 * 2**20
"""Largest JSON body: room for the inline rows of a wide table. Uploads have a limit of their own."""
_LIMIT = "nelbo.body_limit"
_FIELDS = "nelbo.log_fields"
_JOB = re.compile(r"(?:/v1/jobs/)?([0-9a-f-]{36})")
_REQUEST_ID = re.compile(r"[!-~]{1,128}")


def allow_body(scope: MutableMapping[str, Any], limit: int, advice: str) -> None:
    """Set another limit for this request's body; a refusal says the advice."""
    scope[_LIMIT] = (limit, advice)


def log_also(scope: MutableMapping[str, Any], **fields: Any) -> None:
    """Add fields to the line that the log gets of this request."""
    scope[_FIELDS] |= fields


class AroundRequests:
    """ASGI middleware; `X-Request-ID` of the client is kept and echoed, otherwise one is made."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        scope["request_id"] = given if _REQUEST_ID.fullmatch(given) else new_id()
        scope[_FIELDS] = {"client": scope["client"][0] if scope.get("client") else ""}
        scope[_LIMIT] = (MAX_BODY_BYTES, "upload the rows as a file and name it in the job")
        # PostgreSQL cannot even be asked for a name that holds NUL.
        await _Exchange(scope, receive, send).run(_nothing_there if "\0" in scope["path"] else self.app)


async def _nothing_there(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(Request(scope), NotFound("there is nothing at an address that holds NUL"))(scope, receive, send)


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
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.scope["request_id"]
            self._note_job(headers.get("location", ""))
        await self._send(message)

    def _note_job(self, location: str) -> None:
        """The job that the address names, or that was made."""
        if match := _JOB.fullmatch(self.scope.get("path_params", {}).get("job_id", location)):
            log_also(self.scope, job_id=match[1])

    def _fields(self) -> dict[str, Any]:
        route = self.scope.get("route")
        return {
            "method": self.scope["method"],
            "route": getattr(route, "path", None) or self.scope["path"],
            "status": self.status,
            "ms": round((time.monotonic() - self.started_at) * 1_000, 1),
            "body_bytes": self.body_bytes,
            "request_id": self.scope["request_id"],
            **self.scope[_FIELDS],
        }

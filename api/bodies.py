"""Bodies: of the types alone that a route lists, and JSON that is parsed straight from bytes at
bounded memory."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from typing import Any, TypeVar

import pydantic_core
from fastapi import Request
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from api.memory import give_back
from api.places import Places
from nelbo.errors import FieldError, InvalidRequest, TooLarge, UnsupportedMediaType

MAX_JSON_BYTES = 8 * 2**20
"""Longest body with rows in it."""
MAX_VALUES = 250_000
"""Most values in a JSON body. One of two bytes becomes an object of a hundred, so a limit of bytes
alone bounds no memory."""
MAX_FIELDS = 32
"""Most fields of the outermost object: each one that is unknown becomes an error in the answer."""
SMALL_BYTES = 16 * 2**10
"""A body up to this size is received and parsed without further ado."""
LARGE_AT_A_TIME, LARGE_OF_OWNER = 4, 3
"""Large bodies in memory, whether they still arrive, wait or are parsed."""
PARSED_AT_A_TIME = 2
HUGE_BYTES = 2**20
"""Of the bodies above this size only one is parsed at a time: its objects take ten times as
much."""
ROWS_ADVICE = "upload the rows as a file and name it in the job"

_T = TypeVar("_T")


class JsonBodies:
    """The JSON bodies that are in memory at a time."""

    def __init__(self) -> None:
        advice = f"; try again, or {ROWS_ADVICE}"
        self._places = Places(
            LARGE_AT_A_TIME, LARGE_OF_OWNER, "large requests", advice, retry_after=1
        )
        self._one_huge = asyncio.Lock()
        # The same threads each time: each thread that ever held much keeps some of it (glibc's
        # arenas).
        self._threads = ThreadPoolExecutor(PARSED_AT_A_TIME, thread_name_prefix="large-body")

    def close(self) -> None:
        self._threads.shutdown()

    @asynccontextmanager
    async def received(self, request: Request, owner: str) -> AsyncIterator[bytearray]:
        """The whole body, in memory as long as the block lasts. Raises OverQuota or Overloaded
        where too many are."""
        with ExitStack() as place:
            body = bytearray()
            async for piece in request.stream():
                if len(body) <= SMALL_BYTES < len(body) + len(piece):
                    place.enter_context(self._places.taken(owner))
                body += piece
            yield body

    async def work(self, body: bytearray, function: Callable[[], _T]) -> _T:
        """Run what parses the body and uses it on a thread; few of those with large bodies run at a
        time."""
        if len(body) <= SMALL_BYTES:
            return await run_in_threadpool(function)
        loop = asyncio.get_running_loop()
        if len(body) <= HUGE_BYTES:
            return await loop.run_in_executor(self._threads, function)
        async with self._one_huge:
            try:
                return await loop.run_in_executor(self._threads, function)
            finally:
                await loop.run_in_executor(self._threads, give_back)


def parsed(body: bytes | bytearray) -> Any:
    """The JSON value of a body. Raises TooLarge or InvalidRequest before it takes much memory."""
    # One more value than commas and brackets. Those in strings count as well: to leave them out
    # would cost a second parser.
    if sum(map(body.count, (b",", b"{", b"["))) >= MAX_VALUES:
        raise TooLarge(
            f"the body holds more than {MAX_VALUES:,} values, by its commas and brackets;"
            f" {ROWS_ADVICE}"
        )
    try:
        value = pydantic_core.from_json(body)
    except ValueError as problem:
        raise InvalidRequest(
            f"the body is not JSON in UTF-8: {problem}",
            [FieldError("/body", "json-invalid", str(problem))],
        ) from None
    if isinstance(value, dict) and len(value) > MAX_FIELDS:
        raise InvalidRequest(
            f"the request has {len(value):,} fields; no request has more than {MAX_FIELDS}"
        )
    return value


def check_type(request: Request) -> None:
    """Raise UnsupportedMediaType unless the body has one of the types that the route's description
    lists.

    A web page may send text, forms and bodies without a type to other sites unasked; for all other
    types its browser asks first (CORS), and this service never agrees.
    """
    types = _types(request.scope.get("route"))
    sent = request.headers.getlist("content-type")
    if types and (len(sent) != 1 or sent[0].partition(";")[0].strip().lower() not in types):
        what = " and ".join(sent) or "no Content-Type"
        raise UnsupportedMediaType(
            f"the body is sent as {what}; send the header Content-Type: {' or '.join(types)}"
        )


def _types(route: object) -> Collection[str]:
    """The media types of a route's body, nothing for a route without a body."""
    if not isinstance(route, APIRoute):
        return ()
    described = (route.openapi_extra or {}).get("requestBody")
    if described is not None:
        return tuple(described["content"])
    return ("application/json",) if route.body_field else ()

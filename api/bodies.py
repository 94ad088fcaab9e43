"""The bodies of requests: their types, and JSON that is parsed within a bounded memory."""

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
"""Maximum size of a body with rows, in bytes."""
MAX_VALUES = 250_000
"""Maximum number of values in a JSON body.

A limit of bytes would not bound the memory: a value of two bytes becomes an object of a hundred.
"""
MAX_FIELDS = 32
"""Maximum number of fields of a request: each unknown field becomes an error in the answer."""
SMALL_BYTES = 64 * 2**10
"""A larger body needs one of the places for large bodies."""
LARGE_AT_A_TIME = 4
"""Maximum number of large bodies in memory: those that arrive, that wait and that are parsed."""
LARGE_OF_OWNER = 3
"""Maximum number of large bodies in memory per owner."""
PARSED_AT_A_TIME = 2
HUGE_BYTES = 2**20
"""Of larger bodies, only one is parsed at a time: its objects take ten times its size."""
ROWS_ADVICE = "upload the rows as a file and name it in the job"

_T = TypeVar("_T")


class JsonBodies:
    """Limits the JSON bodies that are in memory at the same time."""

    def __init__(self) -> None:
        advice = f"; try again, or {ROWS_ADVICE}"
        self._places = Places(
            LARGE_AT_A_TIME, LARGE_OF_OWNER, "large requests", advice, retry_after=1
        )
        self._one_huge = asyncio.Lock()
        # The threads are the same each time, because each thread that ever held much memory keeps
        # some of it (glibc's arenas).
        self._threads = ThreadPoolExecutor(PARSED_AT_A_TIME, thread_name_prefix="large-body")

    def close(self) -> None:
        self._threads.shutdown()

    @asynccontextmanager
    async def received(self, request: Request, owner: str) -> AsyncIterator[bytearray]:
        """The whole body, in memory as long as the `with` block lasts.

        Raises OverQuota or Overloaded if too many large bodies are in memory.
        """
        with ExitStack() as places:
            body = bytearray()
            async for piece in request.stream():
                if len(body) <= SMALL_BYTES < len(body) + len(piece):
                    places.enter_context(self._places.taken(owner))
                body += piece
            yield body

    async def work(self, body: bytearray, function: Callable[[], _T]) -> _T:
        """Run a function that parses and uses the body, on a thread.

        Few functions with large bodies run at the same time.
        """
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
    # There is at most one more value than commas and brackets. Those in strings count too: leaving
    # them out would need a second parser.
    if sum(map(body.count, (b",", b"{", b"["))) >= MAX_VALUES:
        raise TooLarge(
            f"the body holds more than {MAX_VALUES:,} values (commas and brackets are counted);"
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
        raise InvalidRequest(f"the request has {len(value):,} fields; the limit is {MAX_FIELDS}")
    return value


def check_type(request: Request) -> None:
    """Raise UnsupportedMediaType unless the body has one of the types of the route.

    A browser lets a web page send text, forms and bodies without a type to other sites. For all
    other types it asks the site first (CORS), and this service never agrees.
    """
    types = _types(request.scope.get("route"))
    sent = request.headers.getlist("content-type")
    if types and (len(sent) != 1 or sent[0].partition(";")[0].strip().lower() not in types):
        what = " and ".join(sent) or "no Content-Type"
        raise UnsupportedMediaType(
            f"the body is sent as {what}; send the header Content-Type: {' or '.join(types)}"
        )


def _types(route: object) -> Collection[str]:
    """The media types of a route's body; none for a route without a body."""
    if not isinstance(route, APIRoute):
        return ()
    described = (route.openapi_extra or {}).get("requestBody")
    if described is not None:
        return tuple(described["content"])
    return ("application/json",) if route.body_field else ()

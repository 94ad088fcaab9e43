"""Requests over HTTP to one service: repeated where that is safe, with its problems turned back
into errors."""

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar
from urllib.parse import quote, urlsplit

import httpx2
from pydantic import BaseModel

from nelbo.errors import (
    FieldError,
    Gone,
    InvalidInput,
    InvalidRequest,
    NelboError,
    NotFound,
    NotReady,
    Unavailable,
    problem_types,
)
from nelbo.streams import as_file, pieces_of

BytesProgress = Callable[[int, int | None], None]
"""Called with the bytes sent so far and the bytes in all, where they are known."""
_View = TypeVar("_View", bound=BaseModel)
_T = TypeVar("_T")

START_ONE = "start one with `nelbo up` or set NELBO_URL"
_BLOCK = 256 * 1024
_LOST = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
"""Failures before a byte of the request was sent."""
_TRY_AGAIN = frozenset({429, 502, 503, 504})


class Http:
    """Requests to one service, repeated where that is safe, with problem documents turned back into
    errors."""

    def __init__(
        self, url: str, api_key: str, timeout_s: float, retries: int, pause_s: float
    ) -> None:
        self.url = url
        self._retries, self._pause_s = retries, pause_s
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        try:
            host = urlsplit(url).hostname
            # A proxy of the environment is for other machines, never for this one.
            near = host in {"localhost", "127.0.0.1", "::1"}
            self._client = httpx2.Client(
                base_url=url, headers=headers, timeout=timeout_s, trust_env=not near
            )
        except (ValueError, httpx2.InvalidURL):
            host = None
        if not host or not url.startswith(("http://", "https://")):
            raise InvalidInput(
                f"{url!r} is not the address of a service; it looks like http://127.0.0.1:8765"
            )

    def close(self) -> None:
        self._client.close()

    def request(
        self,
        method: str,
        address: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: object = None,
        headers: Mapping[str, str] | None = None,
        body: "FileBody | None" = None,
        repeatable: bool = True,
    ) -> httpx2.Response:
        """One answer that is not an error. A request that is not repeatable is repeated only if it
        was never begun."""

        def send() -> httpx2.Response:
            given = dict(headers or {}) | ({"Content-Length": str(len(body))} if body else {})
            content = iter(body) if body else None
            response = self._client.request(
                method, address, params=params, json=json, headers=given, content=content
            )
            return _accepted(response)

        return self._repeat(send, repeatable=repeatable)

    def view(self, view: type[_View], method: str, address: str, *, json: object = None) -> _View:
        return view.model_validate_json(self.request(method, address, json=json).content)

    def pages(
        self, view: type[_View], address: str, filters: Mapping[str, str] | None = None
    ) -> Iterator[_View]:
        """All members of a list, page by page."""
        cursor: str | None = None
        while True:
            params = dict(filters or {}) | ({"cursor": cursor} if cursor else {})
            page = self.request("GET", address, params=params).json()
            yield from (view.model_validate(item) for item in page["items"])
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def delete(self, address: str) -> None:
        attempts = 0

        def send() -> None:
            nonlocal attempts
            attempts += 1
            # After a lost answer, "there is nothing" means that the first request did it.
            with suppress(*((NotFound, Gone) if attempts > 1 else ())):
                _accepted(self._client.request("DELETE", address))

        self._repeat(send)

    def download(self, address: str, target: BinaryIO, *, params: Mapping[str, Any]) -> None:
        """Write the whole answer to a seekable file; an answer that breaks off is asked for
        again."""

        def copy() -> None:
            target.seek(0)
            target.truncate()
            with self._stream(address, params) as response:
                for block in response.iter_bytes(_BLOCK):
                    target.write(block)

        self._repeat(copy)

    @contextmanager
    def incoming(self, address: str, *, params: Mapping[str, Any]) -> Iterator[BufferedReader]:
        """The answer as a file to read from as it arrives; one that breaks off is not asked for
        again."""
        try:
            with self._stream(address, params) as response:
                yield as_file(response.iter_bytes(_BLOCK), _BLOCK)
        except httpx2.TransportError as lost:
            _raise_unavailable(self.url, lost)
        except _PassingRefusal as refusal:
            raise refusal.error from None

    @contextmanager
    def _stream(self, address: str, params: Mapping[str, Any]) -> Iterator[httpx2.Response]:
        with self._client.stream("GET", address, params=params) as response:
            if not response.is_success:
                response.read()
            yield _accepted(response)

    def _repeat(self, send: Callable[[], _T], *, repeatable: bool = True) -> _T:
        """Call send; after a lost connection or a passing refusal again, with growing pauses."""
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            try:
                return send()
            except _PassingRefusal as refusal:
                if last or not (repeatable or refusal.unharmed):
                    raise refusal.error from None
                time.sleep(self._pause(attempt, refusal.error.retry_after))
            except httpx2.TransportError as lost:
                if last or not (repeatable or isinstance(lost, _LOST)):
                    _raise_unavailable(self.url, lost)
                time.sleep(self._pause(attempt, None))
        raise AssertionError("the last attempt returns or raises")

    def _pause(self, attempt: int, retry_after: float | None) -> float:
        """Seconds: what the service asks for (at most a minute), else doubling with jitter up to
        five."""
        if retry_after is not None:
            return min(retry_after, 60.0)
        return min(self._pause_s * 2.0**attempt, 5.0) * random.uniform(0.5, 1.0)


def poll(settled: Callable[[], _T | None], timeout_s: float | None, still: str) -> _T:
    """Ask until there is an answer, often at first. A service that is away for less than a minute
    costs only time."""
    deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
    pause, answered_at = 0.05, time.monotonic()
    while True:
        try:
            if (found := settled()) is not None:
                return found
            answered_at = time.monotonic()
        except Unavailable:
            if time.monotonic() - answered_at > 60:
                raise
        if time.monotonic() + pause > deadline:
            raise NotReady(still)
        time.sleep(pause)
        pause = min(pause * 1.5, 1.0)


class FileBody:
    """A file to send, from its beginning each time it is asked for."""

    def __init__(self, path: Path, progress: BytesProgress | None) -> None:
        self._path, self._progress = path, progress
        try:
            self._size = path.stat().st_size
        except OSError as problem:
            raise NotFound(f"{path} cannot be read: {problem.strerror}") from None

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        try:
            with self._path.open("rb") as file:
                yield from _counted(pieces_of(file, _BLOCK), self._size, self._progress)
        except OSError as problem:
            raise NotFound(f"{self._path} cannot be read: {problem.strerror}") from None


def part(text: str) -> str:
    """Text as one part of an address."""
    return quote(text, safe="")


class _PassingRefusal(Exception):
    """The service, or a proxy before it, said: not now. `unharmed`: it did nothing, so that
    anything may be repeated."""

    def __init__(self, error: NelboError, unharmed: bool) -> None:
        super().__init__(error.message)
        self.error, self.unharmed = error, unharmed


def _accepted(response: httpx2.Response) -> httpx2.Response:
    if response.is_success:
        return response
    error = _error_of(response)
    if response.status_code in _TRY_AGAIN:
        raise _PassingRefusal(error, unharmed=response.status_code in (429, 503))
    raise error


def _error_of(response: httpx2.Response) -> NelboError:
    """The error that the service raised, by its problem type."""
    retry_after = _seconds(response.headers.get("Retry-After"))
    try:
        problem = response.json()
        code, detail = problem["type"].rpartition("/")[2], str(problem["detail"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return Unavailable(
            f"{response.url} answered {response.status_code} without saying why; is a Nelbo service"
            " there?",
            retry_after=retry_after,
        )
    kind = problem_types().get(code, NelboError)
    if issubclass(kind, InvalidRequest):
        return kind(detail, [FieldError(**field) for field in problem.get("errors", [])])
    error = NelboError.__new__(kind)
    NelboError.__init__(error, detail, retry_after=retry_after)
    return error


def _seconds(retry_after: str | None) -> float | None:
    try:
        return float(retry_after) if retry_after else None
    except ValueError:
        return None


def _raise_unavailable(url: str, lost: httpx2.TransportError) -> NoReturn:
    why = str(lost) or type(lost).__name__
    raise Unavailable(f"no Nelbo service answers at {url} ({why}); {START_ONE}") from None


def _counted(blocks: Iterable[bytes], size: int, progress: BytesProgress | None) -> Iterator[bytes]:
    sent = 0
    for block in blocks:
        yield block
        sent += len(block)
        if progress:
            progress(sent, size)

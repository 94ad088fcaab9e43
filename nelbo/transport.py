"""HTTP requests to one service.

They are repeated where that is safe. Problem documents become the errors of `nelbo.errors` again.
"""

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
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
    MissingExtra,
    NelboError,
    NotFound,
    NotReady,
    Unavailable,
    problem_types,
)
from nelbo.streams import as_file, pieces_of

BytesProgress = Callable[[int, int | None], None]
"""Called with the number of bytes sent so far, and the total number or None if it is unknown."""
_View = TypeVar("_View", bound=BaseModel)
_T = TypeVar("_T")

START_ONE = "start one with `nelbo up` or set NELBO_URL"
_BLOCK = 256 * 1024
_LOST = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
"""Failures before any byte of the request was sent."""
_TRY_AGAIN = frozenset({429, 502, 503, 504})
_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})


def may_use_proxy(url: str) -> bool:
    """Whether the environment's proxy may carry a request: to other machines only.

    Raises ValueError where the address cannot be read.
    """
    return urlsplit(url).hostname not in _THIS_MACHINE


class Http:
    """A connection to one service, which repeats requests where that is safe."""

    def __init__(
        self, url: str, api_key: str, timeout_s: float, retries: int, pause_s: float
    ) -> None:
        self.url = url
        self._retries = retries
        self._pause_s = pause_s
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

        try:
            host = urlsplit(url).hostname
            self._client = httpx2.Client(
                base_url=url, headers=headers, timeout=timeout_s, trust_env=may_use_proxy(url)
            )
        except (ValueError, httpx2.InvalidURL):
            host = None
        if not host or not url.startswith(("http://", "https://")):
            raise InvalidInput(
                f"{url!r} is not the address of a service; an example is http://127.0.0.1:8765"
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
        """The successful answer to one request.

        repeatable: whether the request may reach the service twice. Otherwise it is repeated only
        if the service has certainly not acted on it.
        """
        all_headers = dict(headers or {})
        if body is not None:
            all_headers["Content-Length"] = str(len(body))

        def send() -> httpx2.Response:
            response = self._client.request(
                method,
                address,
                params=params,
                json=json,
                headers=all_headers,
                content=None if body is None else iter(body),
            )
            return _accepted(response)

        return self._repeat(send, repeatable=repeatable)

    def view(
        self,
        view: type[_View],
        method: str,
        address: str,
        *,
        json: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> _View:
        """The answer to one request, as a model."""
        answer = self.request(method, address, json=json, headers=headers)
        return view.model_validate_json(answer.content)

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
            try:
                _accepted(self._client.request("DELETE", address))
            except (NotFound, Gone):
                # From the second attempt on, the first one deleted it and its answer was lost.
                if attempts == 1:
                    raise

        self._repeat(send)

    def download(self, address: str, target: BinaryIO, *, params: Mapping[str, Any]) -> None:
        """Write the answer to a seekable file. An answer that breaks off is requested again."""

        def copy() -> None:
            target.seek(0)
            target.truncate()
            with self._stream(address, params) as response:
                for block in response.iter_bytes(_BLOCK):
                    target.write(block)

        self._repeat(copy)

    @contextmanager
    def incoming(self, address: str, *, params: Mapping[str, Any]) -> Iterator[BufferedReader]:
        """The answer as a file, readable while it arrives.

        An answer that breaks off raises Unavailable; it is not requested again.
        """
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
        """Call `send`, and call it again after a lost connection or a temporary refusal.

        This is not tenacity: what may be repeated and how long to pause depend on each answer, so
        that its callbacks would be longer than the loop.
        """
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
        """Seconds until the next attempt.

        This is what the service asks for, at most a minute; without that, the pause doubles up to
        five seconds, with jitter.
        """
        if retry_after is not None:
            return min(retry_after, 60.0)
        return min(self._pause_s * 2.0**attempt, 5.0) * random.uniform(0.5, 1.0)


def poll(settled: Callable[[], _T | None], timeout_s: float | None, still: str) -> _T:
    """Call `settled` until it returns something other than None; return that.

    From one call to the next takes ever longer, up to a second; a call that itself waits is
    followed by the next at once. A service may be unavailable for up to a minute meanwhile. Raises
    NotReady with the message `still` after timeout_s seconds.
    """
    deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
    pause = 0.05
    answered_at = time.monotonic()
    while True:
        called_at = time.monotonic()
        try:
            result = settled()
            if result is not None:
                return result
            answered_at = time.monotonic()
        except Unavailable:
            if time.monotonic() - answered_at > 60:
                raise
        rest = max(0.0, called_at + pause - time.monotonic())
        if time.monotonic() + rest > deadline:
            raise NotReady(still)
        time.sleep(rest)
        pause = min(pause * 1.5, 1.0)


class FileBody:
    """A file as the body of a request. Each iteration starts at its beginning."""

    def __init__(self, path: Path, progress: BytesProgress | None) -> None:
        self._path = path
        self._progress = progress
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
    """A text, quoted as one part of an address."""
    return quote(text, safe="")


class _PassingRefusal(Exception):
    """A temporary refusal by the service, or by a proxy before it.

    unharmed: whether the service certainly did nothing, so that any request may be repeated.
    """

    def __init__(self, error: NelboError, unharmed: bool) -> None:
        super().__init__(error.message)
        self.error = error
        self.unharmed = unharmed


def _accepted(response: httpx2.Response) -> httpx2.Response:
    if response.is_success:
        return response
    error = _error_of(response)
    if response.status_code in _TRY_AGAIN:
        raise _PassingRefusal(error, unharmed=response.status_code in (429, 503))
    raise error


def _error_of(response: httpx2.Response) -> NelboError:
    """The error of a problem document, by its problem type."""
    retry_after = _seconds(response.headers.get("Retry-After"))
    try:
        problem = response.json()
        code = problem["type"].rpartition("/")[2]
        detail = str(problem["detail"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return Unavailable(
            f"{response.url} answered {response.status_code} without a reason;"
            " is a Nelbo service there?",
            retry_after=retry_after,
        )
    kind = problem_types().get(code, NelboError)
    if issubclass(kind, InvalidRequest):
        return kind(detail, [FieldError(**field) for field in problem.get("errors", [])])
    if issubclass(kind, MissingExtra):  # of the command line alone: no service answers with it
        kind = NelboError
    return kind(detail, retry_after=retry_after)


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

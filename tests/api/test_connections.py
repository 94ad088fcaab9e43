"""Clients that are slow, that never read, or that send what they should not: they are cut off, and
others notice nothing."""

import json
import resource
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection
from pathlib import Path

import httpx2
import pytest

from api import connections, middleware
from api.protection import SECURITY_HEADERS
from nelbo.jobs import GenerateRequest
from nelbo.store import ledger
from nelbo.store.session import connect as connected
from tests.api.serving import process, served
from tests.api.stage import (
    AS_BYTES,
    CSV,
    add_model,
    check_problem,
    make_key,
    settings_for,
    work_off,
)
from tests.deadline import until

Connect = Callable[[bytes], socket.socket]
MIB = 2**20


@pytest.fixture
def url(tmp_path: Path, sqlite_url: str) -> Iterator[str]:
    with served(settings_for(tmp_path, sqlite_url)) as address:
        yield address


@pytest.fixture
def connect(url: str) -> Iterator[Connect]:
    """What opens connections that have sent these bytes."""
    with ExitStack() as opened:

        def connected(sent: bytes) -> socket.socket:
            connection = opened.enter_context(closing(connection_to(url)))
            connection.sendall(sent)
            return connection

        yield connected


def connection_to(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def head(url: str, start: str, *lines: str) -> bytes:
    """The head of a request but for the empty line at its end."""
    return "\r\n".join(
        [f"{start} HTTP/1.1", f"Host: {url.removeprefix('http://')}", *lines, ""]
    ).encode()


def upload(url: str, *lines: str) -> bytes:
    return head(url, "POST /v1/files?name=a.csv", "Content-Type: text/csv", *lines) + b"\r\n"


def everything(connection: socket.socket) -> bytes:
    """All that comes until the connection's end."""
    pieces = []
    with suppress(ConnectionError):
        while piece := connection.recv(MIB):
            pieces.append(piece)
    return b"".join(pieces)


def cut(connection: socket.socket, drip: bytes = b"") -> bool:
    """Whether the service has ended the connection, on which another drop was sent."""
    try:
        connection.sendall(drip)
        connection.settimeout(0.01)
        return connection.recv(MIB) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def seconds_of_lists(url: str, count: int = 30) -> float:
    """The slowest of some requests for the list of jobs, each of which must be answered."""
    slowest = 0.0
    with httpx2.Client(base_url=url, timeout=30, trust_env=False) as client:
        for _ in range(count):
            began = time.perf_counter()
            assert client.get("/v1/jobs").status_code == 200
            slowest = max(slowest, time.perf_counter() - began)
    return slowest


def test_two_hundred_slow_uploads_and_heads_leave_the_service_usable(
    tmp_path: Path, sqlite_url: str
) -> None:
    with process(tmp_path, NELBO_DATABASE_URL=sqlite_url) as (url, _), ExitStack() as opened:
        alone = seconds_of_lists(url)
        chunked = upload(url, "Transfer-Encoding: chunked") + b"5\r\na,b\n1\r\n"
        for sent in (chunked, head(url, "GET /v1/jobs", "X-A: ")):
            for _ in range(200):
                connection = opened.enter_context(closing(connection_to(url)))
                connection.sendall(sent)
        began = [file["state"] for file in until(lambda: receiving(url), "uploads have begun")]
        assert seconds_of_lists(url) < 10 * alone + 1.0
        assert len(began) <= 8, (
            "the most of one owner; all others were refused before anything was stored"
        )
        assert httpx2.get(f"{url}/readyz", trust_env=False).status_code == 200


def test_two_hundred_readers_of_results_who_do_not_read_leave_others_theirs(
    tmp_path: Path, sqlite_url: str
) -> None:
    settings = settings_for(tmp_path, sqlite_url, max_downloads=3, max_downloads_of_owner=2)
    keys = {owner: make_key(sqlite_url, owner) for owner in ("ann", "bob")}
    with served(settings) as url, ExitStack() as opened:
        ids = {owner: large_results(sqlite_url, owner) for owner in keys}

        def asked(owner: str) -> bytes:
            """The status of an answer of which nothing more is read."""
            connection = opened.enter_context(closing(small_connection_to(url)))
            path = f"GET /v1/jobs/{ids[owner]}/results?format=csv"
            connection.sendall(head(url, path, f"Authorization: Bearer {keys[owner]}") + b"\r\n")
            return connection.recv(12)

        statuses = Counter(asked("bob") for _ in range(200))
        assert statuses == {b"HTTP/1.1 200": 2, b"HTTP/1.1 429": 198}
        assert asked("ann") == b"HTTP/1.1 200"
        assert asked("ann") == b"HTTP/1.1 503", "all places are taken"
        opened.close()
        until(lambda: asked("bob") == b"HTTP/1.1 200", "the service has noticed that they left")


def large_results(database_url: str, owner: str) -> str:
    """The id of a job that has made more rows than lie in any buffer."""
    database = connected(database_url)
    try:
        version = add_model(database, owner=owner)
        request = GenerateRequest(model="adult", n=500_000)
        job, _ = ledger.submit(
            database, owner, request, version_id=version.id, rows=500_000, chunk_rows=500_000
        )
        work_off(database)
        return job.id
    finally:
        database.dispose()


def small_connection_to(url: str) -> socket.socket:
    """A connection on which little is on its way."""
    host, _, port = url.removeprefix("http://").partition(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection.settimeout(30)
    connection.connect((host, int(port)))
    return connection


def test_a_slow_reader_of_results_gets_all_of_them(
    tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only who leaves one small piece unread for long is cut off, not who takes long for a chunk of
    rows."""
    monkeypatch.setattr(connections, "UNREAD_S", 4.0)
    with (
        served(settings_for(tmp_path, sqlite_url)) as url,
        closing(small_connection_to(url)) as connection,
    ):
        path = f"GET /v1/jobs/{large_results(sqlite_url, 'local')}/results?format=csv"
        connection.sendall(head(url, path, "Connection: close") + b"\r\n")
        received, began = 0, time.monotonic()
        while piece := connection.recv(MIB):
            received += len(piece)
            if time.monotonic() - began < 5.0:
                time.sleep(0.01)  # some 400 KiB a second, until longer than UNREAD_S has gone by
        assert received > 5 * MIB


def test_more_connections_than_the_system_allows_leave_the_service_usable(
    tmp_path: Path, sqlite_url: str
) -> None:
    """The system lets the service open 400 files. Whoever only connects makes room for whoever
    asks."""
    with process(tmp_path, NELBO_DATABASE_URL=sqlite_url) as (url, api), ExitStack() as opened:
        resource.prlimit(api.pid, resource.RLIMIT_NOFILE, (400, 400))
        for _ in range(600):
            opened.enter_context(closing(connection_to(url)))
        assert seconds_of_lists(url) < 10
        assert b"Too many open files" not in (tmp_path / "api.log").read_bytes()


def receiving(url: str) -> list[dict[str, str]]:
    files = httpx2.get(f"{url}/v1/files", trust_env=False).json()["items"]
    return [file for file in files if file["state"] == "receiving"]


def test_an_upload_too_many_is_told_to_come_back_and_leaves_nothing(
    tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(tmp_path, sqlite_url, max_uploads=3, max_uploads_of_owner=2)
    with served(settings) as url, ExitStack() as opened:
        for _ in range(2):
            connection = opened.enter_context(closing(connection_to(url)))
            connection.sendall(upload(url, "Content-Length: 100") + b"a,b\n")
        until(lambda: len(receiving(url)) == 2, "two uploads have begun")
        sent = httpx2.post(
            f"{url}/v1/files",
            params={"name": "b.csv"},
            headers=AS_BYTES,
            content=CSV,
            trust_env=False,
        )
        assert sent.status_code == 429
        assert "max_uploads_of_owner" in sent.json()["detail"]
        assert int(sent.headers["Retry-After"]) >= 1
        assert len(httpx2.get(f"{url}/v1/files", trust_env=False).json()["items"]) == 2
        opened.close()
        until(lambda: not receiving(url), "the service has noticed that they broke off")
        sent = httpx2.post(
            f"{url}/v1/files",
            params={"name": "b.csv"},
            headers=AS_BYTES,
            content=CSV,
            trust_env=False,
        )
        assert sent.status_code == 201


@pytest.mark.parametrize(
    "sent", [b"", b"G", b"GET /healthz HTTP/1.1\r\n", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: "]
)
def test_a_head_that_does_not_end_ends_the_connection(
    connect: Connect, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.5)
    connection = connect(sent)
    until(lambda: cut(connection), "the connection is cut", deadline_s=20)


def test_a_head_that_comes_letter_by_letter_does_not_put_off_its_end(
    url: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.5)
    connection = connect(head(url, "GET /healthz") + b"X-A: ")
    until(lambda: cut(connection, b"b"), "the connection is cut", deadline_s=20)


def test_neither_does_that_of_a_second_request(
    url: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.5)
    connection = connect(head(url, "GET /healthz") + b"\r\n")
    assert connection.recv(MIB).startswith(b"HTTP/1.1 200")
    connection.sendall(head(url, "GET /healthz") + b"X-A: ")
    until(lambda: cut(connection, b"b"), "the connection is cut", deadline_s=20)


def test_a_request_that_takes_long_is_answered_however_soon_heads_are_due(
    url: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 1.0)
    connection = connect(upload(url, "Content-Length: 8"))
    for letter in (b"a\n", b"1\n", b"2\n", b"3\n"):
        time.sleep(0.4)  # the time that is tried
        connection.sendall(letter)
    assert connection.recv(MIB).startswith(b"HTTP/1.1 201")


@pytest.mark.parametrize(
    ("path", "type"),
    [
        ("POST /v1/files?name=a.csv", "text/csv"),
        ("POST /v1/models/a/versions", "application/zip"),
        ("POST /v1/jobs", "application/json"),
        ("PUT /v1/models/a/aliases/b", "application/json"),
    ],
)
@pytest.mark.parametrize("drip", [b"", b"a"])
def test_a_body_that_does_not_come_on_is_refused(
    url: str, connect: Connect, path: str, type: str, drip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither silence nor a letter now and then keeps a body open."""
    monkeypatch.setattr(middleware, "GAP_S", 0.5)
    monkeypatch.setattr(middleware, "GRACE_S", 1.0)
    connection = connect(
        head(url, path, f"Content-Type: {type}", "Content-Length: 60000") + b"\r\na"
    )
    answer = b""

    def answered() -> bool:
        nonlocal answer
        with suppress(ConnectionError):
            connection.sendall(drip)
        connection.settimeout(0.1)
        with suppress(TimeoutError):
            answer += connection.recv(MIB)
        return b"problems" in answer

    until(answered, "the answer", deadline_s=20)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"/problems/too-slow"' in answer


def test_whoever_does_not_read_is_cut_off(
    url: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "UNREAD_S", 0.5)
    connection = connect((head(url, "GET /openapi.json") + b"\r\n") * 400)

    def ended() -> bool:
        try:
            connection.settimeout(0.01)
            connection.send(b"x")
        except TimeoutError:
            return False
        except ConnectionError:
            return True
        return False

    until(ended, "the connection is cut", deadline_s=20)


def test_a_body_without_end_is_not_read_for_long(url: str, connect: Connect) -> None:
    connection = connect(
        head(url, "POST /v1/jobs", "Content-Type: application/json", "Transfer-Encoding: chunked")
        + b"\r\n"
    )
    sent = 0
    with suppress(ConnectionError, TimeoutError):
        while sent < 200:
            connection.sendall(b"100000\r\n" + b" " * MIB + b"\r\n")
            sent += 1
    assert sent < 60, (
        "8 MiB are the limit, some are read and dropped, some lie in the machine's buffers"
    )
    assert everything(connection).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    ("path", "type"),
    [("POST /v1/files?name=a.csv", "text/csv"), ("POST /v1/jobs", "application/json")],
)
def test_a_body_of_very_many_tiny_chunks_is_refused(
    url: str, connect: Connect, path: str, type: str
) -> None:
    connection = connect(
        head(url, path, f"Content-Type: {type}", "Transfer-Encoding: chunked") + b"\r\n"
    )
    with suppress(ConnectionError, TimeoutError):
        for _ in range(20):
            connection.sendall(b"1\r\na\r\n" * 1_000)
    answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 400"), (
        "each takes as long as a large one, and all clients wait meanwhile"
    )
    assert b"send larger ones" in answer


def test_a_body_of_some_small_chunks_or_of_many_large_ones_is_read(
    url: str, connect: Connect
) -> None:
    body = b"2\r\na\n\r\n" * 900 + b"1000\r\n" + b"1\n" * 2_048 + b"\r\n"
    for chunks in (
        body + b"0\r\n\r\n",
        body + (b"1000\r\n" + b"1\n" * 2_048 + b"\r\n") * 1_500 + b"0\r\n\r\n",
    ):
        connection = connect(upload(url, "Transfer-Encoding: chunked") + chunks)
        assert connection.recv(MIB).startswith(b"HTTP/1.1 201")


@pytest.mark.parametrize("size", [3 * MIB, 30 * MIB])
def test_whoever_sends_all_first_gets_the_refusal(
    tmp_path: Path, sqlite_url: str, size: int
) -> None:
    with (
        served(settings_for(tmp_path, sqlite_url, max_upload_bytes=MIB)) as url,
        httpx2.Client(trust_env=False) as client,
    ):
        for _ in range(10):
            sent = client.post(
                f"{url}/v1/files",
                params={"name": "a.csv"},
                headers=AS_BYTES,
                content=b"1\n" * (size // 2),
            )
            assert sent.status_code == 413
            check_problem(sent)


def test_a_connection_serves_many_requests_also_refused_ones(url: str) -> None:
    connection = HTTPConnection(url.removeprefix("http://"))
    connection.connect()
    first = connection.sock
    for path, status in (("/healthz", 200), ("/v2", 404), ("/v1/jobs", 200)):
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        assert (answer.status, connection.sock) == (status, first)
    connection.close()


def test_requests_may_be_sent_before_the_answers_come(url: str, connect: Connect) -> None:
    last = head(url, "GET /v2", "Connection: close") + b"\r\n"
    answers = everything(connect((head(url, "GET /healthz") + b"\r\n") * 3 + last))
    assert (answers.count(b"HTTP/1.1 200"), answers.count(b"HTTP/1.1 404")) == (3, 1)


@pytest.mark.parametrize(
    "lengths",
    [
        ["Content-Length: 4", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 4"],
    ],
)
@pytest.mark.parametrize("start", ["POST /v1/jobs", "GET /healthz", "DELETE /v1/models/a"])
def test_a_request_hidden_behind_two_lengths_is_not_answered(
    url: str, connect: Connect, start: str, lengths: list[str]
) -> None:
    smuggled = head(url, "GET /healthz") + b"\r\n"
    connection = connect(head(url, start, *lengths) + b"\r\n0\r\n\r\n" + smuggled)
    answers = everything(connection)
    assert answers.count(b"HTTP/1.1") == 1
    assert b"connection: close" in answers.lower()


@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Length: 4", "Content-Length: 5"],
        ["Content-Length: +4"],
        ["Content-Length: -4"],
        ["Content-Length: 4, 5"],
        ["Content-Length: 99999999999999999999999999"],
        ["Transfer-Encoding: chunked, identity"],
        ["Transfer-Encoding: gzip, chunked"],
        ["Transfer-Encoding : chunked"],
        ["Host: other"],
        [" folded: at the start"],
        ["X-A: \0"],
    ],
)
def test_what_is_no_http_is_answered_as_a_problem_and_ends_the_connection(
    url: str, connect: Connect, lines: list[str]
) -> None:
    start, *fields = head(url, "POST /v1/jobs", *lines).split(b"\r\n")
    if lines == [" folded: at the start"]:
        fields = [fields[1], fields[0], *fields[2:]]
    answer = everything(
        connect(
            b"\r\n".join([start, *fields]) + b"\r\nabcdGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        )
    )
    top, _, body = answer.partition(b"\r\n\r\n")
    status = int(top.split()[1])
    assert status in (400, 413, 501), "no length is believed that two could read in two ways"
    assert answer.count(b"HTTP/1.1 ") == 1
    for name, _ in SECURITY_HEADERS:
        assert name.lower().encode() in top.lower()
    assert json.loads(body)["status"] == status

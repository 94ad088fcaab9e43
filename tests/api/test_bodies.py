"""JSON bodies: whatever they hold, they are refused or taken at bounded memory, and rows inline
work as ever."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.bodies import LARGE_OF_OWNER, MAX_FIELDS, MAX_JSON_BYTES, MAX_VALUES, parsed
from api.middleware import MAX_BODY_BYTES
from nelbo.errors import InvalidRequest, TooLarge
from nelbo.store.session import connect
from tests.api.serving import process, served
from tests.api.stage import ROWS, Stage, add_model, check_problem, open_stage, settings_for
from tests.api.test_answers import REQUESTS, WITH_BODY
from tests.api.test_app import peak_mib
from tests.deadline import until

SCORE: dict[str, Any] = {"kind": "score", "model": "adult", "rows": ROWS}
AS_JSON = {"Content-Type": "application/json"}
LIMIT_MIB = 300


def request(rows: bytes, **more: Any) -> bytes:
    """The JSON of a score request with these rows, as they are."""
    start = json.dumps({"kind": "score", "model": "adult"} | more).encode()
    return start[:-1] + b',"rows":' + rows + b"}"


def repeated(piece: bytes, length: int = MAX_JSON_BYTES - 200) -> bytes:
    return b",".join([piece] * (length // (len(piece) + 1)))


def unique_keys(count: int) -> bytes:
    return b",".join(b'"%x":1' % number for number in range(count))


BOMBS = {
    "ten million rows": request(b"[" + b",".join([b"{}"] * 10**7) + b"]"),
    "rows up to the limit": request(b"[" + repeated(b"{}") + b"]"),
    "numbers for rows": request(b"[" + repeated(b"1") + b"]"),
    "lists in a cell": request(b'[{"a":[' + repeated(b"[]") + b"]}]"),
    "objects in a cell": request(b'[{"a":[' + repeated(b'{"":0}') + b"]}]"),
    "cells of one row": request(b"[{" + unique_keys(500_000) + b"}]"),
    "as many cells as may be": request(b"[{" + unique_keys(MAX_VALUES - 10) + b"}]"),
    "as many rows as may be": request(b"[" + b",".join([b"{}"] * (MAX_VALUES // 2 - 10)) + b"]"),
    "unknown fields": b"{" + unique_keys(500_000) + b"}",
    "as many unknown fields as may be": b"{" + unique_keys(MAX_VALUES - 10) + b"}",
    "nesting": request(b"[" * (MAX_JSON_BYTES - 200)),
    "nesting in a wide list": request(b"[" * 150 + repeated(b'{"a":[]}') + b"]" * 150),
    "a number of a million digits": request(b'[{"a":' + b"1" * 10**6 + b"}]"),
    "one long text": request(b'[{"a":"' + b"x" * (MAX_JSON_BYTES - 200) + b'"}]'),
    "text of wide letters": request(
        b'[{"a":"' + "\U0001f600".encode() + b"x" * (MAX_JSON_BYTES - 300) + b'"}]'
    ),
    "escapes": request(b'[{"a":"' + b"\\u0041" * ((MAX_JSON_BYTES - 200) // 6) + b'"}]'),
    "blanks": b" " * MAX_JSON_BYTES,
    "no JSON": b"\xff" * MAX_JSON_BYTES,
}


@pytest.fixture(scope="module")
def alone(
    tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path
) -> Iterator[tuple[httpx2.Client, int]]:
    """A client of a service in a process of its own, and the number of that process."""
    home = tmp_path_factory.mktemp("alone")
    (home / "nelbo.db").write_bytes(sqlite_template.read_bytes())
    database = connect(f"sqlite:///{home}/nelbo.db")
    add_model(database)
    database.dispose()
    with (
        process(home, NELBO_DATABASE_URL=f"sqlite:///{home}/nelbo.db") as (url, started),
        httpx2.Client(base_url=url, timeout=60, trust_env=False) as client,
    ):
        yield client, started.pid


@pytest.mark.parametrize("bomb", BOMBS)
def test_no_body_takes_much_memory(alone: tuple[httpx2.Client, int], bomb: str) -> None:
    client, pid = alone
    sent = client.post("/v1/jobs", content=BOMBS[bomb], headers=AS_JSON)
    assert sent.status_code in (413, 422)
    check_problem(sent)
    assert peak_mib(pid) < LIMIT_MIB


def test_neither_do_all_of_them_at_once(alone: tuple[httpx2.Client, int]) -> None:
    client, pid = alone

    def send(body: bytes) -> int:
        return client.post("/v1/jobs", content=body, headers=AS_JSON).status_code

    row = {f"c{at}": at / 3 for at in range(240)} | {"age": 39, "job": "clerk"}
    largest = json.dumps(SCORE | {"rows": [row] * 1_000}).encode()
    with ThreadPoolExecutor(16) as pool:
        statuses = set(pool.map(send, [*BOMBS.values(), largest] * 3))
    assert statuses <= {202, 413, 422, 429}
    assert peak_mib(pid) < LIMIT_MIB
    assert client.post("/v1/jobs", json=SCORE).status_code == 202


@pytest.mark.parametrize(
    "operation", sorted(WITH_BODY - {"upload_file", "push_version", "submit_job"})
)
@pytest.mark.parametrize("length", [MAX_BODY_BYTES + 1, 8 * 2**20])
def test_a_route_without_rows_takes_only_small_bodies(
    stage: Stage, operation: str, length: int
) -> None:
    method, path, _ = REQUESTS[operation]
    sent = stage.ask(method, path, content=b" " * length, headers=AS_JSON)
    assert sent.status_code == 413
    assert f"{MAX_BODY_BYTES:,}" in sent.json()["detail"]


def test_a_body_above_the_limit_of_rows_is_refused_with_what_to_do(stage: Stage) -> None:
    sent = stage.post("/v1/jobs", content=b" " * (MAX_JSON_BYTES + 1), headers=AS_JSON)
    assert sent.status_code == 413
    assert f"{MAX_JSON_BYTES:,} bytes; upload the rows as a file" in sent.json()["detail"]


def test_too_many_rows_are_refused_with_their_number_and_the_setting(stage: Stage) -> None:
    stage.model()
    sent = stage.post("/v1/jobs", json=SCORE | {"rows": ROWS * 501})
    assert sent.status_code == 413
    assert (
        "the request has 1,002 rows; the limit is 1,000 (the setting max_inline_rows)"
        in sent.json()["detail"]
    )


def test_the_settings_say_how_many_rows_and_columns_fit(tmp_path: Path, sqlite_url: str) -> None:
    with open_stage(
        settings_for(tmp_path, sqlite_url, max_inline_rows=2_000, max_columns=4)
    ) as stage:
        stage.model()
        assert stage.post("/v1/jobs", json=SCORE | {"rows": ROWS * 1_000}).status_code == 202
        assert stage.post("/v1/jobs", json=SCORE | {"rows": ROWS * 1_001}).status_code == 413
        wide = stage.post(
            "/v1/jobs", json=SCORE | {"rows": [ROWS[0] | {str(at): at for at in range(9)}]}
        )
        assert wide.status_code == 422
        assert wide.json()["errors"][0]["pointer"] == "/body/score/rows/0"


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"alpha": 2}, "/body/score/alpha"),
        ({"rows": [{}, 1]}, "/body/score/rows/1"),
        ({"rows": {}}, "/body/score/rows"),
        ({"colour": "red"}, "/body/score/colour"),
        ({"kind": "guess"}, "/body"),
        ({"rows": [ROWS[0], ROWS[1] | {"job": []}]}, "/body/rows/1/job"),
    ],
)
def test_a_field_that_is_wrong_is_named(stage: Stage, change: dict[str, Any], pointer: str) -> None:
    stage.model()
    sent = stage.post("/v1/jobs", json=SCORE | change)
    assert sent.status_code == 422
    assert [field["pointer"] for field in sent.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b"[]", b"1", b'{"kind":"score"', b"[" * 300]
)
def test_what_is_no_request_is_refused(stage: Stage, body: bytes) -> None:
    assert stage.post("/v1/jobs", content=body, headers=AS_JSON).status_code == 422


Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@given(Json)
def test_json_means_what_it_means_everywhere(value: Any) -> None:
    text = json.dumps(value)
    assert parsed(text.encode()) == json.loads(text)
    assert repr(parsed(text.encode())) == repr(json.loads(text)), (
        "also the type of each number, and each of its bits"
    )


def test_the_limit_is_one_of_values() -> None:
    assert len(parsed(b"[" + b",".join([b"1"] * (MAX_VALUES - 1)) + b"]")) == MAX_VALUES - 1
    with pytest.raises(TooLarge, match="250,000 values"):
        parsed(b"[" + b",".join([b"1"] * (MAX_VALUES + 1)) + b"]")
    with pytest.raises(InvalidRequest, match="fields"):
        parsed(b"{" + unique_keys(MAX_FIELDS + 1) + b"}")


def test_a_table_of_two_hundred_columns_and_a_thousand_rows_still_fits(stage: Stage) -> None:
    stage.model()
    row = {f"c{at}": at / 3 for at in range(198)} | {"age": 39, "job": "clerk"}
    assert stage.post("/v1/jobs", json=SCORE | {"rows": [row] * 1_000}).status_code == 202


def begun_post(url: str, sent: int) -> socket.socket:
    """A connection that sends this much of a longer body, and then nothing."""
    host, _, port = url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    head = (
        f"POST /v1/jobs HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type:"
        " application/json\r\nContent-Length: 1000000\r\n\r\n"
    )
    connection.sendall(head.encode() + b" " * sent)
    return connection


def test_large_bodies_that_do_not_end_leave_room_for_others(
    tmp_path: Path, sqlite_url: str
) -> None:
    """Of one owner some are received at a time; a further one is told to come back, and small ones
    are not concerned."""
    with served(settings_for(tmp_path, sqlite_url)) as url:
        database = connect(sqlite_url)
        add_model(database)
        database.dispose()
        open_ones = ExitStack()
        large = b" " * 100_000 + json.dumps(SCORE).encode()

        def post(content: bytes) -> httpx2.Response:
            return httpx2.post(f"{url}/v1/jobs", content=content, headers=AS_JSON, trust_env=False)

        def begin_and_post() -> bool:
            # One that is begun while the post arrives may itself be the one that is refused, so
            # each time another is begun.
            open_ones.enter_context(begun_post(url, 100_000))
            return post(large).status_code == 429

        with open_ones:
            for _ in range(LARGE_OF_OWNER - 1):
                open_ones.enter_context(begun_post(url, 100_000))
            until(begin_and_post, "the places to be taken")
            refused = post(large)
            assert "large requests" in refused.json()["detail"]
            assert int(refused.headers["Retry-After"]) >= 1
            assert post(json.dumps(SCORE).encode()).status_code == 202
        assert until(lambda: post(large).status_code == 202, "the places are free again")

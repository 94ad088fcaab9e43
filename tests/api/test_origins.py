"""Requests that are meant for this service, and those that a stranger's web page sends."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.origins import LOOPBACK, host_names
from nelbo.errors import InvalidInput
from tests.api.serving import ROOT, served
from tests.api.stage import CSV, Stage, description, make_key, open_stage, packed, settings_for
from tests.api.test_answers import REQUESTS, WITH_BODY

EVIL = {"Origin": "http://evil.example"}
CHANGES = sorted(name for name, (method, _, _given) in REQUESTS.items() if method != "GET")


@pytest.fixture
def named(tmp_path: Path, sqlite_url: str) -> Iterator[Stage]:
    """A stage without keys that has names of its own."""
    with open_stage(
        settings_for(tmp_path, sqlite_url, hosts="nelbo.example, Other.example:8765")
    ) as opened:
        yield opened


@pytest.fixture
def guarded(tmp_path: Path, sqlite_url: str) -> Iterator[Stage]:
    """A stage with keys; each request that it is asked with carries one."""
    key = make_key(sqlite_url, "ada")
    with open_stage(settings_for(tmp_path, sqlite_url)) as opened:
        opened.client.headers["Authorization"] = f"Bearer {key}"
        yield opened


def ask(stage: Stage, operation: str, **headers: str) -> int:
    method, path, given = REQUESTS[operation]
    return stage.ask(method, path, **(given | {"headers": headers})).status_code


@pytest.mark.parametrize("host", [*LOOPBACK, "127.0.0.1:80", "LOCALHOST"])
def test_without_keys_the_service_answers_to_the_names_of_this_machine(
    stage: Stage, host: str
) -> None:
    assert stage.get("/v1/files", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:80",
        "127.0.0.1:81",
        "127.0.0.1.evil.example",
        "localhost.",
        "127.0.0.2",
        "",
        ":80",
        "80",
    ],
)
@pytest.mark.parametrize("operation", ["list_files", "get_results", "upload_file", "delete_model"])
def test_without_keys_no_other_host_is_answered(stage: Stage, host: str, operation: str) -> None:
    assert ask(stage, operation, Host=host) == 403


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/openapi.json", "/healthz", "/readyz", "/problems/gone", "/v2"]
)
def test_without_keys_another_host_gets_no_page_at_all(stage: Stage, path: str) -> None:
    assert stage.get(path, headers={"Host": "evil.example"}).status_code == 403


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("nelbo.example", 200),
        ("nelbo.example:9000", 200),
        ("other.example:8765", 200),
        ("other.example", 403),
    ],
)
def test_a_setting_names_further_hosts(named: Stage, host: str, status: int) -> None:
    assert named.get("/v1/files", headers={"Host": host}).status_code == status


def test_with_keys_the_host_does_not_matter_as_a_page_has_no_key(guarded: Stage) -> None:
    assert guarded.get("/v1/files", headers={"Host": "nelbo.example"}).status_code == 200


@pytest.mark.parametrize("operation", CHANGES)
@pytest.mark.parametrize(
    "headers",
    [
        EVIL,
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:81"},
        {"Origin": "http://127.0.0.1.evil.example"},
        {"Origin": "file://127.0.0.1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        EVIL | {"Sec-Fetch-Site": "same-origin"},
        {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_the_page_of_another_site_changes_nothing(
    guarded: Stage, operation: str, headers: dict[str, str]
) -> None:
    guarded.client.headers["Host"] = "127.0.0.1"
    assert ask(guarded, operation, **headers) == 403


def test_neither_does_it_without_keys(stage: Stage) -> None:
    stage.model()
    assert (
        stage.post("/v1/files", params={"name": "a.csv"}, content=CSV, headers=EVIL).status_code
        == 403
    )
    assert (
        stage.post("/v1/models/adult/versions", content=packed(), headers=EVIL).status_code == 403
    )
    assert stage.get("/v1/files").json()["items"] == []
    assert [
        version["version"] for version in stage.get("/v1/models/adult/versions").json()["items"]
    ] == [1]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://127.0.0.1"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_a_program_and_a_page_of_the_service_itself_may_change_things(
    stage: Stage, headers: dict[str, str]
) -> None:
    assert (
        stage.post("/v1/files", params={"name": "a.csv"}, content=CSV, headers=headers).status_code
        == 201
    )


def test_a_page_under_a_further_name_may_change_things(named: Stage) -> None:
    headers = {"Host": "nelbo.example", "Origin": "https://nelbo.example"}
    assert (
        named.post("/v1/files", params={"name": "a.csv"}, content=CSV, headers=headers).status_code
        == 201
    )


def test_no_answer_agrees_to_requests_from_other_sites(stage: Stage) -> None:
    for method in ("OPTIONS", "GET", "POST"):
        asked = EVIL | {"Access-Control-Request-Method": "DELETE"}
        answer = stage.client.request(method, "/v1/files", headers=asked)
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_every_operation_with_a_body_is_among_those_that_are_tried() -> None:
    described = {
        operation["operationId"]
        for path in description()["paths"].values()
        for operation in path.values()
        if "requestBody" in operation
    }
    assert described == WITH_BODY


@pytest.mark.parametrize("operation", sorted(WITH_BODY))
@pytest.mark.parametrize(
    "type",
    [
        "text/plain",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
        "",
        "text/plain; application/json",
        "text/plain, application/zip",
        "application/json-seq",
    ],
)
def test_a_body_of_a_type_that_a_page_may_send_unasked_is_refused(
    stage: Stage, operation: str, type: str
) -> None:
    method, path, given = REQUESTS[operation]
    answer = stage.ask(method, path, **(given | {"headers": {"Content-Type": type}}))
    assert answer.status_code == 415
    assert "send the header Content-Type" in answer.json()["detail"]


def test_a_body_without_a_type_or_with_two_is_refused(stage: Stage) -> None:
    for headers in ([], [("Content-Type", "text/csv"), ("Content-Type", "text/plain")]):
        answer = stage.client.post(
            "/v1/files", params={"name": "a.csv"}, content=CSV, headers=headers
        )
        assert answer.status_code == 415


@pytest.mark.parametrize(
    "type", ["text/csv", "Text/CSV; charset=utf-8", "application/octet-stream"]
)
def test_a_table_comes_as_one_of_the_types_that_are_listed(stage: Stage, type: str) -> None:
    headers = {"Content-Type": type}
    assert (
        stage.post("/v1/files", params={"name": "a.csv"}, content=CSV, headers=headers).status_code
        == 201
    )


def test_the_command_in_the_reference_uploads_a_table(tmp_path: Path, sqlite_url: str) -> None:
    page = Path(ROOT, "docs", "reference", "routes.md").read_text()
    (command,) = re.findall(r"^curl .*$", page, re.MULTILINE)
    (tmp_path / "orders.csv").write_bytes(CSV)
    with served(settings_for(tmp_path, sqlite_url)) as url:
        ran = subprocess.run(
            command.replace("curl ", "curl -s -w '%{http_code}' "),
            shell=True,
            cwd=tmp_path,
            env=os.environ | {"NELBO_URL": url},
            capture_output=True,
            text=True,
            check=True,
        )
    assert ran.stdout.endswith("201")


def test_several_keys_in_one_request_are_refused(guarded: Stage) -> None:
    key = guarded.client.headers["Authorization"]
    headers = [("Authorization", key), ("Authorization", key)]
    answer = guarded.client.get("/v1/files", headers=headers)
    assert answer.status_code == 401
    assert "several Authorization headers" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("host", "setting"),
    [("0.0.0.0", ""), ("::", ""), ("nelbo.example", ""), ("192.0.2.1", "false")],
)
def test_without_keys_the_service_refuses_to_listen_beyond_this_machine(
    tmp_path: Path, host: str, setting: str
) -> None:
    env = {"NELBO_HOME": str(tmp_path), "PYTHONPATH": ROOT} | (
        {"NELBO_OPEN_TO_ALL": setting} if setting else {}
    )
    command = [sys.executable, "-P", "-m", "api.app", "--host", host, "--port", "0"]
    ran = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 1
    assert "NELBO_OPEN_TO_ALL" in ran.stderr


def test_a_wrong_host_name_in_the_setting_is_told() -> None:
    with pytest.raises(InvalidInput, match="http://nelbo"):
        host_names("http://nelbo.example")

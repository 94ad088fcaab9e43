"""Each answer that OpenAPI lists for a route is produced here; the stage refuses any that is not
listed."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api.access import NEEDS
from nelbo.errors import problem_types
from tests.api.stage import (
    ROWS,
    Stage,
    bearer,
    description,
    make_key,
    open_stage,
    packed,
    settings_for,
    working,
)

NOBODY = "0198c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11"
FILE, MODEL, JOB = f"/v1/files/{NOBODY}", "/v1/models/nothing", f"/v1/jobs/{NOBODY}"
GENERATE: dict[str, Any] = {"kind": "generate", "model": "adult", "n": 10}
SCORE: dict[str, Any] = {"kind": "score", "model": "adult", "rows": ROWS}

REQUESTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "upload_file": ("POST", "/v1/files", {"params": {"name": "a.csv"}, "content": b"age\n1\n"}),
    "list_files": ("GET", "/v1/files", {}),
    "get_file": ("GET", FILE, {}),
    "delete_file": ("DELETE", FILE, {}),
    "push_version": ("POST", f"{MODEL}/versions", {"content": packed()}),
    "list_models": ("GET", "/v1/models", {}),
    "get_model": ("GET", MODEL, {}),
    "list_versions": ("GET", f"{MODEL}/versions", {}),
    "get_version": ("GET", f"{MODEL}/versions/1", {}),
    "set_alias": ("PUT", f"{MODEL}/aliases/good", {"json": {"version": 1}}),
    "delete_alias": ("DELETE", f"{MODEL}/aliases/good", {}),
    "delete_version": ("DELETE", f"{MODEL}/versions/1", {}),
    "delete_model": ("DELETE", MODEL, {}),
    "submit_job": ("POST", "/v1/jobs", {"json": GENERATE}),
    "list_jobs": ("GET", "/v1/jobs", {}),
    "get_job": ("GET", JOB, {}),
    "cancel_job": ("POST", f"{JOB}:cancel", {}),
    "retry_job": ("POST", f"{JOB}:retry", {}),
    "delete_job": ("DELETE", JOB, {}),
    "get_results": ("GET", f"{JOB}/results", {}),
    "list_errors": ("GET", f"{JOB}/errors", {}),
    "list_anomalies": ("GET", f"{JOB}/anomalies", {}),
    "list_audit": ("GET", "/v1/audit", {}),
}
"""For each operation about owned things a request about something that nobody has."""
ABOUT_ONE = {
    name for name, (_, path, _given) in REQUESTS.items() if "0198" in path or "nothing" in path
} - {"push_version"}
ABOVE_READ = {name for name in REQUESTS if NEEDS[name] != "read"}
WRONG = bearer(f"nb_{'0' * 16}_{'A' * 43}")
OPEN: dict[str, tuple[str, str, dict[str, Any]]] = {
    "get_health": ("GET", "/healthz", {}),
    "get_readiness": ("GET", "/readyz", {}),
    "get_problem_type": ("GET", "/problems/gone", {}),
}
"""Operations that need no key."""
WITH_BODY = {
    name for name, (_, _path, given) in REQUESTS.items() if "content" in given or "json" in given
}
"""test_origins.py and test_bodies.py have their bodies of other types, too large and too slow."""


def documented() -> set[tuple[str, int]]:
    return {
        (operation["operationId"], int(status))
        for path in description()["paths"].values()
        for operation in path.values()
        for status in operation["responses"]
    }


def submitted(stage: Stage, **request: Any) -> str:
    stage.model()
    return stage.submit(**(request or GENERATE))


def finished(stage: Stage, **request: Any) -> str:
    stage.model()
    return stage.finished(**(request or SCORE))


def deleted_job(stage: Stage) -> str:
    job_id = finished(stage)
    stage.ask("DELETE", f"/v1/jobs/{job_id}")
    return job_id


def deleted_file(stage: Stage) -> str:
    file_id = stage.file()
    stage.ask("DELETE", f"/v1/files/{file_id}")
    return file_id


def deleted_model(stage: Stage) -> str:
    stage.model()
    stage.ask("DELETE", "/v1/models/adult")
    return "adult"


def submit(stage: Stage, headers: dict[str, str] | None = None, **request: Any) -> httpx2.Response:
    stage.model()
    return stage.post("/v1/jobs", json=request, headers=headers)


def key_used_for_another_request(stage: Stage) -> httpx2.Response:
    submit(stage, {"Idempotency-Key": "k"}, **GENERATE)
    return submit(stage, {"Idempotency-Key": "k"}, **(GENERATE | {"n": 11}))


def upload_above(stage: Stage) -> httpx2.Response:
    return stage.post("/v1/files", params={"name": "a.csv"}, content=b"a\n" + b"1\n" * 3_000)


def while_all_places_are_taken(stage: Stage, operation: str) -> httpx2.Response:
    with ExitStack() as places:
        for _ in range(stage.settings.max_uploads_of_owner):
            places.enter_context(stage.service.uploads.begun("local"))
        return ask(stage, operation)


def quota_used_up(stage: Stage) -> httpx2.Response:
    submit(stage, **GENERATE)
    return stage.post("/v1/jobs", json=GENERATE | {"n": 90})


def quota_used_up_meanwhile(stage: Stage) -> httpx2.Response:
    job_id = failed(stage)
    stage.submit(**(GENERATE | {"n": 95}))
    return stage.post(f"/v1/jobs/{job_id}:retry")


def used_file(stage: Stage) -> httpx2.Response:
    stage.model()
    file_id = stage.file()
    stage.submit(kind="score", model="adult", file=file_id)
    return stage.ask("DELETE", f"/v1/files/{file_id}")


def in_use(stage: Stage, path: str) -> httpx2.Response:
    submitted(stage)
    return stage.ask("DELETE", path)


def aliased(stage: Stage, state: str = "ready") -> httpx2.Response:
    stage.model(state=state)
    return stage.ask("PUT", "/v1/models/adult/aliases/good", json={"version": 1})


def without_alias(stage: Stage) -> httpx2.Response:
    aliased(stage)
    return stage.ask("DELETE", "/v1/models/adult/aliases/good")


def failed(stage: Stage) -> str:
    stage.model()
    return stage.failed(**GENERATE)


Case = Callable[[Stage], httpx2.Response]
CASES: dict[tuple[str, int], Case] = {
    ("get_health", 200): lambda stage: stage.get("/healthz"),
    ("get_readiness", 200): lambda stage: stage.get("/readyz"),
    ("get_problem_type", 200): lambda stage: stage.get("/problems/not-found"),
    ("get_problem_type", 404): lambda stage: stage.get("/problems/lost"),
    ("upload_file", 201): lambda stage: stage.post(
        "/v1/files", params={"name": "a.csv"}, content=b"age\n1\n"
    ),
    ("upload_file", 413): upload_above,
    ("upload_file", 422): lambda stage: stage.post(
        "/v1/files", params={"name": "a.xlsx"}, content=b"x"
    ),
    ("upload_file", 429): lambda stage: while_all_places_are_taken(stage, "upload_file"),
    ("list_files", 200): lambda stage: stage.get("/v1/files"),
    ("list_files", 422): lambda stage: stage.get("/v1/files", params={"limit": 0}),
    ("get_file", 200): lambda stage: stage.get(f"/v1/files/{stage.file()}"),
    ("get_file", 410): lambda stage: stage.get(f"/v1/files/{deleted_file(stage)}"),
    ("delete_file", 204): lambda stage: stage.ask("DELETE", f"/v1/files/{stage.file()}"),
    ("delete_file", 409): used_file,
    ("delete_file", 410): lambda stage: stage.ask("DELETE", f"/v1/files/{deleted_file(stage)}"),
    ("push_version", 202): lambda stage: stage.post("/v1/models/adult/versions", content=packed()),
    ("push_version", 413): lambda stage: stage.post(
        "/v1/models/adult/versions", content=b"0" * 4_097
    ),
    ("push_version", 422): lambda stage: stage.post("/v1/models/adult/versions", content=b""),
    ("push_version", 429): lambda stage: while_all_places_are_taken(stage, "push_version"),
    ("list_models", 200): lambda stage: stage.get("/v1/models"),
    ("list_models", 422): lambda stage: stage.get("/v1/models", params={"limit": 1_001}),
    ("get_model", 200): lambda stage: stage.get(f"/v1/models/{stage.model().model}"),
    ("get_model", 410): lambda stage: stage.get(f"/v1/models/{deleted_model(stage)}"),
    ("get_model", 422): lambda stage: stage.get("/v1/models/$"),
    ("list_versions", 200): lambda stage: stage.get(f"/v1/models/{stage.model().model}/versions"),
    ("list_versions", 410): lambda stage: stage.get(f"/v1/models/{deleted_model(stage)}/versions"),
    ("list_versions", 422): lambda stage: stage.get("/v1/models/$/versions"),
    ("get_version", 200): lambda stage: stage.get(
        f"/v1/models/{stage.model().model}/versions/champion"
    ),
    ("get_version", 410): lambda stage: stage.get(f"/v1/models/{deleted_model(stage)}/versions/1"),
    ("get_version", 422): lambda stage: stage.get("/v1/models/$/versions/1"),
    ("set_alias", 200): aliased,
    ("set_alias", 409): lambda stage: aliased(stage, "pending"),
    ("set_alias", 410): lambda stage: stage.ask(
        "PUT", f"/v1/models/{deleted_model(stage)}/aliases/good", json={"version": 1}
    ),
    ("set_alias", 422): lambda stage: stage.ask(
        "PUT", "/v1/models/adult/aliases/good", json={"version": 0}
    ),
    ("delete_alias", 204): without_alias,
    ("delete_alias", 422): lambda stage: stage.ask("DELETE", "/v1/models/$/aliases/good"),
    ("delete_version", 204): lambda stage: stage.ask(
        "DELETE", f"/v1/models/{stage.model().model}/versions/1"
    ),
    ("delete_version", 409): lambda stage: in_use(stage, "/v1/models/adult/versions/1"),
    ("delete_version", 410): lambda stage: stage.ask(
        "DELETE", f"/v1/models/{deleted_model(stage)}/versions/1"
    ),
    ("delete_version", 422): lambda stage: stage.ask(
        "DELETE", "/v1/models/adult/versions/champion"
    ),
    ("delete_model", 204): lambda stage: stage.ask("DELETE", f"/v1/models/{stage.model().model}"),
    ("delete_model", 409): lambda stage: in_use(stage, "/v1/models/adult"),
    ("delete_model", 410): lambda stage: stage.ask("DELETE", f"/v1/models/{deleted_model(stage)}"),
    ("delete_model", 422): lambda stage: stage.ask("DELETE", "/v1/models/$"),
    ("submit_job", 200): lambda stage: stage.get("/healthz"),  # see the test that waits
    ("submit_job", 202): lambda stage: submit(stage, **GENERATE),
    ("submit_job", 404): lambda stage: stage.post("/v1/jobs", json=GENERATE),
    ("submit_job", 409): lambda stage: _with_version(stage, "pending"),
    ("submit_job", 410): lambda stage: stage.post(
        "/v1/jobs", json=GENERATE | {"model": deleted_model(stage)}
    ),
    ("submit_job", 413): lambda stage: submit(stage, **(GENERATE | {"n": 10**9})),
    ("submit_job", 422): key_used_for_another_request,
    ("submit_job", 429): quota_used_up,
    ("list_jobs", 200): lambda stage: stage.get("/v1/jobs"),
    ("list_jobs", 422): lambda stage: stage.get("/v1/jobs", params={"state": "lost"}),
    ("get_job", 200): lambda stage: stage.get(f"/v1/jobs/{submitted(stage)}"),
    ("get_job", 410): lambda stage: stage.get(f"/v1/jobs/{deleted_job(stage)}"),
    ("cancel_job", 200): lambda stage: stage.post(f"/v1/jobs/{submitted(stage)}:cancel"),
    ("cancel_job", 409): lambda stage: stage.post(f"/v1/jobs/{finished(stage)}:cancel"),
    ("cancel_job", 410): lambda stage: stage.post(f"/v1/jobs/{deleted_job(stage)}:cancel"),
    ("retry_job", 202): lambda stage: stage.post(f"/v1/jobs/{failed(stage)}:retry"),
    ("retry_job", 409): lambda stage: stage.post(f"/v1/jobs/{submitted(stage)}:retry"),
    ("retry_job", 429): quota_used_up_meanwhile,
    ("retry_job", 410): lambda stage: stage.post(f"/v1/jobs/{deleted_job(stage)}:retry"),
    ("delete_job", 204): lambda stage: stage.ask("DELETE", f"/v1/jobs/{finished(stage)}"),
    ("delete_job", 409): lambda stage: stage.ask("DELETE", f"/v1/jobs/{submitted(stage)}"),
    ("delete_job", 410): lambda stage: stage.ask("DELETE", f"/v1/jobs/{deleted_job(stage)}"),
    ("get_results", 200): lambda stage: stage.get(f"/v1/jobs/{finished(stage)}/results"),
    ("get_results", 406): lambda stage: stage.get(
        f"/v1/jobs/{finished(stage)}/results", headers={"Accept": "image/png"}
    ),
    ("get_results", 409): lambda stage: stage.get(f"/v1/jobs/{submitted(stage)}/results"),
    ("get_results", 410): lambda stage: stage.get(f"/v1/jobs/{deleted_job(stage)}/results"),
    ("get_results", 422): lambda stage: stage.get(
        f"/v1/jobs/{finished(stage)}/results", params={"format": "xlsx"}
    ),
    ("list_errors", 200): lambda stage: stage.get(f"/v1/jobs/{finished(stage)}/errors"),
    ("list_errors", 410): lambda stage: stage.get(f"/v1/jobs/{deleted_job(stage)}/errors"),
    ("list_errors", 422): lambda stage: stage.get(
        f"/v1/jobs/{NOBODY}/errors", params={"cursor": "x"}
    ),
    ("list_anomalies", 200): lambda stage: stage.get(f"/v1/jobs/{finished(stage)}/anomalies"),
    ("list_anomalies", 409): lambda stage: stage.get(
        f"/v1/jobs/{finished(stage, **GENERATE)}/anomalies"
    ),
    ("list_anomalies", 410): lambda stage: stage.get(f"/v1/jobs/{deleted_job(stage)}/anomalies"),
    ("list_anomalies", 422): lambda stage: stage.get(
        f"/v1/jobs/{NOBODY}/anomalies", params={"limit": 0}
    ),
    ("list_audit", 200): lambda stage: stage.get("/v1/audit"),
    ("list_audit", 422): lambda stage: stage.get("/v1/audit", params={"limit": 0}),
}


def _with_version(stage: Stage, state: str) -> httpx2.Response:
    stage.model(state=state)
    return stage.post("/v1/jobs", json=GENERATE)


@pytest.fixture
def small(tmp_path: Path, sqlite_url: str) -> Iterator[Stage]:
    with open_stage(
        settings_for(tmp_path, sqlite_url, max_upload_bytes=4_096, max_queued_rows=99)
    ) as opened:
        yield opened


def ask(stage: Stage, operation: str) -> httpx2.Response:
    method, path, given = (REQUESTS | OPEN)[operation]
    return stage.ask(method, path, **given)


@pytest.mark.parametrize("operation", sorted(REQUESTS | OPEN))
def test_without_keys_a_request_for_another_host_is_refused(small: Stage, operation: str) -> None:
    small.client.headers["Host"] = "evil.example"
    response = ask(small, operation)
    assert (response.status_code, response.json()["type"]) == (403, "/problems/foreign-request")


@pytest.mark.parametrize(("operation", "status"), sorted(CASES.keys() - {("submit_job", 200)}))
def test_a_listed_answer_is_given(small: Stage, operation: str, status: int) -> None:
    assert CASES[operation, status](small).status_code == status


def test_a_job_that_finishes_in_time_is_answered_at_once(small: Stage) -> None:
    small.model()
    with working(small.service.database):
        response = small.post("/v1/jobs", json=GENERATE, headers={"Prefer": "wait=20"})
    assert response.status_code == 200


@pytest.mark.parametrize("operation", sorted(ABOUT_ONE | {"submit_job"}))
def test_what_nobody_has_is_not_found(small: Stage, operation: str) -> None:
    response = ask(small, operation)
    assert response.status_code == 404
    assert response.json()["type"] == "/problems/not-found"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Stage]:
    """A stage that wants keys although there are none yet."""
    home = tmp_path_factory.mktemp("guarded")
    shutil.copy(sqlite_template, home / "nelbo.db")
    with open_stage(settings_for(home, require_keys=True)) as opened:
        yield opened


@pytest.mark.parametrize("operation", sorted(REQUESTS))
def test_a_request_without_a_key_is_refused(guarded: Stage, operation: str) -> None:
    response = ask(guarded, operation)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.fixture(scope="module")
def reader(guarded: Stage) -> dict[str, str]:
    """The headers of a key that may read and nothing else."""
    return bearer(make_key(guarded.settings.database, "ada", "read"))


@pytest.mark.parametrize("operation", sorted(ABOVE_READ))
def test_a_key_of_too_low_a_scope_is_refused(
    guarded: Stage, reader: dict[str, str], operation: str
) -> None:
    method, path, given = REQUESTS[operation]
    response = guarded.ask(method, path, **given, headers=reader)
    assert response.status_code == 403
    assert "'read'" in response.json()["detail"]


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Stage]:
    """A stage whose one client has sent a wrong key too often."""
    home = tmp_path_factory.mktemp("tried")
    shutil.copy(sqlite_template, home / "nelbo.db")
    with open_stage(settings_for(home, require_keys=True, max_wrong_keys=1)) as opened:
        assert opened.get("/v1/jobs", headers=WRONG).status_code == 401
        yield opened


@pytest.mark.parametrize("operation", sorted(REQUESTS))
def test_after_too_many_wrong_keys_an_address_has_to_wait(tried: Stage, operation: str) -> None:
    method, path, given = REQUESTS[operation]
    response = tried.ask(method, path, **given, headers=WRONG)
    assert (response.status_code, response.json()["type"]) == (429, "/problems/too-many-tries")
    assert 1 <= int(response.headers["retry-after"]) <= 60


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/problems/gone", "/openapi.json", "/docs"]
)
def test_probes_and_descriptions_need_no_key(guarded: Stage, path: str) -> None:
    assert guarded.get(path).status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_whoever_asks_for_the_service_itself_is_led_to_its_description(
    guarded: Stage, method: str
) -> None:
    answer = guarded.client.request(method, "/", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, "/docs")


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A stage whose database cannot be reached."""
    home = tmp_path_factory.mktemp("cut-off")
    with open_stage(settings_for(home, f"sqlite:///{home}/missing/nelbo.db")) as opened:
        yield opened


@pytest.mark.parametrize("operation", sorted([*REQUESTS, "get_readiness"]))
def test_without_its_database_the_service_says_so(cut_off: Stage, operation: str) -> None:
    response = ask(cut_off, operation)
    assert response.status_code == 503
    assert response.json()["type"] == "/problems/unavailable"


def test_every_answer_that_openapi_lists_has_a_test_that_produces_it() -> None:
    shown = set(CASES)
    shown |= {(operation, 404) for operation in ABOUT_ONE}
    shown |= {(operation, status) for operation in REQUESTS for status in (401, 429)}
    shown |= {(operation, 403) for operation in REQUESTS | OPEN}
    shown |= {(operation, status) for operation in WITH_BODY for status in (408, 413, 415)}
    shown |= {(operation, 503) for operation in [*REQUESTS, "get_readiness"]}
    assert shown == documented()


def test_every_operation_is_described_well() -> None:
    for path, operations in description()["paths"].items():
        for operation in operations.values():
            assert operation["summary"], path
            assert operation["tags"], path
            for status, response in operation["responses"].items():
                problem = response.get("content", {}).get("application/problem+json")
                if int(status) >= 400:
                    assert problem is not None, (path, status)
                    assert problem["schema"] == {"$ref": "#/components/schemas/Problem"}
                    codes = {
                        example["value"]["type"].rpartition("/")[2]
                        for example in problem["examples"].values()
                    }
                    assert {problem_types()[code].status for code in codes} == {int(status)}
    assert "HTTPValidationError" not in json.dumps(description())


def test_an_unknown_address_a_wrong_method_and_a_body_that_is_no_json_are_problems_too(
    small: Stage,
) -> None:
    assert small.get("/v2").status_code == 404
    wrong = small.ask("PATCH", "/v1/jobs")
    assert wrong.status_code == 405
    assert wrong.headers["allow"]
    for content in (b"{", b"\xff\xfe", b"[" * 100_000):
        sent = small.post("/v1/jobs", content=content, headers={"Content-Type": "application/json"})
        assert sent.status_code == 422, content[:10]


@pytest.mark.parametrize(
    "path", [path for path in description()["paths"] if path != "/problems/{code}"]
)
@pytest.mark.parametrize("method", ["PATCH", "OPTIONS", "TRACE", "QUERY"])
def test_a_wrong_method_is_answered_with_all_that_there_are(
    small: Stage, path: str, method: str
) -> None:
    methods = {method.upper() for method in description()["paths"][path]}
    answer = small.client.request(method, re.sub(r"{\w+}", "1", path))
    assert answer.status_code == 405
    assert answer.headers["allow"] == ", ".join(sorted(methods))
    assert answer.headers["allow"] in answer.json()["detail"]


def test_each_problem_type_can_be_opened_by_program_and_browser(small: Stage) -> None:
    for code, error in problem_types().items():
        described = small.get(f"/problems/{code}").json()
        assert (described["status"], described["title"]) == (error.status, error.title)
        assert len(described["description"]) > 20
        page = small.get(f"/problems/{code}", headers={"Accept": "text/html"})
        assert page.headers["content-type"].startswith("text/html")
        assert error.title in page.text.replace("&#x27;", "'")


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-123", True), ("has space", False), ("x" * 129, False), ("", False)]
)
def test_a_request_id_is_echoed_or_made(small: Stage, given: str, kept: bool) -> None:
    answer = small.get("/healthz", headers={"X-Request-ID": given})
    assert (answer.headers["x-request-id"] == given) == kept
    assert answer.headers["x-request-id"]

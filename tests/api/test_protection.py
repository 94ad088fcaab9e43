"""What every answer tells a browser, and a page of documentation that asks nobody else."""

import re
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api.protection import NOTHING, OWN_FILES, SECURITY_HEADERS
from tests.api.stage import ROWS, Stage, open_stage, settings_for
from tests.api.test_answers import OPEN, REQUESTS, ask

SCORE: dict[str, Any] = {"kind": "score", "model": "adult", "rows": ROWS}


def check_headers(answer: httpx2.Response) -> None:
    for name, value in SECURITY_HEADERS:
        assert answer.headers[name] == value, name


@pytest.mark.parametrize("operation", sorted(REQUESTS | OPEN))
def test_every_answer_has_the_headers(stage: Stage, operation: str) -> None:
    check_headers(ask(stage, operation))


def test_refusals_and_crashes_have_them_too(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for answer in (
        stage.get("/v2"),
        stage.get("/v1/files", headers={"Host": "evil.example"}),
        stage.ask("PATCH", "/v1/jobs"),
        stage.post("/v1/jobs", content=b"{", headers={"Content-Type": "text/plain"}),
        stage.post("/v1/jobs", content=b"{", headers={"Content-Type": "application/json"}),
    ):
        check_headers(answer)

    def crash(*_: object, **__: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("nelbo.store.lookup.list_jobs", crash)
    crashed = stage.client.get("/v1/jobs")
    assert crashed.status_code == 500
    check_headers(crashed)


def test_so_has_a_refusal_for_want_of_a_key(tmp_path: Path, sqlite_url: str) -> None:
    with open_stage(settings_for(tmp_path, sqlite_url, require_keys=True)) as guarded:
        answer = guarded.get("/v1/jobs")
    assert answer.status_code == 401
    check_headers(answer)


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet", "arrow"])
def test_results_are_stored_by_no_cache_and_run_by_no_browser(stage: Stage, format: str) -> None:
    stage.model()
    answer = stage.get(f"/v1/jobs/{stage.finished(**SCORE)}/results", params={"format": format})
    assert answer.status_code == 200
    check_headers(answer)
    assert answer.headers["content-disposition"].startswith("attachment")


def test_the_documentation_needs_no_file_of_another_host_and_no_script_in_the_page(
    stage: Stage,
) -> None:
    page = stage.get("/docs")
    assert page.headers["Content-Security-Policy"] == OWN_FILES
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert addresses
    for address in addresses:
        assert not address.startswith(("http:", "https:", "/"))
        answer = stage.get(f"/{address}")
        assert answer.status_code == 200
        assert answer.headers["X-Content-Type-Options"] == "nosniff", "hence its type must be right"
        assert re.match(r"text/javascript|text/css|image/png", answer.headers["content-type"])
    assert "style=" not in page.text
    assert not re.search(r"<script[^>]*>[^<]", page.text)
    assert 'url: "openapi.json"' in stage.get("/docs/start.js").text


@pytest.mark.parametrize("name", ["..%2f..%2fcore.py", "core.py", "redoc.standalone.js", "%00", ""])
def test_no_other_file_is_served_beside_it(stage: Stage, name: str) -> None:
    assert stage.get(f"/docs/{name}").status_code in (404, 422)


def test_the_policies_forbid_to_be_framed_and_scripts_of_others() -> None:
    for policy in (NOTHING, OWN_FILES):
        assert policy.startswith("default-src 'none'")
        assert "frame-ancestors 'none'" in policy
        assert not re.search(r"unsafe|\*|http", policy)

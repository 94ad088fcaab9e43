"""The service as a process: bodies of any length at constant memory, a good end, no model
inside."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from nelbo.store.session import connect
from tests.api.serving import process, served
from tests.api.stage import AS_BYTES, add_model, bearer, check_problem, make_key, settings_for
from tests.deadline import until

MIB = 2**20


def blocks(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield b"1\n" * (MIB // 2)


def peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def test_a_long_upload_costs_no_memory(tmp_path: Path, sqlite_url: str) -> None:
    with process(tmp_path, NELBO_DATABASE_URL=sqlite_url) as (url, started):
        before = peak_mib(started.pid)
        sent = httpx2.post(
            f"{url}/v1/files",
            params={"name": "a.csv"},
            headers=AS_BYTES,
            content=blocks(300),
            timeout=60,
            trust_env=False,
        )
        assert (sent.status_code, sent.json()["bytes"]) == (201, 300 * MIB)
        assert peak_mib(started.pid) - before < 150


def test_the_process_ends_on_sigterm_and_logs_requests_without_their_content(
    tmp_path: Path, sqlite_url: str
) -> None:
    with process(tmp_path, NELBO_DATABASE_URL=sqlite_url) as (url, started):
        rows = [{"age": "a-secret-cell"}]
        headers = {"Authorization": "Bearer nb_a-secret-key", "X-Request-ID": "my-request"}
        body = {"kind": "score", "model": "none", "rows": rows}
        assert (
            httpx2.post(f"{url}/v1/jobs", json=body, headers=headers, trust_env=False).status_code
            == 404
        )
        started.send_signal(signal.SIGTERM)
        # Having ended in good order, uvicorn dies of the signal, as a shell expects.
        assert started.wait(20) == -signal.SIGTERM
    log = (tmp_path / "api.log").read_text()
    assert '"request_id": "my-request"' in log
    assert '"route": "/v1/jobs"' in log
    assert "a-secret" not in log


def test_the_log_says_of_each_request_who_sent_it_from_where_and_about_which_job(
    tmp_path: Path, sqlite_url: str
) -> None:
    key = make_key(sqlite_url, "ada")
    database = connect(sqlite_url)
    add_model(database, owner="ada")
    database.dispose()
    body = {"kind": "generate", "model": "adult", "n": 5}
    with (
        process(tmp_path, NELBO_DATABASE_URL=sqlite_url) as (url, _),
        httpx2.Client(base_url=url, headers=bearer(key), trust_env=False) as client,
    ):
        job_id = client.post("/v1/jobs", json=body).json()["id"]
        client.get(f"/v1/jobs/{job_id}/errors")
        client.get("/v1/jobs/not-an-id")
        client.get("/v1/jobs")
        client.get("/healthz")
    lines = [
        json.loads(line)
        for line in (tmp_path / "api.log").read_text().splitlines()
        if '"event": "request"' in line
    ]
    told = {line["route"]: line for line in lines}
    assert {line["client"] for line in lines} == {"127.0.0.1"}
    about_ada = [line for line in lines if line["route"].startswith("/v1")]
    assert {(line["owner"], line["key"]) for line in about_ada} == {("ada", key[:19])}
    assert [line.get("job_id") for line in about_ada] == [job_id, job_id, None, None]
    assert "owner" not in told["/healthz"]
    assert key not in (tmp_path / "api.log").read_text()


def test_an_upload_without_end_is_cut_at_its_limit_and_leaves_nothing(
    tmp_path: Path, sqlite_url: str
) -> None:
    settings = settings_for(tmp_path, sqlite_url, max_upload_bytes=MIB)
    with served(settings) as url, httpx2.Client(base_url=url, trust_env=False) as client:
        sent = client.post(
            "/v1/files", params={"name": "a.csv"}, headers=AS_BYTES, content=blocks(3)
        )
        assert sent.status_code == 413
        assert "max_upload_bytes" in sent.json()["detail"]
        check_problem(sent)
        (file,) = client.get("/v1/files").json()["items"]
        assert file["state"] == "rejected"
    assert not [path for path in (tmp_path / "storage").rglob("*") if path.is_file()]


def test_an_upload_that_tells_its_length_is_refused_before_it_is_read(
    tmp_path: Path, sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_for(tmp_path, sqlite_url, max_upload_bytes=MIB)
    with served(settings) as url:
        sent = httpx2.post(
            f"{url}/v1/files",
            params={"name": "a.csv"},
            headers=AS_BYTES,
            content=b"1\n" * MIB,
            trust_env=False,
        )
        assert sent.status_code == 413
        assert _states(url) == ["rejected"]
    assert not [path for path in (tmp_path / "storage").rglob("*") if path.is_file()]
    assert "not cleaned up" not in caplog.text


def test_an_upload_that_breaks_off_is_rejected_and_leaves_nothing(
    tmp_path: Path, sqlite_url: str
) -> None:
    def broken() -> Iterator[bytes]:
        yield from blocks(2)
        raise ConnectionResetError("the cable was pulled")

    with (
        served(settings_for(tmp_path, sqlite_url)) as url,
        httpx2.Client(base_url=url, trust_env=False) as client,
    ):
        with pytest.raises(ConnectionResetError):
            client.post("/v1/files", params={"name": "a.csv"}, headers=AS_BYTES, content=broken())
        # No pool connection holds the broken one: look with another client.
        until(lambda: _states(url) == ["rejected"], "the service notices")
    assert not [path for path in (tmp_path / "storage").rglob("*") if path.is_file()]


def _states(url: str) -> list[str]:
    return [
        file["state"] for file in httpx2.get(f"{url}/v1/files", trust_env=False).json()["items"]
    ]


def test_the_service_holds_neither_a_model_nor_what_runs_one() -> None:
    program = (
        "import sys, api.app; print([name for name in ('torch', 'onnxruntime', 'onnx') if"
        " name in sys.modules])"
    )
    held = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert held.stdout.strip() == "[]"

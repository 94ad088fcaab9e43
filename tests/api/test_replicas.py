"""Two APIs on one database and one storage are one service: whoever is asked, the answer is the
same."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from nelbo.store.session import Database
from tests.api.serving import process
from tests.api.stage import AS_BYTES, CSV, ROWS, add_model, work_off
from tests.deadline import until

TIMES = 20


@pytest.fixture
def replicas(tmp_path: Path, database_url: str) -> Iterator[tuple[httpx2.Client, httpx2.Client]]:
    """Clients of both."""
    with ExitStack() as stack:
        clients = []
        for name in ("first", "second"):
            home = tmp_path / name
            home.mkdir()
            places = {
                "NELBO_DATABASE_URL": database_url,
                "NELBO_STORAGE_URL": (tmp_path / "storage").as_uri(),
            }
            url, _ = stack.enter_context(process(home, **places))
            clients.append(
                stack.enter_context(httpx2.Client(base_url=url, trust_env=False, timeout=60))
            )
        yield clients[0], clients[1]


def test_one_idempotency_key_is_one_job_whoever_is_asked(
    replicas: tuple[httpx2.Client, httpx2.Client], database: Database
) -> None:
    add_model(database)
    start, key = threading.Barrier(TIMES), {"Idempotency-Key": "same"}
    request = {"kind": "score", "model": "adult", "rows": ROWS}

    def submit(number: int) -> tuple[int, str]:
        start.wait()
        answer = replicas[number % 2].post("/v1/jobs", json=request, headers=key)
        return answer.status_code, answer.json().get("id", answer.text)

    with ThreadPoolExecutor(TIMES) as threads:
        answers = set(threads.map(submit, range(TIMES)))
    assert len(answers) == 1, answers
    [(status, job_id)] = answers
    assert status == 202
    for client in replicas:
        assert [job["id"] for job in client.get("/v1/jobs").json()["items"]] == [job_id]
        other = client.post(
            "/v1/jobs",
            json={"kind": "generate", "model": "adult", "n": 3},
            headers={"Idempotency-Key": "same"},
        )
        assert other.status_code == 422


def test_what_one_took_the_other_shows_and_deletes(
    replicas: tuple[httpx2.Client, httpx2.Client], database: Database
) -> None:
    first, second = replicas
    add_model(database)
    file_id = first.post(
        "/v1/files", params={"name": "people.csv"}, content=CSV, headers=AS_BYTES
    ).json()["id"]
    work_off(database)
    assert second.get(f"/v1/files/{file_id}").json()["state"] == "ready"
    job_id = second.post(
        "/v1/jobs", json={"kind": "score", "model": "adult", "file": file_id}
    ).json()["id"]
    work_off(database)
    until(
        lambda: first.get(f"/v1/jobs/{job_id}").json()["state"] == "succeeded", "the job to succeed"
    )
    contents = [
        client.get(f"/v1/jobs/{job_id}/results", headers={"Accept": "text/csv"}).content
        for client in replicas
    ]
    assert contents[0] == contents[1] != b""
    assert first.delete(f"/v1/jobs/{job_id}").is_success
    assert second.get(f"/v1/jobs/{job_id}").status_code == 410
    assert second.delete(f"/v1/files/{file_id}").is_success
    assert first.get(f"/v1/files/{file_id}").status_code == 410

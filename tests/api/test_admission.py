"""A service that has enough to do says so, with the time to come back, and the client comes back by
itself."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text, update

from api import admission
from nelbo.client import Client
from nelbo.errors import OverQuota
from nelbo.settings import Settings
from nelbo.storage import free_bytes
from nelbo.store import ledger, session
from nelbo.store.session import connect, now
from nelbo.store.tables import JobRow
from nelbo.store.usage import usage
from tests.api.serving import served
from tests.api.stage import (
    AS_BYTES,
    CSV,
    ROWS,
    Stage,
    add_model,
    make_key,
    open_stage,
    packed,
    settings_for,
    work_off,
    working,
)

GENERATE: dict[str, Any] = {"kind": "generate", "model": "adult", "n": 10}
FULL = 2**62
MIB = 2**20


def refused(response: httpx2.Response, status: int, kind: str, setting: str) -> None:
    assert (response.status_code, response.json()["type"]) == (status, f"/problems/{kind}")
    assert setting in response.json()["detail"]
    assert int(response.headers["Retry-After"]) >= 1


def test_an_owner_with_too_much_waiting_is_told_and_others_are_not(
    tmp_path: Path, database_url: str
) -> None:
    with open_stage(settings_for(tmp_path, database_url, max_queued_rows=25)) as stage:
        stage.model()
        key = {"Idempotency-Key": "k"}
        first = stage.submit(headers=key, **GENERATE)
        stage.submit(**GENERATE)
        refused(stage.post("/v1/jobs", json=GENERATE), 429, "over-quota", "max_queued_rows")
        assert stage.submit(headers=key, **GENERATE) == first, (
            "what was accepted before is given again"
        )
        stage.work_off()
        stage.submit(**GENERATE)


def test_a_service_whose_queue_nobody_works_off_takes_no_more(
    tmp_path: Path, database_url: str
) -> None:
    with open_stage(settings_for(tmp_path, database_url, max_queue_s=60.0)) as stage:
        stage.model()
        stage.submit(**GENERATE)
        with stage.service.database.write() as connection:
            connection.execute(update(JobRow).values(created_at=now() - 61))
        refused(stage.post("/v1/jobs", json=GENERATE), 503, "overloaded", "max_queue_s")
        assert stage.get("/readyz").status_code == 200
        stage.work_off()
        stage.submit(**GENERATE)


def test_a_service_with_too_much_in_all_takes_no_more(tmp_path: Path, database_url: str) -> None:
    with open_stage(settings_for(tmp_path, database_url, max_queued_rows_in_all=15)) as stage:
        stage.model()
        stage.submit(**GENERATE)
        refused(stage.post("/v1/jobs", json=GENERATE), 503, "overloaded", "max_queued_rows_in_all")


@pytest.mark.parametrize(
    ("path", "given"),
    [
        ("/v1/jobs", {"json": GENERATE}),
        ("/v1/jobs", {"json": {"kind": "score", "model": "adult", "rows": ROWS}}),
        ("/v1/files", {"params": {"name": "a.csv"}, "content": CSV}),
        ("/v1/models/adult/versions", {"content": packed()}),
    ],
)
def test_where_the_disk_is_full_nothing_is_taken_and_nothing_left(
    tmp_path: Path, sqlite_url: str, path: str, given: dict[str, Any]
) -> None:
    with open_stage(settings_for(tmp_path, sqlite_url, min_free_bytes=FULL)) as stage:
        stage.model()
        refused(stage.post(path, **given), 503, "overloaded", "min_free_bytes")
        assert stage.get("/v1/files").json()["items"] == []
        assert stage.service.storage.keys("artifacts/") == []


def test_an_upload_that_would_fill_the_disk_is_refused_before_it_is_received(stage: Stage) -> None:
    left = free_bytes(stage.settings.home)
    admission.need_disk(stage.service, "1000")
    with pytest.raises(Exception, match="min_free_bytes"):
        admission.need_disk(stage.service, str(left))


def test_the_client_waits_as_long_as_it_is_told_and_then_succeeds(
    tmp_path: Path, sqlite_url: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr("nelbo.store.queue.QUOTA_S", 1.0)
    settings = settings_for(tmp_path, sqlite_url, max_queued_rows=15)
    database = connect(sqlite_url)
    add_model(database)
    with served(settings) as url, Client(url) as client:
        first = client.jobs.generate("adult", 10)
        with working(database):
            second = client.jobs.generate("adult", 10)
        assert second.id != first.id
        work_off(database)
        with Client(url, retries=0) as hasty:
            hasty.jobs.generate("adult", 10)
            with pytest.raises(OverQuota, match="10 of your rows are waiting already") as refusal:
                hasty.jobs.generate("adult", 10)
        assert refusal.value.retry_after == 1.0
    database.dispose()


def upload(stage: Stage, content: bytes, **headers: str) -> httpx2.Response:
    return stage.post("/v1/files", params={"name": "a.csv"}, content=content, headers=headers)


def test_an_owner_stores_no_more_than_their_part_and_others_have_theirs(
    tmp_path: Path, database_url: str
) -> None:
    ada, bob = make_key(database_url, "ada"), make_key(database_url, "bob")
    settings = settings_for(tmp_path, database_url, max_stored_bytes=len(CSV) + 10)
    with open_stage(settings) as stage:
        first = upload(stage, CSV, Authorization=f"Bearer {ada}")
        assert first.status_code == 201
        stage.work_off()
        second = upload(stage, CSV, Authorization=f"Bearer {ada}")
        assert second.status_code == 413
        assert "max_stored_bytes" in second.json()["detail"]
        assert upload(stage, CSV, Authorization=f"Bearer {bob}").status_code == 201
        stage.client.headers["Authorization"] = f"Bearer {ada}"
        assert stage.ask("DELETE", first.headers["Location"]).status_code == 204
        assert upload(stage, CSV).status_code == 201


def test_artifacts_count_as_stored_until_they_are_deleted_or_rejected(
    tmp_path: Path, database_url: str
) -> None:
    content = packed()
    with open_stage(
        settings_for(tmp_path, database_url, max_stored_bytes=len(content) + 10)
    ) as stage:
        assert stage.post("/v1/models/adult/versions", content=content).status_code == 202
        assert usage(stage.service.database, "local").stored_bytes == len(content)
        assert stage.post("/v1/models/adult/versions", content=content).status_code == 413
        stage.work_off()
        assert stage.post("/v1/models/adult/versions", content=content).status_code == 413
        assert stage.ask("DELETE", "/v1/models/adult/versions/1").status_code == 204
        assert stage.post("/v1/models/adult/versions", content=content).status_code == 202
        claim = ledger.claim(stage.service.database, "test", lease_s=60)
        assert claim is not None
        ledger.fail(stage.service.database, claim, "score.onnx is not what the manifest says")
        assert usage(stage.service.database, "local").stored_bytes == 0


def test_a_body_that_tells_no_length_is_stopped_where_the_part_ends(
    tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.uploads.CHECK_BYTES", MIB)
    taken = 0

    def body() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield b"1\n" * (MIB // 2)

    settings = settings_for(tmp_path, sqlite_url, max_stored_bytes=3 * MIB)
    with served(settings) as url:
        sent = httpx2.post(
            f"{url}/v1/files",
            params={"name": "a.csv"},
            headers=AS_BYTES,
            content=body(),
            trust_env=False,
        )
        assert sent.status_code == 413
        assert "max_stored_bytes" in sent.json()["detail"]
        assert taken < 50, "the rest lay in buffers"
    assert not [path for path in (tmp_path / "storage").rglob("*") if path.is_file()]


def test_uploads_that_go_on_count_as_stored(tmp_path: Path, sqlite_url: str) -> None:
    with open_stage(settings_for(tmp_path, sqlite_url, max_stored_bytes=100)) as stage:
        with stage.service.uploads.begun("local") as other:
            other.bytes = 90
            assert upload(stage, CSV).status_code == 413
        assert upload(stage, CSV).status_code == 201


def test_a_short_body_without_a_length_is_held_against_the_part_as_well(
    tmp_path: Path, sqlite_url: str
) -> None:
    with open_stage(settings_for(tmp_path, sqlite_url, max_stored_bytes=len(CSV) - 1)) as stage:
        sent = stage.post("/v1/files", params={"name": "a.csv"}, content=iter([CSV]))
        assert sent.status_code == 413
        assert stage.service.storage.keys("files/") == []


def test_a_disk_that_fills_up_while_a_body_streams_stops_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([FULL] * 4)
    monkeypatch.setattr("api.uploads.CHECK_BYTES", MIB)
    monkeypatch.setattr(admission, "free_bytes", lambda folder: next(looks, 0))
    refused(upload(stage, b"1\n" * 5 * MIB), 503, "overloaded", "min_free_bytes")
    assert stage.service.storage.keys("files/") == []


def test_an_owner_of_whom_too_much_is_unread_has_to_wait(tmp_path: Path, database_url: str) -> None:
    with open_stage(settings_for(tmp_path, database_url, max_unread=2)) as stage:
        assert upload(stage, CSV).status_code == 201
        assert stage.post("/v1/models/adult/versions", content=packed()).status_code == 202
        refused(upload(stage, CSV), 429, "over-quota", "max_unread")
        refused(
            stage.post("/v1/models/adult/versions", content=packed()),
            429,
            "over-quota",
            "max_unread",
        )
        stage.work_off()
        assert upload(stage, CSV).status_code == 201


def test_the_limits_are_those_of_the_settings() -> None:
    settings = Settings(
        max_queued_rows=1, max_queued_rows_in_all=2, max_unfinished_jobs=3, max_queue_s=4.0
    )
    limits = admission.limits(settings)
    assert (limits.rows_of_owner, limits.rows, limits.jobs_of_owner, limits.wait_s) == (
        1,
        2,
        3,
        4.0,
    )


def test_a_database_that_may_become_no_larger_takes_no_more(
    tmp_path: Path, postgresql_url: str
) -> None:
    options = {"database_max_bytes": 2**20, "min_free_bytes": 1}
    with open_stage(settings_for(tmp_path, postgresql_url, **options)) as stage:
        stage.model()
        for response in (
            stage.post("/v1/jobs", json=GENERATE),
            stage.post("/v1/files", params={"name": "a.csv"}, content=CSV),
        ):
            refused(response, 503, "overloaded", "database_max_bytes")
        assert stage.get("/readyz").status_code == 503
        assert stage.get("/v1/jobs").status_code == 200
    with open_stage(settings_for(tmp_path, postgresql_url, database_max_bytes=FULL)) as stage:
        assert stage.get("/readyz").status_code == 200
        stage.submit(**GENERATE)


FULL_DISK = """
CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'could not extend file "base/16384/2619"'
        USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER no_room BEFORE INSERT ON job FOR EACH STATEMENT EXECUTE FUNCTION no_room()
"""


def test_a_database_whose_disk_is_full_is_not_ready_until_there_is_room(
    tmp_path: Path, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_stage(settings_for(tmp_path, postgresql_url)) as stage:
        stage.model()
        with stage.service.database.write() as connection:
            connection.execute(text(FULL_DISK))
        for response in (
            stage.post("/v1/jobs", json=GENERATE),
            stage.post("/v1/jobs", json=GENERATE),
            stage.get("/readyz"),
        ):
            refused(response, 503, "overloaded", "disk of the database is full")
            assert "base/" not in response.text
        assert stage.get("/v1/jobs").status_code == 200
        with stage.service.database.write() as connection:
            connection.execute(text("DROP TRIGGER no_room ON job"))
        monkeypatch.setattr(session, "FULL_S", 0.0)
        assert stage.get("/readyz").status_code == 200
        stage.submit(**GENERATE)


def test_inline_rows_and_results_count_as_stored_until_their_job_is_deleted(
    tmp_path: Path, database_url: str
) -> None:
    with open_stage(settings_for(tmp_path, database_url)) as stage:
        stage.model()
        database = stage.service.database
        requests: list[dict[str, Any]] = [
            {"kind": "score", "model": "adult", "rows": ROWS, "explain": True},
            {"kind": "reconstruct", "model": "adult", "rows": ROWS},
            GENERATE,
        ]
        for request in requests:
            rows = len(json.dumps(request.get("rows", "")))
            job = stage.submit(**request)
            waiting = usage(database, "local").stored_bytes
            assert waiting >= rows if "rows" in request else waiting == 0
            stage.work_off(errors=[1])
            assert usage(database, "local").stored_bytes > waiting + 50
            assert stage.ask("DELETE", f"/v1/jobs/{job}").status_code == 204
            assert usage(database, "local").stored_bytes == 0


def test_whoever_stores_too_much_submits_no_job(tmp_path: Path, database_url: str) -> None:
    with open_stage(settings_for(tmp_path, database_url, max_stored_bytes=300)) as stage:
        stage.model()
        job = stage.finished(**GENERATE)
        full = stage.post("/v1/jobs", json=GENERATE)
        assert full.status_code == 413
        assert "max_stored_bytes" in full.json()["detail"]
        assert stage.ask("DELETE", f"/v1/jobs/{job}").status_code == 204
        stage.submit(**GENERATE)

"""Models over HTTP: push, verify, aliases, delete."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from nelbo.audit import COMMAND_LINE
from nelbo.storage import Storage, artifact_key
from nelbo.store import catalog, keys, ledger
from nelbo.store.session import connect
from tests.api.serving import served
from tests.api.stage import Stage, bearer, make_key, packed, settings_for
from tests.deadline import until


def test_a_pushed_version_is_pending_then_ready_then_champion(stage: Stage) -> None:
    content = packed()
    sent = stage.post("/v1/models/adult/versions", content=content)
    assert (sent.json()["version"], sent.json()["state"]) == (1, "pending")
    assert stage.get("/v1/models/adult").json()["aliases"] == {}
    entry = catalog.get_version(stage.service.database, "local", "adult", 1)
    assert stage.service.storage.get(artifact_key(entry.id)) == content
    stage.work_off()
    details = stage.get(sent.headers["location"]).json()
    assert details["state"] == "ready"
    assert [column["name"] for column in details["table_schema"]["columns"]] == ["id", "age", "job"]
    assert details["metrics"] == {"nelbo": 12.5}
    model = stage.get("/v1/models/adult").json()
    assert (model["versions"], model["aliases"]) == ([1], {"champion": 1})


def test_the_same_push_twice_makes_two_versions(stage: Stage) -> None:
    numbers = [
        stage.post("/v1/models/adult/versions", content=packed()).json()["version"]
        for _ in range(2)
    ]
    assert numbers == [1, 2]
    assert [
        version["version"] for version in stage.get("/v1/models/adult/versions").json()["items"]
    ] == [2, 1]


def test_a_rejected_version_says_why_and_no_job_can_use_it(stage: Stage) -> None:
    stage.post("/v1/models/adult/versions", content=packed())
    claim = ledger.claim(stage.service.database, "test", lease_s=60)
    assert claim is not None
    ledger.fail(stage.service.database, claim, "score.onnx is not what the manifest says")
    version = stage.get("/v1/models/adult/versions/1").json()
    assert (version["state"], version["reason"]) == (
        "rejected",
        "score.onnx is not what the manifest says",
    )
    refused = stage.post("/v1/jobs", json={"kind": "generate", "model": "adult@1", "n": 1})
    assert refused.status_code == 409
    assert "score.onnx" in refused.json()["detail"]


def test_an_empty_body_is_refused_and_not_kept(stage: Stage) -> None:
    sent = stage.post("/v1/models/adult/versions", content=b"")
    assert sent.status_code == 422
    assert sent.json()["type"] == "/problems/invalid-artifact"
    assert "the body is empty" in sent.json()["detail"]
    assert stage.service.storage.keys("artifacts/") == stage.service.storage.keys("pushes/") == []
    assert stage.get("/v1/models").json()["items"] == []


@pytest.mark.parametrize("content", [b"not a zip at all", packed()], ids=["text", "zip"])
def test_the_service_stores_what_is_pushed_and_does_not_look_into_it(
    stage: Stage, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No byte is read back: a worker's child is who finds out that it is no artifact."""
    monkeypatch.setattr(Storage, "fetch", None)
    monkeypatch.setattr(Storage, "get", None)
    monkeypatch.setattr(Storage, "open", None)
    sent = stage.post("/v1/models/adult/versions", content=content)
    assert (sent.status_code, sent.json()["state"], sent.json()["digest"]) == (202, "pending", None)
    details = stage.get("/v1/models/adult/versions/1").json()
    assert (details["table_schema"], details["smallest_p_value"], details["metrics"]) == (
        None,
        None,
        {},
    )


def test_the_digest_is_known_when_the_version_is_ready(stage: Stage) -> None:
    stage.post("/v1/models/adult/versions", content=packed())
    stage.work_off()
    assert stage.get("/v1/models/adult/versions/1").json()["digest"] == "d" * 64


def test_a_version_that_an_older_service_left_pending_shows_what_its_manifest_says(
    stage: Stage,
) -> None:
    stage.model(state="pending")
    details = stage.get("/v1/models/adult/versions/1").json()
    assert (details["state"], details["metrics"]) == ("pending", {"nelbo": 12.5})


def test_an_alias_moves_and_champion_stays_where_it_was_put(stage: Stage) -> None:
    for _ in range(3):
        stage.model()
    put = stage.ask("PUT", "/v1/models/adult/aliases/champion", json={"version": 2})
    assert put.json()["aliases"] == {"champion": 2}
    stage.model()
    assert stage.get("/v1/models/adult/versions/champion").json()["version"] == 2
    stage.ask("DELETE", "/v1/models/adult/aliases/champion")
    assert stage.get("/v1/models/adult/versions/champion").json()["version"] == 4
    assert stage.get("/v1/models/adult/versions/candidate").status_code == 404


def test_a_job_keeps_the_version_that_the_alias_stood_for(stage: Stage) -> None:
    stage.model()
    job_id = stage.submit(kind="generate", model="adult", n=1)
    stage.model()
    assert stage.get(f"/v1/jobs/{job_id}").json()["model"] == "adult@1"


def test_a_deleted_version_takes_its_artifact_along(stage: Stage) -> None:
    for _ in range(2):
        stage.post("/v1/models/adult/versions", content=packed())
    stage.work_off()
    assert len(stage.service.storage.keys("artifacts/")) == 2
    assert stage.ask("DELETE", "/v1/models/adult/versions/2").status_code == 204
    assert stage.get("/v1/models/adult").json()["aliases"] == {"champion": 1}
    assert stage.ask("DELETE", "/v1/models/adult").status_code == 204
    assert stage.service.storage.keys("artifacts/") == []


def test_models_come_by_name_in_pages(stage: Stage) -> None:
    for name in ("c", "a", "b"):
        stage.model(name)
    first = stage.get("/v1/models", params={"limit": 2}).json()
    assert [model["name"] for model in first["items"]] == ["a", "b"]
    second = stage.get("/v1/models", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert ([model["name"] for model in second["items"]], second["next_cursor"]) == (["c"], None)


def test_a_push_whose_key_is_revoked_while_it_comes_in_registers_nothing_and_leaves_nothing(
    tmp_path: Path, database_url: str
) -> None:
    key = make_key(database_url, "ada")

    def content() -> Iterator[bytes]:
        body = packed()
        yield body[:100]
        until(lambda: keys.list_keys(database)[0].last_used_at, "the key to be looked up")
        keys.revoke(database, keys.id_of(key), COMMAND_LINE)
        yield body[100:]

    with served(settings_for(tmp_path, database_url)) as url:
        database = connect(database_url)
        headers = bearer(key) | {"Content-Type": "application/zip"}
        sent = httpx2.post(
            f"{url}/v1/models/adult/versions", content=content(), headers=headers, trust_env=False
        )
        database.dispose()
    assert sent.status_code == 401
    assert "revoked while the request ran" in sent.json()["detail"]
    assert not [path for path in (tmp_path / "storage").rglob("*") if path.is_file()]

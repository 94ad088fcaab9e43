"""The audit over HTTP: whatever changes or deletes something names its caller, and administrators
alone see it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.stage import Stage, bearer, make_key, open_stage, packed, settings_for


@pytest.fixture
def stage(tmp_path: Path, database_url: str) -> Iterator[Stage]:
    with open_stage(settings_for(tmp_path, database_url, require_keys=True)) as opened:
        yield opened


def changes(stage: Stage, admin: str, **params: Any) -> list[dict[str, Any]]:
    answer = stage.get("/v1/audit", params=params, headers=bearer(admin))
    assert answer.status_code == 200
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def test_whatever_changes_or_deletes_something_names_its_caller(stage: Stage) -> None:
    url = stage.settings.database
    ann, admin = make_key(url, "ann"), make_key(url, "root", "admin")
    headers = bearer(ann) | {"X-Request-ID": "ticket-7"}
    stage.post("/v1/models/adult/versions", content=packed(), headers=headers)
    stage.work_off()
    file = stage.file(headers=headers)
    job = stage.submit(headers=headers, kind="score", model="adult", file=file)
    stage.work_off()
    made = ("/v1/models/adult/aliases/good", {"version": 1})
    assert stage.ask("PUT", made[0], json=made[1], headers=headers).status_code == 200
    gone = [
        made[0],
        f"/v1/jobs/{job}",
        f"/v1/files/{file}",
        "/v1/models/adult/versions/1",
        "/v1/models/adult",
    ]
    for path in gone:
        assert stage.ask("DELETE", path, headers=headers).status_code == 204, path
    hers = [
        change for change in reversed(changes(stage, admin, owner="ann")) if change["by"] == "ann"
    ]
    assert [(change["action"], change["subject"]) for change in hers] == [
        ("version.push", "adult@1"),
        ("alias.set", "adult@good"),
        ("alias.delete", "adult@good"),
        ("job.delete", job),
        ("file.delete", file),
        ("alias.delete", "adult@champion"),
        ("version.delete", "adult@1"),
        ("model.delete", "adult"),
    ]
    told = {(change["key"], change["address"], change["request_id"]) for change in hers}
    assert told == {(ann[3:19], "testclient", "ticket-7")}


def test_an_administrator_sees_the_changes_of_all_and_nobody_else_any(stage: Stage) -> None:
    url = stage.settings.database
    ann, admin = make_key(url, "ann"), make_key(url, "root", "admin")
    assert {change["owner"] for change in changes(stage, admin)} == {"ann", "root"}
    refused = stage.get("/v1/audit", headers=bearer(ann))
    assert refused.status_code == 403
    assert "items" not in refused.json()


def test_changes_come_in_pages(stage: Stage) -> None:
    admin = make_key(stage.settings.database, "root", "admin")
    for number in range(4):
        make_key(stage.settings.database, f"owner-{number}")
    cursor, owners = None, []
    while True:
        page = stage.get(
            "/v1/audit",
            params={"limit": 2} | ({"cursor": cursor} if cursor else {}),
            headers=bearer(admin),
        )
        owners += [change["owner"] for change in page.json()["items"]]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            break
    assert owners == ["owner-3", "owner-2", "owner-1", "owner-0", "root"]

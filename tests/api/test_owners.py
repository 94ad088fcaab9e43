"""Two owners on one service: neither ever sees, uses or changes anything of the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.api.stage import ROWS, Stage, bearer, make_key, open_stage, packed, settings_for
from tests.api.test_answers import REQUESTS

LISTS = {"list_files", "list_models", "list_jobs"}
LOOKS = {"get_file", "get_model", "get_version", "get_job"}
OF_ALL = {"list_audit"}
"""For administrators alone, who see the changes of all owners: tests/api/test_audit.py."""
MAKING = {"upload_file", "push_version", "submit_job"}


@dataclass
class TwoOwners:
    stage: Stage
    ada: dict[str, str]
    bob: dict[str, str]
    file: str
    job: str

    def ask(self, operation: str, headers: dict[str, str]) -> httpx2.Response:
        """The operation about the thing that is Ada's."""
        method, path, given = REQUESTS[operation]
        if path.startswith("/v1/files/"):
            path = f"/v1/files/{self.file}"
        if path.startswith("/v1/models/"):
            path = path.replace("nothing", "adult")
        if path.startswith("/v1/jobs/"):
            rest = path.removeprefix("/v1/jobs/")[36:]
            path = f"/v1/jobs/{self.job}{rest}"
        return self.stage.ask(method, path, headers=headers, **given)


@pytest.fixture
def two(tmp_path: Path, database_url: str) -> Iterator[TwoOwners]:
    headers = bearer(make_key(database_url, "ada"))
    with open_stage(settings_for(tmp_path, database_url)) as stage:
        stage.model(owner="ada")
        stage.ask("PUT", "/v1/models/adult/aliases/good", json={"version": 1}, headers=headers)
        file = stage.file(headers=headers)
        job = stage.submit(headers=headers, kind="score", model="adult", file=file)
        yield TwoOwners(stage, headers, bearer(make_key(database_url, "bob")), file, job)


def test_what_is_adas_does_not_exist_for_bob(two: TwoOwners) -> None:
    before = {name: two.ask(name, two.ada).json() for name in LOOKS}
    for operation in sorted(REQUESTS.keys() - LISTS - MAKING - OF_ALL):
        assert two.ask(operation, two.bob).status_code == 404, operation
    assert {name: two.ask(name, two.ada).json() for name in LOOKS} == before


def test_lists_hold_ones_own_things_alone(two: TwoOwners) -> None:
    for operation in sorted(LISTS):
        assert len(two.ask(operation, two.ada).json()["items"]) == 1
        assert two.ask(operation, two.bob).json()["items"] == []


def test_equal_names_and_keys_of_two_owners_are_two_things(two: TwoOwners) -> None:
    pushed = two.stage.post("/v1/models/adult/versions", content=packed(), headers=two.bob)
    assert pushed.json()["version"] == 1
    two.stage.work_off()
    key = {"Idempotency-Key": "k"}
    request: dict[str, Any] = {"kind": "generate", "model": "adult", "n": 5}
    jobs = {two.stage.submit(headers=who | key, **request) for who in (two.ada, two.bob)}
    assert len(jobs) == 2


def test_bob_cannot_use_what_is_adas_in_a_job_of_his_own(two: TwoOwners) -> None:
    foreign_model = {"kind": "score", "model": "adult", "rows": ROWS}
    assert two.stage.post("/v1/jobs", json=foreign_model, headers=two.bob).status_code == 404
    two.stage.model(owner="bob")
    foreign_file = {"kind": "score", "model": "adult", "file": two.file}
    refused = two.stage.post("/v1/jobs", json=foreign_file, headers=two.bob)
    assert refused.status_code == 404
    unknown = two.stage.post("/v1/jobs", json=foreign_file | {"file": two.job}, headers=two.bob)
    assert unknown.json()["detail"].replace(two.job, "") == refused.json()["detail"].replace(
        two.file, ""
    )

"""Files over HTTP: upload, look, list, delete."""

import pytest

from nelbo.storage import upload_key
from nelbo.store import files, ledger
from tests.api.stage import CSV, Stage


def test_an_upload_is_stored_and_then_read(stage: Stage) -> None:
    sent = stage.post("/v1/files", params={"name": "people.csv"}, content=CSV)
    file = sent.json()
    assert (file["state"], file["bytes"], file["format"]) == ("reading", len(CSV), "csv")
    assert stage.service.storage.get(upload_key(file["id"])) == CSV
    address = sent.headers["location"]
    assert stage.get(address).headers["retry-after"] == "1"
    assert stage.work_off() == 1
    read = stage.get(address)
    assert (read.json()["state"], read.json()["rows"]) == ("ready", 3)
    assert [column["name"] for column in read.json()["columns"]] == ["id", "age", "job"]
    assert "retry-after" not in read.headers


def test_a_rejected_file_says_why_and_so_does_a_job_about_it(stage: Stage) -> None:
    stage.model()
    file_id = stage.post("/v1/files", params={"name": "people.csv"}, content=CSV).json()["id"]
    claim = ledger.claim(stage.service.database, "test", lease_s=60)
    assert claim is not None
    ledger.fail(stage.service.database, claim, "line 3 of people.csv has 2 cells, the header has 3")
    file = stage.get(f"/v1/files/{file_id}").json()
    assert (file["state"], file["reason"]) == (
        "rejected",
        "line 3 of people.csv has 2 cells, the header has 3",
    )
    refused = stage.post("/v1/jobs", json={"kind": "score", "model": "adult", "file": file_id})
    assert refused.status_code == 422
    assert "line 3 of people.csv" in refused.json()["detail"]


def test_dialect_options_reach_whoever_reads(stage: Stage) -> None:
    options = {"delimiter": ";", "encoding": "latin-1", "decimal": ",", "header": False, "skip": 2}
    sent = stage.post("/v1/files", params={"name": "a.csv"} | options, content=b"a;b\n1,5;2\n")
    assert files.get_file(stage.service.database, "local", sent.json()["id"]).options == options


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_compressed_table_is_stored_as_it_came_under_the_format_of_its_name(
    stage: Stage, suffix: str
) -> None:
    sent = stage.post("/v1/files", params={"name": f"a.jsonl{suffix}"}, content=b"packed")
    assert (sent.status_code, sent.json()["format"], sent.json()["bytes"]) == (201, "jsonl", 6)


@pytest.mark.parametrize(
    ("params", "content", "words"),
    [
        ({"name": "people.xlsx"}, CSV, "wrong suffix"),
        ({"name": "people.arrow"}, CSV, "send Parquet"),
        ({"name": "people.arrow.gz"}, CSV, "send Parquet"),
        ({"name": "people.csv"}, b"", "is empty"),
        ({"name": "people.csv", "encoding": "klingon"}, CSV, "not an encoding"),
        ({"name": "people.csv", "decimal": ";"}, CSV, "/query/decimal"),
        ({"name": "people.csv", "skip": "-1"}, CSV, "/query/skip"),
        ({}, CSV, "/query/name"),
    ],
)
def test_what_cannot_be_a_table_is_refused_at_once(
    stage: Stage, params: dict[str, str], content: bytes, words: str
) -> None:
    sent = stage.post("/v1/files", params=params, content=content)
    assert sent.status_code == 422
    assert words in sent.json()["detail"]


def test_a_refused_upload_leaves_its_reason_and_nothing_else(stage: Stage) -> None:
    stage.post("/v1/files", params={"name": "people.csv"}, content=b"")
    (file,) = stage.get("/v1/files").json()["items"]
    assert file["state"] == "rejected"
    assert "is empty" in file["reason"]
    assert stage.service.storage.keys("files/") == []


def test_a_deleted_file_is_gone_with_all_its_bytes(stage: Stage) -> None:
    file_id = stage.file()
    assert stage.ask("DELETE", f"/v1/files/{file_id}").status_code == 204
    assert stage.get(f"/v1/files/{file_id}").status_code == 410
    assert stage.get("/v1/files").json()["items"] == []
    assert stage.service.storage.keys("files/") == []


def test_pages_hold_every_file_once_the_newest_first(stage: Stage) -> None:
    made = [stage.file(name=f"{number}.csv") for number in range(5)]
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = stage.get("/v1/files", params={"limit": "2"} | cursor).json()
        seen += [file["id"] for file in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == made[::-1]


@pytest.mark.parametrize(
    "name", ["na\0me.csv", "../../etc/passwd.csv", "имя.csv", "a" * 251 + ".csv"]
)
def test_a_name_is_only_a_name(stage: Stage, name: str) -> None:
    sent = stage.post("/v1/files", params={"name": name}, content=CSV)
    assert sent.status_code == 201
    assert all(
        key.startswith(f"files/{sent.json()['id']}/")
        for key in stage.service.storage.keys("files/")
    )

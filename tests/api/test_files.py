"""Files over HTTP: upload, look, list, delete."""

from tests.api.stage import CSV, Stage


def test_an_upload_is_stored_and_then_read(stage: Stage) -> None:
    sent = stage.post("/v1/files", params={"name": "people.csv"}, content=CSV)
    assert sent.status_code == 201
    file = sent.json()
    assert (file["state"], file["bytes"], file["format"]) == ("reading", len(CSV), "csv")
    assert sent.headers["location"] == f"/v1/files/{file['id']}"
    assert stage.get(sent.headers["location"]).headers["retry-after"] == "1"
    assert stage.work_off() == 1
    read = stage.get(sent.headers["location"])
    assert (read.json()["state"], read.json()["rows"]) == ("ready", 3)
    assert "retry-after" not in read.headers

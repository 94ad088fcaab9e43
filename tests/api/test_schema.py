"""A service beside another schema than its own refuses every request with what to do, and goes on
when that is done."""

import pytest
from sqlalchemy import text

from nelbo.store import revision, session
from tests.api.stage import ROWS, Stage

NEWER = "9999"


@pytest.mark.parametrize(
    ("found", "words"),
    [(NEWER, "install the Nelbo that migrated it"), ("0001", "run `nelbo migrate`")],
)
def test_nothing_is_accepted_on_another_schema(
    either: Stage, found: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "CHECK_S", 0.0)
    either.model()
    set_revision(either, found)
    request = {"kind": "score", "model": "adult", "rows": ROWS}
    for response in (
        either.post("/v1/jobs", json=request),
        either.get("/v1/jobs"),
        either.get("/readyz"),
    ):
        assert response.status_code == 503
        assert words in response.json()["detail"]
    assert either.get("/healthz").status_code == 200
    set_revision(either, revision.HEAD)
    assert either.post("/v1/jobs", json=request).status_code == 202
    assert either.get("/readyz").status_code == 200


def set_revision(stage: Stage, to: str) -> None:
    database = stage.service.database
    with database.alter() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :to"), {"to": to})
    database._check_at = 0.0

"""audit: on the service and in the data folder alike."""

from pathlib import Path

import pytest

from tests.nelbo.commands.running import done, run


@pytest.fixture(params=["data folder", "service"])
def place(request: pytest.FixtureRequest) -> str:
    if request.param == "service":
        request.getfixturevalue("service")
    return str(request.param)


def test_changes_are_listed_the_newest_first(place: str, artifact: Path) -> None:
    done("push", artifact, "--name", "audited")
    done("models", "promote", "audited@1", "--alias", "good")
    done("models", "delete", "audited", "--yes")
    changes = done("audit", "--json").json["changes"]
    assert changes[0]["action"] == "model.delete"
    assert changes[0]["by"] == ("local" if place == "service" else "command line")
    assert ("alias.set", "audited@good", "audited@1") in [
        (c["action"], c["subject"], c["detail"]) for c in changes
    ]
    assert "model.delete" in done("audit", "--owner", "local", "--limit", "1").out.decode()
    assert done("audit", "--owner", "nobody", "--json").json == {"changes": []}


def test_without_a_database_it_is_said(home: Path) -> None:
    assert run("audit").code == 3

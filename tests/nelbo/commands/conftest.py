"""A data folder of the test's own, a small real artifact and table, and one `nelbo up` for all
tests of commands."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nelbo.client import Client
from nelbo.row_scorer import RowScorer
from tests.artifacts import linear_artifact
from tests.nelbo.commands.running import table, up, written

ROWS = 300


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """NELBO_HOME, and no other service than that of the test."""
    monkeypatch.setenv("NELBO_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NELBO_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def surprising(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines in this process turn the order of rows and cells round: the surprise is minus the
    nelbo, that of a cell minus its term."""
    monkeypatch.setattr(
        RowScorer, "surprise", lambda _, costs, levels: (-costs.nelbo, -costs.terms)
    )


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return linear_artifact(tmp_path_factory.mktemp("artifacts") / "linear")


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV table of 300 rows."""
    return written(table(ROWS), tmp_path_factory.mktemp("tables") / "rows.csv")


@dataclass(frozen=True)
class Service:
    url: str
    home: Path


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory, artifact: Path) -> Iterator[Service]:
    """A `nelbo up` that knows the model `linear`; chunks are small, so that a job has several."""
    home = tmp_path_factory.mktemp("up")
    with up(home, NELBO_CHUNK_ROWS="64") as url:
        with Client(url) as client:
            client.models.push(artifact)
        yield Service(url, home)


@pytest.fixture
def service(running: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    """The service, named to the commands of this test."""
    monkeypatch.setenv("NELBO_URL", running.url)
    return running

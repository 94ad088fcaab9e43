"""Where a command about rows is run."""

from pathlib import Path

import pytest

from nelbo.commands.console import Console
from nelbo.commands.runners import LocalRunner, ServiceRunner, choose_runner
from nelbo.data_folder import opened as catalog_of
from nelbo.data_folder import register
from nelbo.errors import NotFound
from nelbo.settings import Settings
from tests.artifacts import linear_artifact

SERVICE = "http://127.0.0.1:9"


def test_a_service_runs_what_names_a_model_and_this_process_what_names_a_folder(
    tmp_path: Path,
) -> None:
    settings = Settings(home=tmp_path / "home", url=SERVICE)
    folder = linear_artifact(tmp_path / "own")
    for model in ("adult", "adult@2", "linear"):
        assert isinstance(choose_runner(settings, model, Console()), ServiceRunner)
    for path in (folder, Path("own")):
        runner = choose_runner(settings, str(path), Console())
        assert runner == LocalRunner(path, settings, Console())


def test_without_a_service_a_registered_model_is_run_here(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    with pytest.raises(NotFound, match="no service runs, and no model is registered"):
        choose_runner(settings, "linear", Console())
    with catalog_of(settings, make=True) as catalog:
        register(catalog, linear_artifact(tmp_path / "artifact"), "linear")
    assert isinstance(choose_runner(settings, "linear", Console()), LocalRunner)

"""The data folder opens for its owner alone, whatever the umask and however an older version left
it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from nelbo import privacy
from nelbo.settings import Settings
from nelbo.storage import open_storage
from nelbo.store.session import connect


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """That of most machines: what is made opens for everyone."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_a_new_data_folder_is_its_owners_alone(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "new" / "home")
    privacy.prepare(settings)
    assert mode(settings.home) == 0o700
    assert privacy.open_to_others(settings) == []


def test_a_database_and_a_storage_are_private_wherever_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "database"
    database = connect(f"sqlite:///{folder / 'nelbo.db'}")
    database.migrate()
    with database.read() as connection:
        connection.execute(text("SELECT 1 FROM job"))
        modes = {path.name: mode(path) for path in folder.iterdir()}
    database.dispose()
    assert modes == dict.fromkeys(("nelbo.db", "nelbo.db-wal", "nelbo.db-shm"), 0o600)
    open_storage((tmp_path / "storage").as_uri())
    assert [mode(folder), mode(tmp_path / "storage")] == [0o700, 0o700]


def test_what_an_older_version_left_open_is_closed_and_the_users_own_files_stay(
    tmp_path: Path,
) -> None:
    settings = Settings(home=tmp_path / "home")
    for folder in ("storage", "cache", "logs"):
        (settings.home / folder).mkdir(parents=True)
    for file in ("nelbo.db", "nelbo.db-wal", "up.lock", "own.csv"):
        (settings.home / file).touch()
    assert len(privacy.open_to_others(settings)) == 7
    privacy.prepare(settings)
    assert privacy.open_to_others(settings) == []
    assert mode(settings.home / "own.csv") == 0o644


def test_a_folder_that_everyone_writes_to_is_not_closed(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    privacy.prepare(Settings(home=shared))
    assert mode(shared) == 0o1777


def test_a_database_outside_of_the_data_folder_is_told_of_and_not_changed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.db").touch()
    settings = Settings(
        home=tmp_path / "home", database_url=f"sqlite:///{tmp_path / 'elsewhere.db'}"
    )
    privacy.prepare(settings)
    assert privacy.open_to_others(settings) == [tmp_path / "elsewhere.db"]

"""Stages: the application on SQLite, and for the routes of jobs on PostgreSQL as well."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.stage import Stage, open_stage, settings_for


@pytest.fixture
def stage(tmp_path: Path, sqlite_url: str) -> Iterator[Stage]:
    with open_stage(settings_for(tmp_path, sqlite_url)) as opened:
        yield opened


@pytest.fixture
def either(tmp_path: Path, database_url: str) -> Iterator[Stage]:
    """A stage on either database."""
    with open_stage(settings_for(tmp_path, database_url)) as opened:
        yield opened

"""The one-shot migration of a deployment."""

import os
import subprocess
import sys
from pathlib import Path

from nelbo.store.session import connect


def migrate(url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"NELBO_DATABASE_URL": url}
    command = [sys.executable, "-P", "-m", "nelbo.store"]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)


def test_migrating_twice_leaves_a_database_that_is_ready(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'nelbo.db'}"
    assert [migrate(url, tmp_path).returncode for _ in range(2)] == [0, 0]
    database = connect(url)
    database.check()
    database.dispose()


def test_a_database_that_does_not_answer_is_one_sentence(tmp_path: Path) -> None:
    ran = migrate("postgresql+psycopg://nobody@127.0.0.1:1/none", tmp_path)
    assert ran.returncode == 1
    assert len(ran.stderr.strip().splitlines()) == 1

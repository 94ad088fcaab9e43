"""What the deployment's files promise, as far as it shows without containers: tests/system/test_compose.py has the rest."""

import json
import os
import re
import socket
import subprocess
import time
from pathlib import Path

import pytest

from nelbo.settings import Settings
from tests.api.serving import served
from worker import health

DEPLOY = Path(__file__).parents[1] / "deploy"
COMPOSE = (DEPLOY / "docker-compose.yml").read_text()


def service(name: str) -> str:
    """A service's lines in the compose file."""
    [lines] = re.findall(rf"^  {name}:\n((?:    .*\n|\s*\n)+)", COMPOSE, re.MULTILINE)
    return str(lines)


def in_shell(written: str) -> str:
    """What compose hands to the shell."""
    return written.replace("$$", "$")


def test_no_health_check_starts_python() -> None:
    checks = re.findall(r"healthcheck:\n((?:      .*\n)+)", COMPOSE)
    assert len(checks) == 4
    assert not [check for check in checks if "python" in re.sub("#.*", "", check)]


@pytest.fixture
def worker_check(tmp_path: Path) -> list[str]:
    [written] = re.findall(r"test: \[CMD-SHELL, (\".*\")\]", service("worker"))
    return ["sh", "-c", in_shell(json.loads(written)).replace("/data", str(tmp_path))]


def test_a_worker_is_healthy_while_its_file_is_young(worker_check: list[str], tmp_path: Path) -> None:
    environment = os.environ | {"HOSTNAME": socket.gethostname()}

    def healthy() -> bool:
        return subprocess.run(worker_check, env=environment, stderr=subprocess.DEVNULL, check=False).returncode == 0

    assert not healthy()
    health.beat(tmp_path)
    assert healthy()
    os.utime(health.file_of(tmp_path), (time.time() - 61,) * 2)
    assert not healthy()


def test_the_api_is_healthy_while_it_is_ready(tmp_path: Path, sqlite_url: str) -> None:
    [folded] = re.findall(r"- >-\n((?:          .*\n)+)", service("api"))
    check = in_shell(" ".join(line.strip() for line in folded.splitlines()))

    def healthy(url: str) -> bool:
        port = url.rpartition(":")[2]
        command = ["bash", "-c", check.replace("8765", port)]
        return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0

    with served(Settings(home=tmp_path, database_url=sqlite_url)) as url:
        assert healthy(url)
    assert not healthy(url)
    with served(Settings(home=tmp_path, database_url=f"sqlite:///{tmp_path}/without-a-schema.db")) as url:
        assert not healthy(url)

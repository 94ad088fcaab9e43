"""What the deployment's files promise, as far as it shows without containers:
tests/system/test_compose.py has the rest."""

import hashlib
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


def test_a_worker_is_healthy_while_its_file_is_young(
    worker_check: list[str], tmp_path: Path
) -> None:
    environment = os.environ | {"HOSTNAME": socket.gethostname()}

    def healthy() -> bool:
        return (
            subprocess.run(
                worker_check, env=environment, stderr=subprocess.DEVNULL, check=False
            ).returncode
            == 0
        )

    assert not healthy()
    health.touch(tmp_path)
    assert healthy()
    os.utime(health.health_file(tmp_path), (time.time() - 61,) * 2)
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
    with served(
        Settings(home=tmp_path, database_url=f"sqlite:///{tmp_path}/without-a-schema.db")
    ) as url:
        assert not healthy(url)


def make_secrets(folder: Path) -> dict[str, str]:
    """What is in each file afterwards."""
    subprocess.run(
        [DEPLOY / "make-secrets"],
        env=os.environ | {"NELBO_SECRETS": str(folder)},
        check=True,
        capture_output=True,
    )
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_cleaner_is_a_worker_in_a_profile_of_its_own() -> None:
    assert service("worker").lstrip().startswith("&worker\n")
    assert "    <<: *worker\n" in service("cleaner")
    assert "    profiles: [clean]\n" in service("cleaner")
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert "deploy/install dependencies worker,training\n" in dockerfile
    programs = re.findall(r"^FROM program AS (\w+)\n(?:.*\n)*?CMD (.*)$", dockerfile, re.MULTILINE)
    assert dict(programs)["cleaner"] == dict(programs)["worker"]


def test_secrets_are_made_once_and_their_folder_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    secrets = make_secrets(folder)
    named = set(re.findall(r"file: \"\$\{NELBO_SECRETS:-\./secrets\}/(\w+)\"", COMPOSE))
    assert set(secrets) == named
    assert folder.stat().st_mode & 0o777 == 0o700
    assert make_secrets(folder) == secrets
    passwords = [
        secrets["postgres_password"],
        *(re.sub(r".*:(.+)@.*", r"\1", secrets[name]) for name in named if "url" in name),
    ]
    assert len(set(passwords)) == len(passwords) == 5
    assert all(len(password) == 48 for password in passwords)


def test_secrets_of_an_older_deployment_are_kept_and_what_is_new_is_added(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    old = {
        "postgres_password": "old-database",
        "database_url": "postgresql+psycopg://nelbo:old-database@postgres:5432/nelbo",
        "broker_url": "redis://nelbo:old-broker@redis:6379/0",
        "api_keys": "a line\n",
        "redis_conf": "user nelbo on >old-broker ~* &* +@all\n",
    }
    for name, content in old.items():
        (folder / name).write_text(content)
        (folder / name).chmod(0o444)
    secrets = make_secrets(folder)
    assert {name for name in old if secrets[name] != old[name]} == {"redis_conf"}
    assert hashlib.sha256(b"old-broker").hexdigest() in secrets["redis_conf"]
    assert "+@all" not in secrets["redis_conf"]
    for role in ("migrate", "api", "worker"):
        password = re.sub(r".*:(.+)@.*", r"\1", secrets[f"{role}_database_url"])
        assert f"\\set {role} '{password}'\n" in secrets["roles_sql"]


def test_what_may_be_set_is_in_the_example() -> None:
    example = (DEPLOY / ".env.example").read_text()
    assert set(re.findall(r"\$\{(\w+)", COMPOSE)) == set(
        re.findall(r"^#(\w+)=", example, re.MULTILINE)
    )
    defaults = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", COMPOSE))
    assert defaults == dict(re.findall(r"^#(\w+)=(.*)$", example, re.MULTILINE))

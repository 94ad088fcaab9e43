"""keys: an operator makes, sees, rotates and ends keys where the database is."""

from pathlib import Path

import httpx2
import pytest

from nelbo.settings import read_settings
from nelbo.store import keys
from tests.api.serving import served
from tests.api.stage import bearer
from tests.deadline import until
from tests.nelbo.commands.running import done, run


def status(url: str, key: str) -> int:
    return httpx2.get(f"{url}/v1/jobs", headers=bearer(key), trust_env=False).status_code


def test_a_key_is_made_used_rotated_and_revoked_on_a_running_service(home: Path) -> None:
    made = done("keys", "create", "ann", "--label", "laptop")
    key = made.out.decode().strip()
    assert keys.KEY.fullmatch(key), "the key alone is on standard output"
    prefix = key[:19]
    assert prefix in made.err
    with served(read_settings()) as url:
        assert (status(url, key), httpx2.get(f"{url}/v1/jobs", trust_env=False).status_code) == (
            200,
            401,
        )
        until(
            lambda: done("keys", "list", "--json").json["keys"][0]["last_used_at"],
            "the use to be written down",
        )
        rotated = done("keys", "rotate", prefix, "--grace-hours", "1", "--json").json
        assert (rotated["owner"], rotated["replaces"]["prefix"]) == ("ann", prefix)
        assert (status(url, key), status(url, rotated["key"])) == (200, 200)
        assert f"key {prefix} of ann is revoked" in done("keys", "revoke", prefix).err
        until(lambda: status(url, key) == 401, "the service to refuse the key")
        assert status(url, rotated["key"]) == 200
    listed = done("keys", "list").out.decode()
    assert [line.split()[3] for line in listed.splitlines()[1:]] == ["revoked", "live"]
    assert key not in listed


def test_a_key_has_a_scope_and_an_end(home: Path) -> None:
    key = done("keys", "create", "ann", "--scope", "read", "--days", "90", "--json").json
    assert (key["scope"], key["state"]) == ("read", "live")
    assert key["expires_at"] - key["created_at"] == pytest.approx(90 * 86_400, abs=5)
    assert run("keys", "create", "ann", "--scope", "root").code == 2
    assert run("keys", "create", "ann lee").code == 1


def test_a_keys_file_is_imported_once_and_a_bad_line_is_named(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "api_keys"
    file.write_text(
        f"{'a' * 16} ann {'1' * 64}\ngarbage\n{'b' * 16} bob {'2' * 64}  # his second\n"
    )
    first = done("keys", "import", file)
    assert "left out 1 lines" in first.err
    assert "line 2" in first.err
    assert "end a key with `nelbo keys revoke`; delete the file" in first.err
    again = done("keys", "import", "-", "--json", given=file.read_bytes()).json
    assert again == {"stored": 0, "keys": 2, "bad_lines": [2]}
    assert [key["owner"] for key in done("keys", "list", "--json").json["keys"]] == ["ann", "bob"]


def test_what_is_not_there_is_said(home: Path, tmp_path: Path) -> None:
    assert run("keys", "list").code == 3
    assert not home.exists(), "a look makes no database"
    done("keys", "create", "ann")
    assert run("keys", "revoke", "nb_0123456789abcdef").code == 3
    assert run("keys", "rotate", "ann").code == 1
    assert run("keys", "import", tmp_path / "missing").code == 3

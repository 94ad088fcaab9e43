"""doctor."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.nelbo.commands.conftest import Service
from tests.nelbo.commands.running import done, run


def states(found: Any) -> dict[str, str]:
    return {finding["what"]: finding["state"] for finding in found["findings"]}


def test_a_fresh_machine_is_in_order_and_stays_untouched(home: Path) -> None:
    found = states(done("doctor", "--json").json)
    assert "wrong" not in found.values()
    assert (found["database"], found["service"]) == ("note", "note")
    assert not home.exists()


def test_an_open_data_folder_is_named_with_the_command_that_closes_it(home: Path) -> None:
    home.mkdir(mode=0o755)
    ran = run("doctor", "--json")
    [wrong] = [finding for finding in ran.json["findings"] if finding["state"] == "wrong"]
    assert (wrong["what"], wrong["todo"]) == ("privacy", f"chmod -R go= {home}")
    subprocess.run(wrong["todo"].split(), check=True)
    assert "privacy" not in states(done("doctor", "--json").json)


def test_a_running_service_is_in_order(running: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NELBO_HOME", str(running.home))
    found = states(done("doctor", "--json").json)
    assert {found[part] for part in ("database", "storage", "broker", "service")} == {"ok"}


@pytest.mark.parametrize(
    ("variable", "value", "part", "reason", "advice"),
    [
        ("NELBO_URL", "http://127.0.0.1:9", "service", "http://127.0.0.1:9", "NELBO_URL"),
        ("NELBO_BROKER_URL", "redis://127.0.0.1:9/0", "broker", "does not answer", "start it"),
        (
            "NELBO_DATABASE_URL",
            "postgresql://nobody@127.0.0.1:9/none",
            "database",
            "does not answer",
            "NELBO_DATABASE_URL",
        ),
        ("NELBO_HOME", "/dev/null/nelbo", "data folder", "cannot be written", "NELBO_HOME"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do(
    variable: str,
    value: str,
    part: str,
    reason: str,
    advice: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, value)
    ran = run("doctor", "--json")
    assert ran.code == 1
    [wrong] = [finding for finding in ran.json["findings"] if finding["state"] == "wrong"]
    assert wrong["what"] == part
    assert reason in wrong["found"]
    assert advice in wrong["todo"]

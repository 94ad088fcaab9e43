"""models and push: on the service and in the data folder alike."""

import hashlib
import shutil
from pathlib import Path

import pytest

from nelbo.artifact import read_artifact
from tests.nelbo.commands.running import done, run


@pytest.fixture(params=["data folder", "service"])
def place(request: pytest.FixtureRequest) -> str:
    if request.param == "service":
        request.getfixturevalue("service")
    return str(request.param)


def test_versions_are_pushed_shown_promoted_and_deleted(place: str, artifact: Path) -> None:
    name = "with-versions"
    for number in (1, 2):
        pushed = done("push", artifact, "--name", name, "--json").json
        assert (pushed["version"], pushed["state"]) == (number, "ready")
        assert pushed["digest"] == read_artifact(artifact).digest
    assert done("models", "show", name, "--json").json["aliases"] == {"champion": 2}
    assert "is now with-versions@1" in done("models", "promote", f"{name}@1").err
    done("models", "promote", f"{name}@2", "--alias", "candidate")
    [listed] = [
        model for model in done("models", "list", "--json").json["models"] if model["name"] == name
    ]
    assert listed["aliases"] == {"champion": 1, "candidate": 2}
    done("models", "delete", f"{name}@candidate", "--yes")
    assert done("models", "show", name, "--json").json["versions"][0]["version"] == 1
    done("models", "delete", name, "--yes")
    assert name not in done("models", "list").out.decode()
    assert run("models", "show", name).code in (1, 3)


@pytest.mark.usefixtures("service")
def test_a_push_that_the_service_rejects_fails_with_the_reason(
    artifact: Path, tmp_path: Path
) -> None:
    """The folder is whole, but a graph of it is none: only who runs it can tell."""
    folder = shutil.copytree(artifact, tmp_path / "spoilt")
    (folder / "prior.onnx").write_bytes(b"no graph")
    graphs = read_artifact(artifact).manifest.graphs
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(
        text.replace(graphs["prior"].sha256, hashlib.sha256(b"no graph").hexdigest())
    )
    pushed = run("push", folder, "--name", "spoilt", "--json")
    assert pushed.code == 1
    assert "spoilt@1 was rejected: prior.onnx" in pushed.err
    shown = done("models", "show", "spoilt", "--json").json["versions"][0]
    assert (shown["state"], shown["digest"]) == ("rejected", None)


def test_a_model_is_shown_with_its_schema(place: str, artifact: Path) -> None:
    done("push", artifact, "--name", "shown")
    text = done("models", "show", "shown").out.decode()
    assert "champion" in text
    assert ["colour", "categorical", "3"] in [line.split() for line in text.splitlines()]
    assert ["smallest_p_value", "0.01"] in [line.split() for line in text.splitlines()]


def test_a_deletion_that_is_not_confirmed_deletes_nothing(place: str, artifact: Path) -> None:
    done("push", artifact, "--name", "kept")
    assert run("models", "delete", "kept", given=b"n\n").code == 1
    assert "kept" in done("models", "list").out.decode()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["models", "show", "unknown"], 3),
        (["models", "promote", "unknown"], 1),
        (["models", "promote", "unknown@1"], 3),
        (["models", "delete", "unknown@1", "--yes"], 3),
        (["push", "."], 3),
    ],
)
def test_what_is_not_there_is_said(
    place: str, artifact: Path, arguments: list[str], code: int
) -> None:
    done("push", artifact, "--name", "there")
    ran = run(*arguments)
    assert (ran.code, ran.err.count("\n")) == (code, 1), ran.err


def test_a_name_that_no_model_can_have_is_refused(artifact: Path, place: str) -> None:
    for name in ("a/b", "", "-a", "a" * 101, "a@1"):
        assert run("push", artifact, f"--name={name}").code == 1


def test_looking_makes_no_database(home: Path) -> None:
    assert "no models yet" in done("models").err
    assert done("models", "list", "--json").json == {"models": []}
    assert not home.exists()


def test_a_changed_artifact_is_not_registered(artifact: Path, place: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in artifact.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    graph = copy / "score.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    ran = run("push", copy)
    assert ran.code == 1
    assert "score.onnx" in ran.err

"""train and schema."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nelbo.artifact import read_artifact
from nelbo.schema import Schema
from tests.nelbo.commands.running import COMMAND, done, environment, run, table, written

QUICK = "epochs = 1\nmin_steps = 20\nmax_steps = 20\nthreads = 1\n"


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    """A configuration that trains in no time, and badly."""
    path = tmp_path / "run.toml"
    path.write_text(QUICK)
    return path


def test_train_reads_a_pipe_writes_an_artifact_and_registers_it(
    tmp_path: Path, quick: Path, home: Path
) -> None:
    source = written(table(600), tmp_path / "things.csv")
    command = [
        *COMMAND,
        "train",
        "-",
        "--name",
        "things",
        "--config",
        str(quick),
        "--seed",
        "3",
        "--json",
    ]
    env = environment(home)
    ran = subprocess.run(
        command, input=source.read_bytes(), capture_output=True, env=env, cwd=tmp_path, check=False
    )
    assert ran.returncode == 0, ran.stderr.decode()
    found = json.loads(ran.stdout)
    assert (found["model"], found["version"], found["rows"]) == ("things", 1, 600)
    assert read_artifact(tmp_path / "things").digest == found["digest"]
    assert done("push", tmp_path / "things", "--json").json["version"] == 2
    assert (
        done("score", "things@1", source, "-o", "-").out
        == done("score", tmp_path / "things", source, "-o", "-").out
    )


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["absent.csv", "--name", "things"], 3, "no file"),
        (["table.csv", "--name", "a/b"], 1, "name of a model"),
        (["table.csv", "--name", "things", "--config", "absent.toml"], 3, "absent.toml"),
        (["table.csv", "--name", "things", "--seed", "-1"], 2, "--seed"),
        (["table.csv"], 2, "--name"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_sentence(
    arguments: list[str], code: int, words: str, tmp_path: Path, home: Path
) -> None:
    written(table(30), tmp_path / "table.csv")
    ran = subprocess.run(
        [*COMMAND, "train", *arguments],
        capture_output=True,
        env=environment(home),
        cwd=tmp_path,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (code, b""), ran.stderr.decode()
    assert words in ran.stderr.decode()
    assert "Traceback" not in ran.stderr.decode()
    assert not home.exists()


def test_without_torch_train_says_which_extra_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("nelbo.commands.training.find_spec", lambda name: None)
    ran = run("train", written(table(30), tmp_path / "table.csv"), "--name", "things")
    assert ran.code == 1
    assert "nelbo[training]" in ran.err


def test_without_onnx_runtime_score_says_which_extra_is_missing(
    artifact: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("nelbo.engine", "nelbo.sessions"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    ran = run("score", artifact, rows, "-o", "-")
    assert ran.code == 1
    assert "nelbo[engine]" in ran.err


def test_a_schema_is_printed_changed_and_read_again(tmp_path: Path, rows: Path) -> None:
    printed = done("schema", rows)
    assert "looks like an identifier" in printed.err
    found = Schema.model_validate_json(printed.out)
    assert [column.kind for column in found.columns] == [
        "identifier",
        "continuous",
        "categorical",
        "continuous",
        "continuous",
    ]
    done("schema", rows, "--kind", "id=categorical", "-o", tmp_path / "schema.json")
    assert Schema.read(tmp_path / "schema.json").columns[0].kind == "categorical"
    assert json.loads(done("schema", rows, "--json").out) == json.loads(printed.out)


def test_what_a_notice_proposes_is_an_option(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("a title\n\n" + "".join(f"{at},{at % 7}.5\n" for at in range(30)))
    ran = done("schema", file)
    assert [column.name for column in Schema.model_validate_json(ran.out).columns] == [
        "column_1",
        "column_2",
    ]
    assert "--header reads" in ran.err
    assert "--skip-lines 0 reads" in ran.err
    ran = done("schema", file, "--header", "--skip-lines", 2)
    assert [column.name for column in Schema.model_validate_json(ran.out).columns] == ["0", "0.5"]
    assert "--" not in ran.err


@pytest.mark.parametrize(("kind", "code"), [("id", 2), ("id=text", 2), ("absent=integer", 1)])
def test_a_kind_that_makes_no_sense_is_refused(kind: str, code: int, rows: Path) -> None:
    assert run("schema", rows, "--kind", kind).code == code

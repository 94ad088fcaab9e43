"""Commands do no harm: where they cannot end well, one sentence says so and what was there before
is as it was."""

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

from nelbo import cli
from nelbo.commands import training
from nelbo.commands.console import Console
from nelbo.settings import Settings
from tests.nelbo.commands.conftest import Service
from tests.nelbo.commands.running import COMMAND, Ran, done, environment, run, table, written
from tests.nelbo.commands.test_rows import VERBS
from tests.nelbo.files.tables import file_size

WRITING = {
    **{
        name: [name.split()[0], "MODEL", *arguments, "-o", "OUT"]
        for name, arguments in VERBS.items()
    },
    "explain": ["explain", "MODEL", "FILE", "--top", "5", "-o", "OUT"],
    "schema": ["schema", "FILE", "-o", "OUT"],
    "results": ["results", "JOB", "-o", "OUT"],
}
"""Each command that writes a file, in its forms."""
HERE = {name: words for name, words in WRITING.items() if name != "results"}


@pytest.fixture
def made(rows: Path, service: Service) -> str:
    """A generate job that has succeeded."""
    found: str = done("generate", "linear", "--rows", "200", "-o", os.devnull, "--json").json["job"]
    return found


def arguments(
    words: list[str], model: object, file: Path, output: object, job: str = ""
) -> list[str]:
    known = {"MODEL": str(model), "FILE": str(file), "OUT": str(output), "JOB": job}
    return [known.get(word, word) for word in words]


def refused(ran: Ran, words: str, code: int = 1) -> None:
    """One sentence, the exit code, no trace."""
    assert ran.code == code, ran.err
    assert [
        line for line in ran.err.splitlines() if line.startswith("nelbo: ")
    ] == ran.err.splitlines()[-1:]
    assert words in ran.err.splitlines()[-1]
    assert "Traceback" not in ran.err
    assert "internal error" not in ran.err


def check_limit(words: list[str], model: object, rows: Path, folder: Path, job: str = "") -> None:
    (folder / "out.csv").write_text("old")
    with file_size(64):
        refused(
            run(*arguments(words, model, rows, folder / "out.csv", job)),
            "cannot be written: File too large",
        )
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"out.csv": "old"}
    refused(
        run(*arguments(words, model, rows, "/dev/full", job)),
        "/dev/full cannot be written: No space left",
    )
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"out.csv": "old"}


@pytest.mark.parametrize("name", HERE)
def test_a_file_that_may_not_grow_or_a_full_disk_leaves_the_older_file(
    name: str, artifact: Path, rows: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    check_limit(HERE[name], artifact, rows, tmp_path / "out")


def test_results_of_a_service_that_find_no_room_leave_the_older_file(
    rows: Path, made: str, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    check_limit(WRITING["results"], "linear", rows, tmp_path / "out", made)


def check_pipe(words: list[str], model: object, rows: Path, folder: Path, job: str = "") -> None:
    """A named pipe, an open descriptor and a link get the very bytes that a file gets."""
    done(*arguments(words, model, rows, folder / "out.csv", job))
    wanted = (folder / "out.csv").read_bytes()
    (folder / "link").symlink_to("out.csv")
    done(
        *arguments(
            [*words, *(() if words[0] == "schema" else ("--output-format", "csv"))],
            model,
            rows,
            folder / "link",
            job,
        )
    )
    assert (folder / "out.csv").read_bytes() == wanted
    pipe, got = folder / "pipe", list[bytes]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    done(*arguments(words, model, rows, pipe, job))
    reader.join()
    assert got == [wanted]
    with (folder / "open").open("w+b") as file:
        done(*arguments(words, model, rows, f"/dev/fd/{file.fileno()}", job))
        file.seek(0)
        assert file.read() == wanted
    assert (folder / "link").is_symlink()
    assert pipe.is_fifo()


@pytest.mark.parametrize("name", HERE)
def test_pipes_descriptors_and_links_get_what_a_file_gets(
    name: str, artifact: Path, rows: Path, tmp_path: Path
) -> None:
    check_pipe(HERE[name], artifact, rows, tmp_path)


def test_pipes_descriptors_and_links_get_what_a_file_gets_from_a_service(
    rows: Path, made: str, tmp_path: Path
) -> None:
    check_pipe(WRITING["results"], "linear", rows, tmp_path, made)


@pytest.mark.parametrize("name", HERE)
def test_a_reader_that_went_away_is_no_error_to_talk_of(
    name: str,
    artifact: Path,
    rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setattr(sys, "argv", ["nelbo", *arguments(HERE[name], artifact, rows, "-")])
    with suppress(BrokenPipeError), os.fdopen(writing, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        with pytest.raises(SystemExit) as ended:
            cli.command()
    assert ended.value.code == 1
    err = capfd.readouterr().err
    assert "nelbo: " not in err
    assert "BrokenPipe" not in err


def test_a_file_is_scored_into_itself(artifact: Path, rows: Path, tmp_path: Path) -> None:
    done("reconstruct", artifact, rows, "-o", tmp_path / "wanted.csv")
    (tmp_path / "both.csv").write_bytes(rows.read_bytes())
    done("reconstruct", artifact, tmp_path / "both.csv", "-o", tmp_path / "both.csv")
    assert (tmp_path / "both.csv").read_bytes() == (tmp_path / "wanted.csv").read_bytes()


FAILING = [
    "score",
    "score with terms",
    "score with a bound on false discoveries",
    "augment",
    "reconstruct",
    "explain",
]


@pytest.mark.parametrize("name", FAILING)
def test_where_no_row_can_be_done_the_command_fails_and_says_the_most_frequent_reason(
    name: str, artifact: Path, tmp_path: Path
) -> None:
    refused(
        check_no_row(name, artifact, tmp_path),
        "--errors FILE writes the reason for each row to a file",
    )


@pytest.mark.parametrize("name", ["score", "augment", "reconstruct"])
def test_where_a_service_can_do_no_row_the_command_fails_too(
    name: str, service: Service, tmp_path: Path
) -> None:
    check_no_row(name, "linear", tmp_path, "--errors", str(tmp_path / "bad.jsonl"))
    assert [
        json.loads(line)["row"] for line in (tmp_path / "bad.jsonl").read_text().splitlines()
    ] == [0, 1, 2, 3]


def check_no_row(name: str, model: object, folder: Path, *more: str) -> Ran:
    lengths, widths = pa.array(["a", "b", "", "c"]), pa.array(["1", "2", "x", "3"])
    faulty = table(4).set_column(1, "length", lengths).set_column(3, "width", widths)
    bad = written(faulty, folder / "bad.csv")
    (folder / "out.csv").write_text("old")
    ran = run(*arguments(WRITING[name], model, bad, folder / "out.csv"), *more, "--json")
    refused(ran, "none of the 4 rows could be done, so there is no output")
    refused(ran, "Most frequent reason (3 rows): column 'length' holds 'a'")
    assert ran.out == b""
    assert (folder / "out.csv").read_text() == "old"
    return ran


def test_the_results_of_a_job_without_a_row_are_an_error_too(
    service: Service, tmp_path: Path
) -> None:
    bad = written(table(3).set_column(1, "length", pa.array(["a", "b", "c"])), tmp_path / "bad.csv")
    run("score", "linear", bad, "-o", tmp_path / "out.csv")
    [job, *_] = done("jobs", "list", "--limit", 1, "--json").json["jobs"]
    assert (job["state"], job["progress"]["rows_failed"]) == ("succeeded", 3)
    refused(
        run("results", job["id"], "-o", tmp_path / "out.csv"), "none of the 3 rows could be done"
    )
    assert not (tmp_path / "out.csv").exists()


def test_errors_go_through_a_link_and_stay_as_they_were_where_the_command_fails(
    artifact: Path, rows: Path, tmp_path: Path
) -> None:
    (tmp_path / "errors.jsonl").write_text("old")
    (tmp_path / "link").symlink_to("errors.jsonl")
    refused(
        run("score", artifact, rows, "-o", "/dev/full", "--errors", tmp_path / "link"),
        "No space left",
    )
    assert (tmp_path / "errors.jsonl").read_text() == "old"
    done("score", artifact, rows, "-o", os.devnull, "--errors", tmp_path / "link")
    assert (tmp_path / "errors.jsonl").read_text() == ""
    assert (tmp_path / "link").is_symlink()


GERMAN = "größe,farbe\n" + "".join(
    f"{i % 7 + i / 10},{('rot', 'grün', '青')[i % 3]}\n" for i in range(60)
)


def test_letters_that_the_terminal_lacks_are_escaped_and_json_stays_json(
    artifact: Path, rows: Path, tmp_path: Path
) -> None:
    (tmp_path / "größe.csv").write_text(GERMAN, "utf-8")
    (tmp_path / "rows 青.csv").write_bytes(rows.read_bytes())
    wanted = done("schema", tmp_path / "größe.csv").json
    scored = ["score", artifact, tmp_path / "rows 青.csv", "-o", tmp_path / "ü.csv"]
    for more in (["schema", "größe.csv"], ["schema", "größe.csv", "--json"]):
        assert json.loads(done(*more, encoding="ascii").out) == wanted
    assert done(*scored, "--json", encoding="ascii").json["output"] == str(tmp_path / "ü.csv")
    assert r"rows \u9752.csv" in done(*scored, encoding="ascii").err
    assert r"\u9752.csv" in run("score", artifact, "青.csv", "-o", "out.csv", encoding="ascii").err
    env = environment(tmp_path / "home", PYTHONIOENCODING="ascii")
    ran = subprocess.run(
        [*COMMAND, "schema", "größe.csv"], env=env, cwd=tmp_path, capture_output=True, check=True
    )
    assert json.loads(ran.stdout) == wanted


def test_standard_output_that_is_closed_is_an_error_only_where_something_is_printed(
    artifact: Path, tmp_path: Path, home: Path
) -> None:
    made = [*COMMAND, "generate", str(artifact), "--rows", "9", "-o"]
    for target, code in (("-", 1), (str(tmp_path / "out.csv"), 0)):
        ran = subprocess.run(
            [*made, target],
            env=environment(home),
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            preexec_fn=lambda: os.close(1),
        )
        assert ran.returncode == code, ran.stderr
        assert ("standard output cannot be written" in ran.stderr) == bool(code)
        assert "Traceback" not in ran.stderr
    assert (tmp_path / "out.csv").read_text().count("\n") == 10


@pytest.mark.parametrize(
    ("home", "more", "words"),
    [
        ("file/home", {}, "Not a directory"),
        ("x" * 300, {}, "too long"),
        ("home", {"NELBO_DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none"}, "database"),
        ("home", {"NELBO_URL": "http://127.0.0.1:9"}, "no Nelbo service answers"),
    ],
)
def test_what_would_keep_a_model_from_being_registered_is_said_before_it_is_trained(
    home: str,
    more: dict[str, str],
    words: str,
    artifact: Path,
    rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NELBO_HOME", str(tmp_path / home))
    for name, value in more.items():
        monkeypatch.setenv(name, value)
    commands = (["train", rows, "--name", "things"], ["push", artifact])
    for command in commands[
        : 1 if "NELBO_URL" in more else 2
    ]:  # a service that does not answer is asked for seconds
        ran = run(*command)
        refused(ran, words, code=ran.code)
        assert ran.code in (1, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_with_no_room_for_an_artifact_nothing_is_begun(
    artifact: Path, rows: Path, tmp_path: Path
) -> None:
    for command in (["train", rows, "--name", "things"], ["push", artifact]):
        with file_size(100_000):
            refused(run(*command), "ulimit -f")
    done("push", artifact)
    with file_size(100_000):
        refused(run("push", artifact), "ulimit -f")
    assert done("models", "show", "linear", "--json").json["versions"][0]["version"] == 1


def test_a_model_that_cannot_be_registered_after_all_is_said_to_be_in_its_folder(
    artifact: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(Exception, match=r"not a directory|Not a directory") as raised,
        training._kept(artifact, "my model"),
    ):
        training._register(
            artifact, "my model", Settings(home=tmp_path / "file" / "home"), Console()
        )
    message = str(getattr(raised.value, "message", ""))
    assert message.endswith(
        f"the artifact is in {artifact}; `nelbo push {artifact} --name 'my model'` registers it"
    )


@pytest.mark.parametrize("command", [["score"], ["augment"], ["reconstruct"], ["explain"]])
def test_an_output_that_is_also_the_file_of_errors_is_refused(
    command: list[str], artifact: Path, rows: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.csv"
    output.write_text("old")
    ran = run(*command, artifact, rows, "-o", output, "--errors", tmp_path / "." / "out.csv")
    assert ran.code == 1
    assert "both name" in ran.err
    assert output.read_text() == "old"

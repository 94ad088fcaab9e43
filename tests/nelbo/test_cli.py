"""The commands as one app: help that teaches, one sentence for an error, exit codes, pipes."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperCommand, TyperGroup

import nelbo
from nelbo import cli
from nelbo.cli import app
from tests.artifacts import linear_artifact
from tests.deadline import until
from tests.nelbo.commands.running import COMMAND, done, environment, run, table, written
from tests.processes import hear_control_c


def commands(group: TyperGroup, name: str = "") -> Iterator[tuple[str, TyperCommand]]:
    for part, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, f"{name} {part}")
        elif isinstance(command, TyperCommand):
            yield f"{name} {part}".strip(), command


COMMANDS = dict(commands(typer.main.get_group(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_each_command_has_an_example_that_calls_it(name: str) -> None:
    text = done(*name.split(), "--help").out.decode()
    examples = text.partition("Example")[2].partition("Arguments:")[0].partition("Options:")[0]
    assert re.search(rf"nelbo {name}\b", examples), text


@pytest.mark.parametrize("name", COMMANDS)
def test_each_example_uses_options_that_its_command_has(name: str) -> None:
    command = COMMANDS[name]
    known = {
        flag
        for parameter in command.params
        for flag in (*parameter.opts, *parameter.secondary_opts)
    }
    lines = [line for line in (command.help or "").splitlines() if f"nelbo {name}" in line]
    used = {
        flag
        for line in lines
        for flag in re.findall(
            r"\s(--?[a-z][a-z-]*)", line.partition(f"nelbo {name}")[2].partition("|")[0]
        )
    }
    assert lines
    assert used <= known


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_that_answers_can_answer_in_json(name: str) -> None:
    assert name in ("up", "demo") or any(
        "--json" in parameter.opts for parameter in COMMANDS[name].params
    )


def test_the_version_is_that_of_the_package() -> None:
    assert done("--version").out.decode().strip() == nelbo.__version__


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["score", "linear"], 2),
        (["generate", "linear", "--rows", "0", "-o", "-"], 2),
        (["generate", "linear", "--rows", "-5", "-o", "-"], 2),
        (["score", "linear", "rows.csv", "-o", "out.csv", "--alpha", "1"], 2),
        (["score", "linear", "rows.csv", "-o", "-", "--json"], 2),
        (["fly"], 2),
        (["score", "linear", "rows.csv", "-o", "out.csv"], 3),
        (["score", "./linear", "rows.csv", "-o", "out.csv"], 3),
        (["jobs", "show", "0198c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11"], 1),
        (["models", "show", "linear"], 3),
    ],
)
def test_what_goes_wrong_is_said_on_standard_error_with_an_exit_code(
    arguments: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NELBO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    ran = run(*arguments)
    assert ran.code == code, ran.err
    assert ran.out == b""
    assert ran.err
    assert "Traceback" not in ran.err
    assert not (tmp_path / "home").exists()


def test_a_fault_of_nelbo_itself_is_one_sentence_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("lost my way")

    monkeypatch.setattr("nelbo.commands.system.read_settings", fail)
    ran = run("migrate")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "lost my way" in ran.err


@contextmanager
def generating(tmp_path: Path, target: object) -> Iterator[subprocess.Popen[bytes]]:
    """`nelbo generate` that goes on for hours."""
    artifact = linear_artifact(tmp_path / "linear")
    arguments = ["generate", str(artifact), "--rows", "90000000", "-o", str(target)]
    env = environment(tmp_path / "home")
    with subprocess.Popen(
        [*COMMAND, *arguments],
        env=env,
        stdout=subprocess.PIPE,
        preexec_fn=hear_control_c,
        stderr=subprocess.PIPE,
    ) as command:
        try:
            yield command
        finally:
            command.kill()


def test_a_reader_that_goes_away_ends_the_command_quietly(tmp_path: Path) -> None:
    with generating(tmp_path, "-") as command:
        assert command.stdout is not None
        assert command.stderr is not None
        assert command.stdout.readline() == b"id,length,colour,width,weight\n"
        command.stdout.close()
        assert command.stderr.read().decode().splitlines() == ["generating ..."]
        assert command.wait(60) == 1


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_control_c_and_sigterm_end_the_command_quietly_and_leave_no_half_of_a_file(
    stop: signal.Signals, code: int, tmp_path: Path
) -> None:
    target = tmp_path / "out" / "made.csv"
    target.parent.mkdir()
    with generating(tmp_path, target) as command:
        until(
            lambda: list(target.parent.iterdir()) or command.poll() is not None,
            "rows are being written",
        )
        command.send_signal(stop)
        _, err = command.communicate(timeout=60)
    assert err.decode().splitlines() == ["generating ..."]
    assert command.returncode == code
    assert not list(target.parent.iterdir())


def test_a_table_goes_through_pipes(tmp_path: Path) -> None:
    artifact, rows = (
        linear_artifact(tmp_path / "linear"),
        written(table(50), tmp_path / "rows.jsonl"),
    )
    ran = subprocess.run(
        [*COMMAND, "score", str(artifact), "-", "-o", "-", "--output-format", "jsonl"],
        input=rows.read_bytes(),
        capture_output=True,
        env=environment(tmp_path / "home"),
        check=True,
    )
    assert ran.stdout.count(b"\n") == 50
    assert ran.stdout.startswith(b'{"row":0,"nelbo":')


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_list_of_commands_says_of_each_what_its_help_says_first(name: str) -> None:
    command = cli.COMMANDS[name]
    assert command.load(name).get_short_help_str(limit=200) == command.summary


def test_help_and_a_wrong_command_load_no_command() -> None:
    for arguments in (["--help"], ["scor"]):
        program = f"import sys; sys.argv[1:] = {arguments}; from nelbo import cli\n"
        program += "try: cli.main()\nexcept SystemExit: pass\n"
        program += "print('loaded', *(name for name in sys.modules if 'nelbo.commands' in name))"
        ran = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, check=True)
        assert ran.stdout.decode().splitlines()[-1] == "loaded", ran.stdout

"""What holds the code together: who imports whom, what a process loads, and a reference that names
all there is."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperCommand, TyperGroup

from api.app import create_app
from nelbo.cli import app as commands
from nelbo.errors import problem_types
from nelbo.explanation import EXPLAINED
from nelbo.row_repair import REPAIRED
from nelbo.rows import SUSPICIOUS, Scores
from nelbo.settings import Settings, variable

ROOT = Path(__file__).parents[1]
PROGRAMS = ("api.app", "worker.app", "nelbo.cli")
HEAVY = ("torch", "celery", "fastapi", "onnxruntime")
MAY_BE_HEAVY = ("nelbo.engine", "nelbo.sessions", "nelbo.broker")


def modules_of_nelbo() -> Iterator[str]:
    """Every module, by its name. Alembic alone runs the migrations' scripts."""
    for path in sorted((ROOT / "nelbo").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if "migrations" not in parts and parts[-1] != "__main__":
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def first_import_of(forbidden: tuple[str, ...], modules: tuple[str, ...], folder: Path) -> str:
    """Import the modules one by one in a fresh process: the first that loads something forbidden,
    or nothing."""
    program = f"""
import importlib, sys
for name in {modules!r}:
    importlib.import_module(name)
    found = [package for package in {forbidden!r} if package in sys.modules]
    if found:
        sys.exit(name + " loads " + ", ".join(found))
"""
    ran = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.stderr.strip()


def test_the_import_contracts_hold() -> None:
    # Its script, not its module: a process of its own sees no module that the tests have loaded.
    script = Path(sys.executable).parent / "lint-imports"
    ran = subprocess.run(
        [script, "--no-logo"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_api_answers_before_it_loads_the_brokers_library(tmp_path: Path) -> None:
    assert first_import_of(("celery", "kombu", "redis"), ("api.app",), tmp_path) == ""


def test_no_program_but_training_loads_torch(tmp_path: Path) -> None:
    assert first_import_of(("torch",), PROGRAMS, tmp_path) == ""


def test_the_artifact_made_by_hand_needs_no_torch(tmp_path: Path) -> None:
    """So tests of api and worker run where torch is not installed."""
    assert first_import_of(("torch", "sklearn"), ("tests.artifacts",), tmp_path) == ""


def test_every_module_of_nelbo_but_engine_sessions_and_broker_is_light(tmp_path: Path) -> None:
    light = tuple(name for name in modules_of_nelbo() if name not in MAY_BE_HEAVY)
    assert "nelbo" in light
    assert "nelbo.store.ledger" in light
    assert first_import_of(HEAVY, light, tmp_path) == ""


@pytest.mark.parametrize("module", MAY_BE_HEAVY)
def test_engine_sessions_and_broker_are_the_heavy_modules(module: str, tmp_path: Path) -> None:
    """Otherwise the test above proves less than it says."""
    assert "loads" in first_import_of(HEAVY, (module,), tmp_path)


def rows_of(page: str) -> set[str]:
    """The rows of the tables of a page in docs/reference that begin with a name in the program."""
    text = (ROOT / "docs" / "reference" / f"{page}.md").read_text("utf-8")
    return {line for line in text.splitlines() if line.startswith("| `")}


def row(*cells: object) -> str:
    return "| " + " | ".join(str(cell).replace("|", r"\|") for cell in cells) + " |"


def test_the_reference_names_every_setting_with_its_default() -> None:
    defaults = {name: field.get_default() for name, field in Settings.model_fields.items()}
    shown = {
        name: str(value if value or value == 0 else "").replace(str(Path.home()), "~")
        for name, value in defaults.items()
    }
    assert rows_of("settings") == {
        row(f"`{variable(name)}`", f"`{shown[name]}`" if shown[name] else "", field.description)
        for name, field in Settings.model_fields.items()
    }


def test_the_reference_names_every_error() -> None:
    assert rows_of("errors") == {
        row(
            f"`{code}`",
            error.status,
            error.exit_code,
            " ".join((error.__doc__ or "").partition("\n\n")[0].split()),
        )
        for code, error in problem_types().items()
    }


def test_the_reference_names_every_route(tmp_path: Path) -> None:
    paths = create_app(Settings(home=tmp_path)).openapi()["paths"]
    assert rows_of("routes") == {
        row(f"`{method.upper()} {path}`", operation["summary"])
        for path, operations in paths.items()
        for method, operation in operations.items()
    }


def every_command(group: TyperGroup, name: str) -> Iterator[tuple[str, TyperCommand]]:
    for part, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from every_command(command, f"{name} {part}")
        elif isinstance(command, TyperCommand) and not command.hidden:
            yield f"{name} {part}", command


def test_the_reference_names_every_column_of_results() -> None:
    text = (ROOT / "docs" / "reference" / "results.md").read_text("utf-8")
    named = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    tables = (Scores.schema(["COLUMN"]), EXPLAINED, REPAIRED, SUSPICIOUS)
    assert named == [name for table in tables for name in table.names]


def test_the_reference_names_every_command() -> None:
    group = typer.main.get_group(commands)
    assert rows_of("commands") == {
        row(f"`{name}`", command.get_short_help_str(limit=200))
        for name, command in every_command(group, "nelbo")
    }

"""The wheel, installed far from the repository, in a project that has folders of its own called
api, worker and training."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]
DETECT = """
import numpy as np
import api, worker, training
assert (api.MINE, worker.MINE, training.MINE) == (1, 1, 1)
from nelbo import Client, NelboDetector, load
rows = np.random.default_rng(0).normal(size=(300, 3))
detector = NelboDetector().fit(rows)
assert detector.score_samples(rows).shape == (300,)
print(type(detector).__module__)
"""


def run(command: list[object], folder: Path, **environment: str) -> str:
    variables = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    ended = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=variables | environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    run([*build, "--wheel-dir", folder, ROOT], ROOT)
    return next(folder.glob("nelbo-*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel, and with the packages of this one, but not
    with this repository."""
    folder = tmp_path_factory.mktemp("environment")
    run([sys.executable, "-m", "venv", "--without-pip", folder], folder)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
    run([*install, wheel], folder)
    packages = next(folder.glob("lib/*/site-packages"))
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    return python


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("api", "worker", "training"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("MINE = 1\n")
    return tmp_path


def test_it_holds_one_package(wheel: Path) -> None:
    names = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"nelbo"}


def test_python_imports_all_from_nelbo_and_the_project_its_own(python: Path, project: Path) -> None:
    said = run([python, "-c", DETECT], project)
    assert said.split()[-1] == "nelbo.programs.training.estimator"


def test_the_demo_runs_from_it(python: Path, project: Path) -> None:
    said = run([python.with_name("nelbo"), "demo"], project, NELBO_HOME=str(project / "home"))
    assert "stopped what was started" in said

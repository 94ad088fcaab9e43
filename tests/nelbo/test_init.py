"""What users import from nelbo, with and without the packages that it needs."""

import subprocess
import sys
from pathlib import Path

import pytest

import nelbo
from tests.artifacts import linear_artifact

WITHOUT_PACKAGE = """
import sys
import nelbo

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""


def test_an_artifact_is_loaded_into_a_model_and_its_engine(tmp_path: Path) -> None:
    model = nelbo.load(linear_artifact(tmp_path / "artifact"))
    assert len(model.generate(3)) == 3
    assert model.engine.generate(seed=0, first_row=0, rows=3).batch.num_rows == 3


@pytest.mark.parametrize(
    ("package", "statement", "extra"),
    [
        ("onnxruntime", "nelbo.load('artifact')", "engine"),
        ("torch", "nelbo.fit([])", "training"),
        ("torch", "nelbo.NelboDetector", "training"),
        ("torch", "nelbo.NelboSynthesizer", "training"),
        ("torch", "nelbo.NELBO", "training"),
    ],
)
def test_a_missing_package_is_answered_with_the_extra_to_install(
    package: str, statement: str, extra: str
) -> None:
    command = [sys.executable, "-c", WITHOUT_PACKAGE + statement, package]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert "nelbo.errors.MissingExtra: " in ended.stderr
    assert f"pip install 'nelbo[{extra}]'" in ended.stderr


def test_another_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = nelbo.absent

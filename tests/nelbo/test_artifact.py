"""An artifact is whole and unchanged, or it is refused with what to do."""

import json
from pathlib import Path

import pytest

from nelbo.artifact import FORMAT, GRAPHS, read_artifact
from nelbo.errors import InvalidArtifact, NotFound
from tests.artifacts import linear_artifact


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return linear_artifact(tmp_path / "artifact")


@pytest.mark.parametrize("name", GRAPHS)
def test_a_flipped_bit_is_noticed(folder: Path, name: str) -> None:
    graph = folder / f"{name}.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    with pytest.raises(InvalidArtifact, match="changed or damaged"):
        read_artifact(folder)


@pytest.mark.parametrize("name", GRAPHS)
def test_a_missing_graph_is_named(folder: Path, name: str) -> None:
    (folder / f"{name}.onnx").unlink()
    with pytest.raises(InvalidArtifact, match=f"{name}.onnx"):
        read_artifact(folder)


def test_a_newer_format_is_refused_by_its_number(folder: Path) -> None:
    _edit(folder, format=FORMAT + 1, something_new=True)
    with pytest.raises(InvalidArtifact, match=f"format {FORMAT + 1}.*newer Nelbo"):
        read_artifact(folder)


def test_a_damaged_manifest_names_the_field(folder: Path) -> None:
    _edit(folder, latent="two")
    with pytest.raises(InvalidArtifact, match="latent"):
        read_artifact(folder)


def test_a_manifest_that_is_no_json_is_refused(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")
    with pytest.raises(InvalidArtifact, match="damaged"):
        read_artifact(folder)


OUTSIDE = [
    "../score.onnx",
    "/etc/passwd",
    "a/score.onnx",
    "..",
    ".",
    "",
    "a\\score.onnx",
    "C:score.onnx",
    "score.onnx\n",
    ".hidden",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_manifest_cannot_name_a_file_outside_its_folder(folder: Path, name: str) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["graphs"]["score"]["file"] = name
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(
        InvalidArtifact,
        match=r"graphs\.score\.file: .* is not a plain file name, such as score\.onnx",
    ):
        read_artifact(folder)


def test_an_empty_folder_holds_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_artifact(tmp_path)


def _edit(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))

"""The files of an artifact, as training writes them."""

from pathlib import Path

from nelbo.artifact import MANIFEST, read_artifact
from tests.artifacts import linear_artifact
from training.export import READABLE, write_manifest


def test_a_manifest_has_lines_for_people_until_it_is_long(tmp_path: Path) -> None:
    manifest = read_artifact(linear_artifact(tmp_path / "linear")).manifest
    short = write_manifest(tmp_path / "linear", manifest)
    assert short.manifest == manifest
    assert (tmp_path / "linear" / MANIFEST).read_text().count("\n") > 50

    long = manifest.model_copy(update={"config": {"names": ["x" * (READABLE // 500)] * 500}})
    assert write_manifest(tmp_path / "linear", long).manifest == long
    assert (tmp_path / "linear" / MANIFEST).read_text().count("\n") == 1

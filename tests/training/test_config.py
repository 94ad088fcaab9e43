"""Every key of run.toml is in docs/reference/training.md with its default, and no other key."""

import re
from pathlib import Path

import pytest

from nelbo.errors import InvalidInput, NotFound
from training.config import Config


def test_the_reference_lists_every_key_with_its_default() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "training.md"
    lines = re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", page.read_text("utf-8"), re.MULTILINE)
    documented = dict(lines)
    assert documented == {name: str(field.default) for name, field in Config.model_fields.items()}


def test_a_byte_order_mark_in_run_toml_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("epochs = 3 # größer\n", encoding="utf-8-sig")
    assert Config.read(path) == Config(epochs=3)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("epochs = 3\n".encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        (
            "epochs = 3\n# größer\n".encode("cp1252"),
            r"is not UTF-8 text \(line 2\); save it as UTF-8",
        ),
        (b"epochs", "is not TOML"),
        (b"epoch = 3", "epoch: Extra inputs are not permitted; known keys are learning_rate,"),
    ],
)
def test_a_wrong_run_toml_is_told_in_one_sentence(
    content: bytes, words: str, tmp_path: Path
) -> None:
    (tmp_path / "run.toml").write_bytes(content)
    with pytest.raises(InvalidInput, match=rf"run\.toml.* {words}") as caught:
        Config.read(tmp_path / "run.toml")
    assert "\n" not in caught.value.message
    with pytest.raises(NotFound):
        Config.read(tmp_path / "gone.toml")
    with pytest.raises(InvalidInput, match="cannot be read: Is a directory"):
        Config.read(tmp_path)

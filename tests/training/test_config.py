"""Every key of run.toml is in the README with its default, and none that does not exist."""

import re
from pathlib import Path

from training.config import Config


def test_the_readme_lists_every_key_with_its_default() -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    section = text.split("## Training settings", 1)[1].split("\n## ", 1)[0]
    documented = dict(re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", section, flags=re.MULTILINE))
    assert documented == {name: str(field.default) for name, field in Config.model_fields.items()}

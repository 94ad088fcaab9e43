"""The whole measurement runs, at tiny sizes, and keeps what it prints."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.speed.__main__ import MEASUREMENTS
from tests.servers import postgresql_commands

ROOT = Path(__file__).parents[3]


@pytest.mark.system
@pytest.mark.timeout(900)
def test_every_measurement_gives_figures_of_both_sides(tmp_path: Path) -> None:
    kept = tmp_path / "speed.json"
    names = [name for name in MEASUREMENTS if name != "postgresql" or postgresql_commands()]
    only = [f"--only={name}" for name in names]
    ran = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.speed", "--trial", *only, "--json", kept],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4_000:]
    content = json.loads(kept.read_text("utf-8"))
    assert content["machine"]["cores"] > 0
    for line in content["lines"]:
        assert f"| {line['measure']} |" in ran.stdout
        assert all(figure > 0 for figure in (*line["nelbo"], *line["theirs"])), line
        assert bool(line["beside"]) == bool(line["theirs"]), line
        assert line["nelbo"], line
    assert len(content["lines"]) >= 3 * len(names) - 5

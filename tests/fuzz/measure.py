"""Which branches the kept inputs reach: `python -m tests.fuzz.measure FOLDER` reads each reader's
corpus under coverage.py.

The inputs that a guided run keeps are those that reached new code, so that they reach what the run
has reached.
"""

import json
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Branches:
    """How many branches modules have, and how many were taken."""

    taken: int
    all: int

    @property
    def share(self) -> float:
        return self.taken / max(1, self.all)


def branches(report: Path, modules: tuple[str, ...]) -> Branches:
    """Those of modules by a report."""
    files = json.loads(report.read_text())["files"]
    summaries = [files[module]["summary"] for module in modules]
    return Branches(
        sum(one["covered_branches"] for one in summaries),
        sum(one["num_branches"] for one in summaries),
    )


def main() -> None:
    import coverage

    folder = Path(sys.argv[1]).resolve()
    measured = coverage.Coverage(
        branch=True, include=[f"{ROOT}/nelbo/*"], data_file=None, config_file=False
    )
    measured.start()
    from tests.fuzz.readers import READERS

    for name, reader in READERS.items():
        for path in sorted((folder / name / "corpus").glob("*")):
            with tempfile.TemporaryDirectory() as out, warnings.catch_warnings():
                try:
                    reader.read(path.read_bytes(), Path(out))
                except Exception:  # the run before has judged it
                    continue
    measured.stop()
    measured.json_report(outfile=str(folder / "coverage.json"))


if __name__ == "__main__":
    main()

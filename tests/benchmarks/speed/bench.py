"""What all measurements share: the sizes, a folder, a model of Adult and rows for it."""

import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow.parquet as pq

import nelbo
from nelbo.engine import Engine
from nelbo.settings import Settings

ADULT = Path(nelbo.__file__).with_name("data") / "adult-train.parquet"
BRIEF = "epochs = 1\nmin_steps = 60\nmax_steps = 60\n"
"""Training settings: a graph's speed depends on the sizes of the networks alone."""
PIECE = 50_000


@dataclass(frozen=True)
class Sizes:
    """`rows` of the large jobs, `times` that each pair is measured, `mb` of the uploaded CSV file.

    With `trial`, everything is tiny and no figure means anything.
    """

    rows: int = 1_000_000
    times: int = 3
    mb: int = 200
    long: bool = False
    trial: bool = False


@dataclass(frozen=True)
class Bench:
    folder: Path
    sizes: Sizes
    own_model: Path | None = None

    @property
    def processes(self) -> int:
        """The number of processes that score or generate, in the service and beside it."""
        return Settings().worker_processes

    @cached_property
    def model(self) -> Path:
        return self.own_model or train_briefly(ADULT, self.folder / "adult")

    @cached_property
    def engine(self) -> Engine:
        return Engine.load(self.model)

    def rows_file(self, rows: int) -> Path:
        """A Parquet file with this number of rows that the model generated."""
        path = self.folder / f"{rows}.parquet"
        if not path.exists():
            write_rows(self.engine, path, rows)
        return path

    def few_rows(self, rows: int = 100) -> list[dict[str, object]]:
        """Rows as they are sent in the body of a request."""
        cells: list[dict[str, object]] = self.engine.generate(1, 0, rows).batch.to_pylist()
        return cells


def train_briefly(table: Path, out: Path) -> Path:
    config = out.with_suffix(".toml")
    config.write_text(BRIEF)
    options = [f"--name={out.name}", f"--out={out}", f"--config={config}"]
    subprocess.run(
        [sys.executable, "-P", "-m", "training.cli", str(table), *options],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    return out


def write_rows(engine: Engine, path: Path, rows: int) -> None:
    first = engine.generate(1, 0, 1).batch
    with pq.ParquetWriter(path, first.schema) as writer:
        for start in range(0, rows, PIECE):
            writer.write_batch(engine.generate(1, start, min(PIECE, rows - start)).batch)

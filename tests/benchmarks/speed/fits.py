"""What training costs, from a table to an artifact with its report, in CPU seconds."""

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.benchmarks.speed.bench import ADULT, BRIEF, Bench
from tests.benchmarks.speed.starts import run_command
from tests.benchmarks.speed.tables import Shape, write_planted
from tests.benchmarks.speed.turns import Goal, Line, Run, Spread, in_turns

SHAPES = {
    Shape(275, 10, (3, 4, 5, 6, 8, 10, 20)): 10,
    Shape(17_000, 12, (2, 2, 3, 4, 5, 7, 8, 12, 20, 50)): 60,
    Shape(43_000, 7, (5, 7, 8), values=10_000): 60,
    Shape(1_000, 3, (2,) * 1_552): 30,
}
"""Greatest number of CPU seconds, by the shape of the table."""
ADULT_S = 40
TRIAL_ROWS, TRIAL_COLUMNS = 275, 5


def fits(bench: Bench) -> Iterator[Line]:
    """One fit of each table; with `long`, as many as the others are measured."""
    yield fit_line(bench, "Adult", ADULT, ADULT_S)
    for shape, cpu_s in SHAPES.items():
        if bench.sizes.trial:
            few = slice(TRIAL_COLUMNS)
            shape = Shape(TRIAL_ROWS, min(shape.numbers, TRIAL_COLUMNS), shape.categories[few])
        path = bench.folder / "fit.parquet"
        write_planted(shape, path)
        yield fit_line(bench, str(shape), path, cpu_s)


def fit_line(bench: Bench, name: str, table: Path, cpu_s: int) -> Line:
    config = bench.folder / "fit.toml"
    config.write_text(BRIEF if bench.sizes.trial else "")
    times = bench.sizes.times if bench.sizes.long else 1
    [runs] = in_turns(times, partial(fit, table, bench.folder / "fitted", config))
    return Line(
        f"fit, {name}",
        "CPU s",
        [run.cpu_s for run in runs],
        [run.cpu_s for run in runs],
        goal=Goal(greatest=cpu_s, of_ratio=False),
        note=f"{Spread.of(run.figures['s'] for run in runs)} s of the clock",
    )


def fit(table: Path, out: Path, config: Path) -> Run:
    options = ["--name=fitted", f"--out={out}", f"--config={config}"]
    return run_command([sys.executable, "-P", "-m", "training.cli", str(table), *options])

"""How fast Nelbo is, beside the bare work that it cannot do without, as one table.

    python -m tests.benchmarks.speed [--only NAME] [--rows N] [--json FILE]

Both sides of a pair run in turns (A B A B …), --times each. The table has the median of each side,
the least and the greatest figure, the median of the ratios of all turns, and the CPU seconds of all
processes that took part. Machines are shared: the table begins with the load. `docs/explanation/
speed.md` says what each line measures.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.speed.bench import Bench, Sizes
from tests.benchmarks.speed.fits import fits
from tests.benchmarks.speed.graphs import graphs, typed
from tests.benchmarks.speed.jobs import generate, growth, postgresql, score
from tests.benchmarks.speed.polls import polls
from tests.benchmarks.speed.small import small
from tests.benchmarks.speed.starts import starts
from tests.benchmarks.speed.turns import Line, Spread
from tests.benchmarks.speed.uploads import uploads

MEASUREMENTS: dict[str, Callable[[Bench], Iterator[Line]]] = {
    "score": score,
    "postgresql": postgresql,
    "generate": generate,
    "small": small,
    "polls": polls,
    "graphs": graphs,
    "typed": typed,
    "fits": fits,
    "starts": starts,
    "uploads": uploads,
    "growth": growth,
}
TRIAL = Sizes(rows=2_000, times=1, mb=1, trial=True)


def main() -> None:
    options = parse()
    sizes = Sizes(options.rows, options.times, options.mb, options.long)
    start = machine()
    print(start["words"], file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="nelbo-speed-") as folder:
        bench = Bench(Path(folder), TRIAL if options.trial else sizes, options.model)
        lines: list[Line] = []
        try:
            lines.extend(measure(bench, options.only or list(MEASUREMENTS)))
        finally:
            report(start, lines, options.json)


def report(start: dict[str, Any], lines: Sequence[Line], kept: Path | None) -> None:
    """Print the lines that there are, and keep them."""
    print(f"\n{start['words']}\n\n{as_markdown(lines)}")
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        content = {"machine": start, "lines": [line.to_json() for line in lines]}
        kept.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", action="append", choices=list(MEASUREMENTS), help="may be repeated")
    add("--rows", type=int, default=Sizes.rows, help="of the large jobs (default: %(default)s)")
    add("--times", type=int, default=Sizes.times, help="turns of a pair (default: %(default)s)")
    add("--mb", type=int, default=Sizes.mb, help="of the uploaded CSV file (default: %(default)s)")
    add("--long", action="store_true", help="also ten times --rows, and --times fits of each table")
    add("--trial", action="store_true", help="tiny sizes, to see that everything runs")
    add("--model", type=Path, help="folder of an artifact (default: one of Adult, briefly trained)")
    add("--json", type=Path, metavar="FILE", help="keep the figures of all turns")
    return parser.parse_args()


def measure(bench: Bench, names: Sequence[str]) -> Iterator[Line]:
    for name in names:
        began = time.monotonic()
        for line in MEASUREMENTS[name](bench):
            print(f"{line.measure}: {Spread.of(line.ours)} {line.unit}", file=sys.stderr)
            yield line
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)


def machine() -> dict[str, Any]:
    """The machine and its load, also as a sentence."""
    load = os.getloadavg()[0]
    processor = _processor()
    words = (
        f"{processor}, {os.cpu_count()} cores, load {load:.1f} at the start,"
        f" {time.strftime('%Y-%m-%d %H:%M')}, Python {platform.python_version()}"
    )
    return {"processor": processor, "cores": os.cpu_count(), "load": load, "words": words}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def as_markdown(lines: Sequence[Line]) -> str:
    head = ("measure", "unit", "Nelbo", "beside", "ratio", "goal", "met", "CPU s", "what is beside")
    rows = [head, tuple("---" for _ in head), *map(_cells, lines)]
    notes = [f"- {line.measure}: {line.note}" for line in lines if line.note]
    table = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*table, *([""] if notes else []), *notes])


def _cells(line: Line) -> tuple[str, ...]:
    cpu = [str(Spread.of(each)) for each in (line.ours_cpu_s, line.theirs_cpu_s) if each]
    return (
        line.measure,
        line.unit,
        str(Spread.of(line.ours)),
        str(Spread.of(line.theirs)) if line.theirs else "",
        str(line.ratio or ""),
        str(line.goal or ""),
        {None: "", True: "yes", False: "no"}[line.is_met],
        " · ".join(cpu),
        line.beside,
    )


if __name__ == "__main__":
    main()

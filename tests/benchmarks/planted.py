"""How early and how well are planted errors found in new rows, by a model of clean rows?

    python -m tests.benchmarks.planted --data FOLDER [--seeds 0 1 2] [--only NAME ...]
        [--train-options=--quick]

FOLDER is a suite `planted` as tests.benchmarks.planting writes it. Where it has a peers.csv
(columns dataset, method, auroc, ap), figures of peers are taken from there. The others are fitted
in the same run to the same rows, one-hot encoded: the distance to the fifth nearest neighbour, and
an isolation forest.

The first table has AUROC / average precision in percent, and the precision among the first rows, as
many as there are planted errors. `located` is the share of planted errors whose most surprising
cell is in the planted column. A row that Nelbo refuses counts as the most anomalous. `alarms` are
the rows without an error whose p-value is at most alpha: in standard errors above that share, the
mean of the seeds. The tables below have the same by kind of error; recall is among the same first
rows.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from tests.benchmarks.planting import read_original
from tests.benchmarks.ranking import (
    Ranking,
    by_kind,
    by_table,
    collect,
    false_alarms,
    measure,
    peers,
    published,
    train_and_score,
)


def judge(folder: Path, name: str, seeds: list[int], options: list[str]) -> Iterator[pd.DataFrame]:
    """The measures of each method and seed."""
    key = pd.read_csv(folder / f"{name}.key.csv")
    train, test = (read_original(folder / f"{name}{end}").frame for end in (".train.csv", ".csv"))
    files = folder / f"{name}.train.csv", folder / f"{name}.csv"
    others = published(folder / "peers.csv", name)
    yield others.assign(table=name)
    for method, ranking in peers(train, test, seeds[0]).items():
        if method not in set(others["method"]):
            yield judged(ranking, key, name, method)
    for seed in seeds:
        with tempfile.TemporaryDirectory() as work:
            ranking = train_and_score(Path(work), *files, len(test), seed, options)
        yield judged(ranking, key, name, "nelbo").assign(**false_alarms(ranking, key))


def judged(ranking: Ranking, key: pd.DataFrame, name: str, method: str) -> pd.DataFrame:
    return measure(ranking, key).assign(table=name, method=method, refused=ranking.refused)


def tables_of(folder: Path, only: list[str] | None) -> list[str]:
    """The tables of a suite."""
    return only or sorted(path.name.removesuffix(".key.csv") for path in folder.glob("*.key.csv"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--train-options", default="")
    options = parser.parse_args()
    measures: list[pd.DataFrame] = []
    for name in tables_of(options.data, options.only):
        measures += judge(options.data, name, options.seeds, options.train_options.split())
        print(f"{name} judged", flush=True)
    results = collect(measures)
    print("", by_table(results), sep="\n")
    for measured in ("auroc", "recall", "located"):
        print(f"\n{measured} by kind", by_kind(results, measured), sep="\n")


if __name__ == "__main__":
    main()

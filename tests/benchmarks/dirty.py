"""How many planted errors are found in the table that a model is trained on?

    python -m tests.benchmarks.dirty --data FOLDER --with clean|score [--seeds 0 1 2]
        [--only NAME ...] [--train-options=--quick]

FOLDER is a suite `dirty` as tests.benchmarks.planting writes it. `clean` runs `nelbo clean`;
`score` trains a model and scores the same table with it. Where the folder has a peers.csv (columns
dataset, method, auroc, ap, precision_at_planted), figures of peers are taken from there. The others
are fitted in the same run, as in tests.benchmarks.planted, which says how to read the tables.

Two checks, which anyone writes in two lines, are judged beside them:

    check: missing   a cell is missing in a column where less than 0.1 % of the cells are, or one or
                     two
    check: rare      a category that one or two rows hold, in a column of at most 200 categories

A check names some rows. Of these it gets as many as there are planted errors, drawn at random. Each
kind of error where a check has a higher recall than Nelbo is listed at the end.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tests.benchmarks.planted import judged, tables_of
from tests.benchmarks.planting import read_original
from tests.benchmarks.ranking import (
    ALL,
    Ranking,
    as_numbers,
    by_kind,
    by_table,
    collect,
    from_cells,
    peers,
    published,
    run_nelbo,
    train_and_score,
)

CHECK = "check: "
MISSING_SHARE = 0.001
FEW = 2
"""A category or a missing cell is rare in a column if at most this many rows have it."""
MOST_CATEGORIES = 200
BY_CHANCE = 0.1
"""A check that names very many rows may have a recall of this by chance."""


def judge(
    folder: Path, name: str, seeds: list[int], command: str, options: list[str]
) -> Iterator[pd.DataFrame]:
    """The measures of each method and seed."""
    path = folder / f"{name}.csv"
    key = pd.read_csv(folder / f"{name}.key.csv")
    table = read_original(path).frame
    others = published(folder / "peers.csv", name)
    yield others.assign(table=name)
    for method, ranking in (peers(table, None, seeds[0]) | checks(table)).items():
        if method not in set(others["method"]):
            yield judged(ranking, key, name, method)
    for seed in seeds:
        with tempfile.TemporaryDirectory() as work:
            if command == "clean":
                ranking = cleaned(Path(work), path, len(table), seed, options)
            else:
                ranking = train_and_score(Path(work), path, path, len(table), seed, options)
        yield judged(ranking, key, name, "nelbo")


def cleaned(work: Path, path: Path, rows: int, seed: int, options: list[str]) -> Ranking:
    out = work / "suspicious.csv"
    every_row = "--alpha=1"
    run_nelbo(work, "clean", path, f"--output={out}", f"--seed={seed}", every_row, *options)
    return from_cells(pd.read_csv(out), rows)


def checks(table: pd.DataFrame) -> dict[str, Ranking]:
    """The rows that the two checks name, all with the same score."""
    missing = np.zeros(len(table), dtype=bool)
    rare = np.zeros(len(table), dtype=bool)
    for name in table:
        missing |= seldom_missing(table[name])
        rare |= seldom_held(table[name])
    return {
        CHECK + "missing": Ranking(np.where(missing, 1.0, -np.inf), {}),
        CHECK + "rare": Ranking(np.where(rare, 1.0, -np.inf), {}),
    }


def seldom_missing(column: "pd.Series[str]") -> NDArray[np.bool_]:
    empty = (column == "").to_numpy()
    return np.asarray(empty & (empty.sum() <= max(FEW, MISSING_SHARE * len(column))))


def seldom_held(column: "pd.Series[str]") -> NDArray[np.bool_]:
    if as_numbers(column) is not None or column.nunique() > MOST_CATEGORIES:
        return np.zeros(len(column), dtype=bool)
    counts = column.map(column.value_counts())
    return ((column != "") & (counts <= FEW)).to_numpy()


def beaten(results: pd.DataFrame) -> Iterator[str]:
    """Each kind of error of a table where a check has a higher recall than Nelbo, and not by
    chance."""
    results = results[results["kind"] != ALL]
    recall = results.groupby(["table", "kind", "method"])["recall"].mean().unstack("method")
    lines = recall.reset_index().to_dict("records")
    for check in (name for name in recall if str(name).startswith(CHECK)):
        for line in lines:
            if line[check] > max(line["nelbo"] + 1e-9, BY_CHANCE):
                compared = f"{check} {line[check]:.2f}, nelbo {line['nelbo']:.2f}"
                yield f"{line['table']}, {line['kind']}: {compared}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--with", dest="command", choices=["clean", "score"], required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--train-options", default="")
    options = parser.parse_args()
    measures: list[pd.DataFrame] = []
    for name in tables_of(options.data, options.only):
        train_options = options.train_options.split()
        measures += judge(options.data, name, options.seeds, options.command, train_options)
        print(f"{name} judged", flush=True)
    results = collect(measures)
    print("", by_table(results[~results["method"].str.startswith(CHECK)]), sep="\n")
    for measured in ("auroc", "recall", "precision", "located"):
        print(f"\n{measured} by kind", by_kind(results, measured), sep="\n")
    print("\na check has a higher recall than Nelbo in", *beaten(results), sep="\n")


if __name__ == "__main__":
    main()

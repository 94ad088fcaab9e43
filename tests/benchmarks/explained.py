"""Does `nelbo explain` name the wrong cell, and only cells that are wrong?

    python -m tests.benchmarks.explained --data FOLDER [--seed 0] [--only NAME ...]
        [--train-options=--quick]

FOLDER is a suite `planted` as tests.benchmarks.planting writes it. One line for each table:

- `inside` is the share of the 50 oddest rows whose first cell lies inside its own interval, or is
  the expected category; `whole` is the share that no single cell explains.
- `first` is the share of planted errors where the first cell that is shown is the planted one;
  `pair` is the share where it is shown with one that it does not fit. Rows that cannot be read are
  left out, as nothing is explained there.
"""

import argparse
import tempfile
from pathlib import Path

import pandas as pd

from nelbo.explanation import AS_A_WHOLE
from tests.benchmarks.planted import tables_of
from tests.benchmarks.ranking import run_nelbo

ODDEST = 50


def judge(folder: Path, name: str, seed: int, options: list[str]) -> dict[str, float]:
    key = pd.read_csv(folder / f"{name}.key.csv")
    test = folder / f"{name}.csv"
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        model, train = work / "model", folder / f"{name}.train.csv"
        run_nelbo(
            work, "train", train, "--name=judged", f"--out={model}", f"--seed={seed}", *options
        )
        oddest, planted = work / "oddest.parquet", work / "planted.parquet"
        run_nelbo(work, "explain", model, test, f"--top={ODDEST}", f"--output={oddest}")
        rows = [f"--row={row}" for row in key["row"]]
        run_nelbo(work, "explain", model, test, *rows, f"--output={planted}")
        first, named = (pd.read_parquet(path).drop_duplicates("row") for path in (oddest, planted))
    cells = named.merge(key, on="row", suffixes=("", "_planted"))
    is_first = [
        column in planted.split("<>")
        for column, planted in zip(cells["column"], cells["column_planted"], strict=True)
    ]
    return {
        "inside": first.apply(_is_inside, axis=1).mean(),
        "whole": (first["reason"] == AS_A_WHOLE).mean(),
        "first": pd.Series(is_first).mean(),
        "pair": cells["against"].notna().mean(),
        "errors": len(cells),
    }


def _is_inside(cell: "pd.Series[str]") -> bool:
    if cell["value"] is None:
        return False
    if cell["low"] is None:
        return bool(cell["value"] == cell["expected"])
    numbers = pd.to_numeric(cell[["low", "value", "high"]], errors="coerce")
    low, value, high = cell[["low", "value", "high"]] if numbers.isna().any() else numbers
    return bool(low <= value <= high)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--train-options", default="")
    options = parser.parse_args()
    for name in tables_of(options.data, options.only):
        measures = judge(options.data, name, options.seed, options.train_options.split())
        figures = (f"{measure} {value:.2f}" for measure, value in measures.items())
        print(f"{name:24}", *figures, sep="  ", flush=True)


if __name__ == "__main__":
    main()

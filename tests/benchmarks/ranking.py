"""Rank the rows of a mixed table by how anomalous they are, by Nelbo or by a peer, and measure how
early the planted errors come.

A table is read as text; an empty text is a missing cell. The key of planted errors is as
`tests.benchmarks.planting` writes it.
"""

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors

from nelbo.artifact import read_artifact
from tests.benchmarks.planting import are_dates

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
ALL = "all"
"""The name of all kinds of errors together."""
NEIGHBOURS = 5
ALPHAS = (0.01, 0.05)
CATEGORIES = 50
"""Number of categories per column that get a column of their own in the encoding for peers."""


@dataclass(frozen=True)
class Ranking:
    """Scores of all rows, higher = more anomalous; a row with -inf is not named at all. `first` is
    the column of the most surprising cell by row, where the method names cells. `refused` is the
    number of rows without a score; they come first. `p_values` of all rows, where the method has
    them, were counted among so many `calibration_rows`."""

    scores: Floats
    first: dict[int, str]
    refused: int = 0
    p_values: Floats | None = None
    calibration_rows: int = 0


def run_nelbo(work: Path, *arguments: str | Path) -> None:
    """Run a command with the data folder `work`, without a service."""
    environment = {name: value for name, value in os.environ.items() if name != "NELBO_URL"}
    ran = subprocess.run(
        [Path(sys.executable).with_name("nelbo"), *arguments],
        env=environment | {"NELBO_HOME": str(work)},
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise SystemExit(f"nelbo {' '.join(map(str, arguments))}\n{ran.stderr}")


def train_and_score(
    work: Path, train: Path, test: Path, rows: int, seed: int, options: list[str]
) -> Ranking:
    """The ranking of the `rows` rows of `test` by a model of `train`."""
    model, scores = work / "model", work / "scores.parquet"
    run_nelbo(work, "train", train, "--name=judged", f"--out={model}", f"--seed={seed}", *options)
    run_nelbo(work, "score", model, test, f"--output={scores}", "--explain")
    ranking = from_scores(pd.read_parquet(scores), rows)
    calibration = read_artifact(model).manifest.calibration
    return replace(ranking, calibration_rows=len(calibration.scores))


def from_scores(table: pd.DataFrame, rows: int) -> Ranking:
    """The ranking of an output of `nelbo score --explain`: by `surprise` and `surprise_COLUMN`, or
    by `nelbo` and `term_COLUMN` where the version has no surprise."""
    score, prefix = ("surprise", "surprise_") if "surprise" in table else ("nelbo", "term_")
    scores, p_values = np.full((2, rows), np.nan)
    scores[table["row"]] = table[score]
    p_values[table["row"]] = table["p_value"]
    refused = np.isnan(scores)
    scores[refused] = np.nanmax(scores) + 1
    cells = table[[name for name in table if str(name).startswith(prefix)]]
    columns = cells.columns.str.removeprefix(prefix)[cells.to_numpy().argmax(1)]
    first = dict(zip(table["row"].tolist(), columns.tolist(), strict=True))
    return Ranking(scores, first, int(refused.sum()), p_values)


def from_cells(table: pd.DataFrame, rows: int) -> Ranking:
    """The ranking of an output of `nelbo clean`, which has a line per suspicious cell. The row's
    surprise is the highest of its lines; the first of these names the cell."""
    scores = np.full(rows, -np.inf)
    ordered = table.sort_values("surprise", ascending=False, kind="stable")
    firsts = ordered.drop_duplicates("row")
    scores[firsts["row"]] = firsts["surprise"]
    return Ranking(scores, dict(zip(firsts["row"], firsts["column"], strict=True)))


def peers(train: pd.DataFrame, test: pd.DataFrame | None, seed: int) -> dict[str, Ranking]:
    """Rankings of `test` by methods fitted to `train`, or of `train` itself without its own rows as
    neighbours."""
    fitted, judged = one_hot(train, train if test is None else test)
    neighbours = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(fitted)
    distances, _ = neighbours.kneighbors(None if test is None else judged)
    forest = IsolationForest(random_state=seed).fit(fitted)
    return {
        "kNN5": Ranking(distances[:, -1].astype(np.float64), {}),
        "IForest": Ranking(-forest.score_samples(judged), {}),
    }


def one_hot(train: pd.DataFrame, test: pd.DataFrame) -> tuple[Singles, Singles]:
    """Both tables in the same numbers. Numbers and dates (as days) are standardised on `train`,
    missing ones are its mean. The CATEGORIES most frequent categories of a column have a flag each,
    and so have missing cells and categories that `train` does not have."""
    pairs = [_encoded(train[name], test[name]) for name in train]
    fitted, judged = (np.column_stack(columns) for columns in zip(*pairs, strict=True))
    return fitted.astype(np.float32), judged.astype(np.float32)


def _encoded(train: "pd.Series[str]", test: "pd.Series[str]") -> tuple[Floats, Floats]:
    """The columns of one column, for both tables."""
    numbers = as_numbers(train)
    if numbers is None:
        categories = train[train != ""].value_counts().index.to_numpy(str)
        return _flags(train, categories), _flags(test, categories)
    judged = as_days(test) if are_dates(train) else pd.to_numeric(test, errors="coerce")
    deviation = numbers.std(ddof=0)
    fitted, others = (
        (column - numbers.mean()) / (deviation if deviation > 0 else 1.0)
        for column in (numbers, judged)
    )
    return _with_missing(fitted), _with_missing(others)


def _flags(column: "pd.Series[str]", categories: NDArray[np.str_]) -> Floats:
    """Flags of the first CATEGORIES categories, of an unknown one, and of a missing cell."""
    cells = column.to_numpy(str)
    frequent = cells[:, None] == categories[:CATEGORIES]
    missing = cells == ""
    unknown = ~np.isin(cells, categories) & ~missing
    return np.column_stack([frequent, unknown, missing]).astype(np.float64)


def _with_missing(column: "pd.Series[float]") -> Floats:
    return np.column_stack([column.fillna(0), column.isna()]).astype(np.float64)


def as_numbers(column: "pd.Series[str]") -> "pd.Series[float] | None":
    """A column of numbers, or dates as days; None for text and where all cells are missing."""
    if are_dates(column):
        return as_days(column)
    present = pd.to_numeric(column[column != ""], errors="coerce")
    return None if present.isna().any() or present.empty else present.reindex(column.index)


def as_days(column: "pd.Series[str]") -> "pd.Series[float]":
    moments = pd.to_datetime(column, errors="coerce", format="mixed", utc=True)
    return (moments - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)


def measure(ranking: Ranking, key: pd.DataFrame) -> pd.DataFrame:
    """A line per kind of error, and one for all kinds.

    auroc, ap: in percent, without the errors of other kinds. recall: share of these errors among
    the first rows, as many as there are errors in all; for all kinds it is the precision too, where
    a method names as many rows. precision: share of the first rows that have these errors. located:
    share of these errors whose most surprising cell is in the planted column.
    """
    planted = np.isin(np.arange(len(ranking.scores)), key["row"])
    chosen = first_rows(ranking.scores, len(key))
    lowest = np.min(ranking.scores[np.isfinite(ranking.scores)], initial=0.0)
    scores = np.maximum(ranking.scores, lowest - 1)
    lines = {}
    for kind in (ALL, *key["kind"].unique()):
        errors = key if kind == ALL else key[key["kind"] == kind]
        of_kind = np.isin(np.arange(len(scores)), errors["row"])
        kept = of_kind | ~planted
        located = [
            ranking.first[row] in column.split("<>")
            for row, column in zip(errors["row"], errors["column"], strict=True)
            if row in ranking.first
        ]
        lines[kind] = {
            "auroc": 100 * roc_auc_score(of_kind[kept], scores[kept]),
            "ap": 100 * average_precision_score(of_kind[kept], scores[kept]),
            "recall": chosen[of_kind].sum() / len(errors),
            "precision": chosen[of_kind].sum() / max(1.0, chosen.sum()),
            "located": np.mean(located) if located else np.nan,
        }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("kind").reset_index()


def false_alarms(ranking: Ranking, key: pd.DataFrame) -> dict[str, float]:
    """By how many standard errors the share of false alarms is above each alpha, among the rows
    without an error. Calibration rows are as much a sample as those."""
    assert ranking.p_values is not None, "Nelbo's rankings have p-values"
    clean = np.delete(ranking.p_values, key["row"])
    alarms = {}
    for alpha in ALPHAS:
        variance = alpha * (1 - alpha) * (1 / len(clean) + 1 / ranking.calibration_rows)
        alarms[f"alarms {alpha}"] = float((np.mean(clean <= alpha) - alpha) / np.sqrt(variance))
    return alarms


def first_rows(scores: Floats, count: int) -> Floats:
    """1 for the `count` rows with the highest scores, 0 for others. Rows that tie for the last
    ranks share them; rows that are not named have none."""
    limit = np.sort(scores)[-count]
    above = scores > limit
    tied = (scores == limit) & np.isfinite(scores)
    return np.asarray(above + tied * ((count - above.sum()) / max(1, tied.sum())))


def published(path: Path, name: str) -> pd.DataFrame:
    """What a file peers.csv has of a table, in the columns of `measure`."""
    if not path.is_file():
        return pd.DataFrame(columns=["method", "kind", "auroc", "ap", "recall"])
    peers = pd.read_csv(path).rename(columns={"precision_at_planted": "recall"})
    return peers[peers["dataset"] == name].drop(columns="dataset").assign(kind=ALL)


def collect(measures: list[pd.DataFrame]) -> pd.DataFrame:
    """All measures in one table, Nelbo's first."""
    results = pd.concat(measures, ignore_index=True)
    return results.sort_values("method", key=lambda method: method != "nelbo", kind="stable")


def by_table(results: pd.DataFrame) -> str:
    """AUROC / AP and precision at the planted share of each method, a line per table; then the
    share of planted errors that Nelbo locates, the rows that it refuses, and where there are
    p-values its false alarms."""
    overall = results[results["kind"] == ALL]
    means = overall.groupby(["table", "method"], sort=False)[["auroc", "ap", "recall"]].mean()
    cells = means.apply(lambda line: _figures(*line), axis=1).unstack("method")
    cells.loc["mean"] = means.groupby("method").mean().apply(lambda line: _figures(*line), axis=1)
    alarms = [name for name in results.columns.astype(str) if name.startswith("alarms")]
    of_nelbo = overall[overall["method"] == "nelbo"].groupby("table")
    own = of_nelbo[["located", "refused", *alarms]].mean()
    own.loc["mean"] = own.mean()
    cells["located"] = own["located"].map("{:.2f}".format)
    cells["refused"] = own["refused"].map("{:.1f}".format)
    for name in alarms:
        cells[name] = own[name].map("{:+.1f}".format)
    return cells.fillna("").to_string()


def _figures(auroc: float, ap: float, recall: float) -> str:
    shown = "  - " if np.isnan(recall) else f"{recall:.2f}"
    return f"{auroc:5.1f} /{ap:5.1f}  {shown}"


def by_kind(results: pd.DataFrame, column: str) -> str:
    """Means over tables of one measure, a line per method and a column per kind."""
    means = results.groupby(["method", "kind", "table"], sort=False)[column].mean()
    cells = means.groupby(["method", "kind"], sort=False).mean().unstack("kind")
    return str(cells.dropna(how="all").round(3).to_string(na_rep="-"))

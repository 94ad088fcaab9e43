"""Does a classifier gain from made rows of the rare class?

    python -m tests.benchmarks.balanced TABLE:COLUMN... [--seeds 0 1 2 3 4] [--rows 6000]

A TABLE is CSV or Parquet, or an .npz of ADBench, whose anomalies are the rare class. Of at most
--rows rows, 60 % are for training. Rows of the rarest class of COLUMN are added to these until it
is as frequent as the most frequent one:

    none      no rows are added
    SMOTE     imbalanced-learn's SMOTE, or SMOTE-NC where columns are text
    where     `generate --where "COLUMN = CLASS"`
    copies    `augment --keep COLUMN` of the rows of the class

Printed is the balanced accuracy, in percent, of gradient boosting on the other 40 %, all real: mean
over the seeds, and the standard error of its difference to `none`. imbalanced-learn is no
dependency of this project; install it first.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split

import nelbo

from .synthetic import Figures, matrices, read, tidy


def table_of(spec: str) -> tuple[pd.DataFrame, str]:
    """The table and the column of its classes."""
    if spec.endswith(".npz"):
        held = np.load(spec, allow_pickle=True)
        frame = pd.DataFrame(held["X"], columns=[f"c{j}" for j in range(held["X"].shape[1])])
        return frame.assign(label=np.where(held["y"] > 0, "yes", "no")), "label"
    path, _, target = spec.rpartition(":")
    frame = read(Path(path))
    return frame.assign(**{target: frame[target].astype(str)}), target


def judge(frame: pd.DataFrame, target: str, seed: int) -> Figures:
    """The balanced accuracy with each kind of added rows."""
    train, test = train_test_split(frame, test_size=0.4, random_state=seed, stratify=frame[target])
    counts = train[target].value_counts()
    rarest, lacking = str(counts.index[-1]), int(counts.iloc[0] - counts.iloc[-1])
    rare = train[train[target] == rarest]
    model = nelbo.fit(train, seed=seed)
    copies = model.augment(rare, per_row=-(-lacking // len(rare)), keep=[target], seed=seed)
    added = {
        "none": train.iloc[:0],
        "where": model.generate(
            lacking, where=[f'"{target}" = "{rarest}"'], seed=seed, as_="pandas"
        ),
        "copies": copies.sample(lacking, random_state=seed),
    }
    numeric = [str(name) for name in train.select_dtypes("number")]
    figures = {}
    for name, rows in added.items():
        whole = pd.concat([train, rows[train.columns]], ignore_index=True)
        figures[name] = _accuracy(whole, test, target, numeric)
    figures["SMOTE"] = _accuracy(_smote(train, target, numeric, seed), test, target, numeric)
    return figures


def _accuracy(train: pd.DataFrame, test: pd.DataFrame, target: str, numeric: list[str]) -> float:
    features = [name for name in train if name != target]
    frames = [tidy(frame[features], numeric) for frame in (train, test)]
    (x, held_out), categorical = matrices(frames, numeric)
    model = HistGradientBoostingClassifier(categorical_features=categorical, random_state=0)
    answer = model.fit(x, train[target]).predict(held_out)
    return 100 * float(balanced_accuracy_score(test[target], answer))


def _smote(frame: pd.DataFrame, target: str, numeric: list[str], seed: int) -> pd.DataFrame:
    """The table with rows of the rare class between near ones. A missing number is the median."""
    from imblearn.over_sampling import SMOTE, SMOTENC

    features = frame.drop(columns=target)
    features[numeric] = features[numeric].fillna(features[numeric].median())
    text = [str(name) for name in features if name not in numeric]
    features[text] = features[text].astype(object).fillna("<missing>").astype(str)
    near = min(5, int(frame[target].value_counts().iloc[-1]) - 1)
    if text:
        maker = SMOTENC(categorical_features=text, random_state=seed, k_neighbors=near)
    else:
        maker = SMOTE(random_state=seed, k_neighbors=near)
    x, y = maker.fit_resample(features, frame[target])
    made: pd.DataFrame = x.assign(**{target: y})
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="+", metavar="TABLE:COLUMN")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--rows", type=int, default=6_000)
    given = parser.parse_args()
    for spec in given.tables:
        frame, target = table_of(spec)
        figures = pd.DataFrame(
            [
                judge(frame.sample(min(len(frame), given.rows), random_state=seed), target, seed)
                for seed in given.seeds
            ]
        )
        gain = figures.sub(figures["none"], axis=0).std() / np.sqrt(len(figures))
        shown = pd.DataFrame({"mean": figures.mean(), "error of the gain": gain})
        print(spec, shown.round(2).T.to_string(), sep="\n", flush=True)


if __name__ == "__main__":
    main()

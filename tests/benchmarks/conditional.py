"""Rows that are asked for: rows of one class beside real ones, and hidden cells that are filled.

    python -m tests.benchmarks.conditional --train TRAIN --test TEST --target COLUMN [--seed 0]

It trains on TRAIN. All tables are CSV or Parquet.

    auc_CLASS       AUC of gradient boosting that tells rows of `generate --where "COLUMN = CLASS"`
                    from TEST rows of the class; 0.5 = cannot. floor_CLASS: TRAIN rows of the class
                    in their place
    in_CLASS        share of those rows that are in the class
    rmse, accuracy  of one in five cells of TEST rows, hidden at random: root mean squared error of
                    numbers by their standard deviation, and the share of categories that are right.
                    Nelbo's answer is the mean, or the most frequent, of REPEATS of `reconstruct`
    cover_90        share of hidden numbers between the lowest and the highest of these; of 19 draws
                    from the right distribution, nine in ten are
    rows_per_s      rows of the rarest class, beside all rows, in one run of one thread
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer

import nelbo
from nelbo.model import TableModel

from .synthetic import Figures, Floats, detector_auc, read, tidy

REPEATS, HIDDEN, ROWS, FITTED = 19, 0.2, 1_000, 5_000
"""Completions of a row, share of its cells that are hidden, rows to fill, and rows that the other
imputers are fitted to."""
FEWEST, MOST = 100, 5_000
"""TEST rows of a class that is judged."""


def of_classes(
    model: TableModel, train: pd.DataFrame, test: pd.DataFrame, target: str, seed: int
) -> Figures:
    """How far made rows of each class are from real ones."""
    numeric = [str(name) for name in train.select_dtypes("number") if name != target]
    figures: Figures = {}
    for name in test[target].value_counts().index:
        real = test[test[target] == name].head(MOST)
        if len(real) < FEWEST:
            continue
        made = model.generate(len(real), where=[f'"{target}" = "{name}"'], seed=seed, as_="pandas")
        figures[f"in_{name}"] = float((made[target].astype(str) == str(name)).mean())
        beside = train[train[target] == name]
        beside = beside.sample(len(real), replace=len(beside) < len(real), random_state=seed)
        for what, rows in (("auc", made), ("floor", beside)):
            a, b = (tidy(frame.drop(columns=target), numeric) for frame in (real, rows))
            figures[f"{what}_{name}"] = detector_auc(a, b, numeric)
    return figures


def speed(model: TableModel, train: pd.DataFrame, target: str) -> Figures:
    """Rows per second, all of them and those of the rarest class."""
    rarest = train[target].value_counts().index[-1]
    seconds = {}
    for name, where in (("all", []), ("where", [f'"{target}" = "{rarest}"'])):
        model.generate(100, where=where, seed=0, as_="arrow")
        start = time.process_time()
        model.generate(100_000, where=where, seed=1, as_="arrow")
        seconds[name] = time.process_time() - start
    return {f"rows_per_s_{name}": 100_000 / taken for name, taken in seconds.items()}


def filled(
    model: TableModel, train: pd.DataFrame, test: pd.DataFrame, seed: int
) -> dict[str, Figures]:
    """The figures of each imputer."""
    rng = np.random.default_rng(seed)
    test = test.sample(min(ROWS, len(test)), random_state=seed).reset_index(drop=True)
    hidden = (rng.random(test.shape) < HIDDEN) & test.notna().to_numpy()
    given = test.astype(object).mask(hidden)
    for name in train.select_dtypes("number"):
        given[name] = pd.to_numeric(given[name])
    numeric = [str(name) for name in train.select_dtypes("number")]

    start = time.process_time()
    repeats = [model.reconstruct(given, seed=seed + i)[test.columns] for i in range(REPEATS)]
    figures = {"nelbo": _of_repeats(test, hidden, repeats, numeric)}
    figures["nelbo"]["CPU s"] = time.process_time() - start
    imputers = {
        "KNNImputer": KNNImputer(n_neighbors=5),
        "IterativeImputer": IterativeImputer(random_state=seed, max_iter=10),
        "IterativeImputer, forest": IterativeImputer(
            RandomForestRegressor(50, max_depth=12, random_state=seed),
            max_iter=3,
            random_state=seed,
        ),
    }
    for name, imputer in imputers.items():
        start = time.process_time()
        answer = _imputed(imputer, train.sample(min(FITTED, len(train)), random_state=seed), given)
        figures[name] = _errors(test, hidden, answer, numeric)
        figures[name]["CPU s"] = time.process_time() - start
    return figures


def _of_repeats(
    test: pd.DataFrame, hidden: np.ndarray, repeats: list[pd.DataFrame], numeric: list[str]
) -> Figures:
    answer = test.copy()
    covered: list[Floats] = []
    for j, name in enumerate(test.columns):
        draws = pd.concat([frame[name].reset_index(drop=True) for frame in repeats], axis=1)
        if name not in numeric:
            answer[name] = draws.astype(str).mode(axis=1)[0]
            continue
        values = draws.to_numpy(float)
        answer[name] = np.nanmean(values, axis=1)
        low, high = np.nanmin(values, axis=1), np.nanmax(values, axis=1)
        real = test[name].to_numpy(float)
        covered.append(((real >= low) & (real <= high))[hidden[:, j]])
    figures = _errors(test, hidden, answer, numeric)
    return figures | ({"cover_90": float(np.concatenate(covered).mean())} if covered else {})


def _errors(
    test: pd.DataFrame, hidden: np.ndarray, answer: pd.DataFrame, numeric: list[str]
) -> Figures:
    errors, right = [], []
    for j, name in enumerate(test.columns):
        at = hidden[:, j]
        if not at.any():
            continue
        if name in numeric:
            off = (answer[name] - test[name])[at].to_numpy(float)
            errors.append(np.sqrt(np.mean(off**2)) / max(float(test[name].std()), 1e-12))
        else:
            right.append((answer[name].astype(str) == test[name].astype(str))[at].mean())
    return {
        "rmse": float(np.mean(errors or [np.nan])),
        "accuracy": float(np.mean(right or [np.nan])),
    }


def _imputed(imputer: KNNImputer, train: pd.DataFrame, given: pd.DataFrame) -> pd.DataFrame:
    """Numbers standardised, categories as one of many; the most probable one is the answer."""
    numeric = [str(name) for name in train.select_dtypes("number")]
    centre, scale = train[numeric].mean(), train[numeric].std() + 1e-12
    levels = {
        str(name): sorted(train[name].dropna().astype(str).unique())
        for name in train.columns
        if name not in numeric
    }

    def matrix(frame: pd.DataFrame) -> Floats:
        parts = [((frame[numeric] - centre) / scale).to_numpy(float)]
        for name, names in levels.items():
            flags = (frame[name].astype(str).to_numpy()[:, None] == np.array(names, object)) * 1.0
            flags[frame[name].isna().to_numpy()] = np.nan
            parts.append(flags)
        return np.hstack(parts)

    answer = imputer.fit(matrix(train)).transform(matrix(given))
    result = pd.DataFrame(
        answer[:, : len(numeric)] * scale.to_numpy() + centre.to_numpy(), columns=numeric
    )
    at = len(numeric)
    for name, names in levels.items():
        result[name] = np.array(names, object)[answer[:, at : at + len(names)].argmax(1)]
        at += len(names)
    return result[train.columns]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("train", "test"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    train, test = read(given.train), read(given.test)
    model = nelbo.fit(train, seed=given.seed)
    print(pd.Series(of_classes(model, train, test, given.target, given.seed)).round(3).to_string())
    print(pd.Series(speed(model, train, given.target)).round(0).to_string(), flush=True)
    print(pd.DataFrame(filled(model, train, test, given.seed)).T.round(3).to_string(), flush=True)


if __name__ == "__main__":
    main()

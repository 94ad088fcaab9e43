"""Anomaly scores on labelled tables that come with their own split, beside four methods of
scikit-learn.

    python -m tests.benchmarks.odd --data FOLDER [--seed 0] [--only NAME ...]

FOLDER holds a table in each NAME.npz: train float64[n, d] of normal rows, test float64[m, d], and y
in {0, 1} of the test rows, 1 = anomaly. Where it has a peers.csv (columns dataset, method, auroc,
ap), the figures of its methods are taken from there.

Nelbo is NelboDetector with its defaults, on the rows as they are. The others see columns
standardised on the training rows: knn_mean5 (mean squared distance to the 5 nearest training rows),
knn_5th (distance to the fifth), lof (LocalOutlierFactor with 20 neighbours) and iforest
(IsolationForest). Each table is a line: AUROC / average precision in percent of Nelbo, then of the
others, and Nelbo's seconds. Means over all tables follow.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.preprocessing import StandardScaler

from training.estimator import NelboDetector

Floats = NDArray[np.float64]
NEIGHBOURS, LOF_NEIGHBOURS = 5, 20
METHODS = ("nelbo", "knn_mean5", "knn_5th", "lof", "iforest")


def judge(path: Path, seed: int, peers: pd.DataFrame | None) -> pd.DataFrame:
    """AUROC and average precision in percent, each method a row."""
    with np.load(path, allow_pickle=False) as archive:
        train, test, anomalous = archive["train"], archive["test"], archive["y"].ravel() == 1
    scores = {"nelbo": -NelboDetector(random_state=seed).fit(train).score_samples(test)}
    known = (
        None
        if peers is None
        else peers[peers.dataset == path.stem].set_index("method")[["auroc", "ap"]]
    )
    if known is None or known.empty:
        scores |= beside(train, test, seed)
    measures = {"auroc": roc_auc_score, "ap": average_precision_score}
    figures = {
        method: {name: 100 * of(anomalous, score) for name, of in measures.items()}
        for method, score in scores.items()
    }
    judged = pd.DataFrame.from_dict(figures, orient="index")
    return judged if known is None else pd.concat([judged, known])


def beside(train: Floats, test: Floats, seed: int) -> dict[str, Floats]:
    """Scores of the other methods, higher = more anomalous."""
    scaler = StandardScaler().fit(train)
    train, test = scaler.transform(train), scaler.transform(test)
    distances, _ = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(train).kneighbors(test)
    lof = LocalOutlierFactor(n_neighbors=min(LOF_NEIGHBOURS, len(train) - 1), novelty=True).fit(
        train
    )
    return {
        "knn_mean5": np.square(distances).mean(1),
        "knn_5th": distances[:, -1],
        "lof": -lof.score_samples(test),
        "iforest": -IsolationForest(random_state=seed).fit(train).score_samples(test),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+")
    given = parser.parse_args()
    torch.set_num_threads(1)
    known = given.data / "peers.csv"
    peers = pd.read_csv(known) if known.is_file() else None
    print(f"{'table':32}", *(f"{method:>13}" for method in METHODS), "  seconds")
    judged = []
    for path in sorted(
        path for path in given.data.glob("*.npz") if not given.only or path.stem in given.only
    ):
        began = time.monotonic()
        figures = judge(path, given.seed, peers).reindex(METHODS)
        judged.append(figures)
        print(f"{path.stem:32}", *_cells(figures), f"{time.monotonic() - began:9.1f}", flush=True)
    mean = pd.concat(judged).groupby(level=0).mean().reindex(METHODS)
    print(f"{f'mean of {len(judged)} tables':32}", *_cells(mean))


def _cells(figures: pd.DataFrame) -> list[str]:
    return [f"{auroc:6.1f} {ap:6.1f}" for auroc, ap in figures[["auroc", "ap"]].to_numpy()]


if __name__ == "__main__":
    main()

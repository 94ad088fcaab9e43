"""Anomaly scores on labelled tables beside the figures of other methods.

    python -m tests.benchmarks.anomaly --data FOLDER [--seeds 0 1 2] [--only NAME ...]
        [--polluted 0.05 [--contaminated 0.05]] [--exemplars 0]

FOLDER holds ADBench's classical data sets (Han et al. 2022, arXiv:2206.09426) as NAME.npz with X
float64[n, d] and y in {0, 1}, 1 = anomaly, and peers.csv with the columns method, dataset, auroc,
ap.

At most 50,000 rows of a table are taken; its normal rows are shuffled by the seed and halved.
Training sees one half (10,000 rows at most), the test is the other half with all anomalies (20,000
at most, stratified). Columns are standardised on the training rows. With --polluted a share of the
training rows is replaced by anomalies, and those are taken out of the test; four methods of
scikit-learn are fitted to the same rows beside it, as peers.csv holds figures of clean rows alone.
--contaminated is what the detector is told of them: nothing by default; 0 says that all rows are
normal. --exemplars is their weight in the score, in place of 1 for tables of numbers: 0 is the VAE.
"""

import argparse
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.covariance import MinCovDet
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from training.config import Config
from training.estimator import NelboDetector

Floats = NDArray[np.float64]
MAX_ROWS, MAX_TRAIN, MAX_TEST = 50_000, 10_000, 20_000


@dataclass(frozen=True)
class Judged:
    """AUROC and average precision in percent; fit_cpu_s for everything up to a loaded ONNX graph;
    rows_s through it."""

    dataset: str
    seed: int
    auroc: float
    ap: float
    fit_cpu_s: float
    rows_s: float
    rows: int
    columns: int


def judge(path: Path, seed: int, polluted: float, config: Config) -> Judged:
    train, test, anomalous = split(path, seed, polluted)
    detector, began = NelboDetector(random_state=seed, config=config), time.process_time()
    detector.fit(train).score_samples(train[:1])  # which loads the graph
    fitted, clock = time.process_time(), time.perf_counter()
    scores = -detector.score_samples(test)
    seconds = time.perf_counter() - clock
    return Judged(
        dataset=path.stem,
        seed=seed,
        auroc=100 * float(roc_auc_score(anomalous, scores)),
        ap=100 * float(average_precision_score(anomalous, scores)),
        fit_cpu_s=fitted - began,
        rows_s=len(test) / seconds,
        rows=len(train),
        columns=train.shape[1],
    )


def beside(path: Path, seed: int, polluted: float) -> Iterator[dict[str, object]]:
    """The same figures of methods that are at hand, fitted to the same rows."""
    train, test, anomalous = split(path, seed, polluted)
    mixture = GaussianMixture(min(5, max(1, len(train) // 40)), reg_covar=1e-2, random_state=seed)
    near = NearestNeighbors(n_neighbors=5).fit(train)
    scores = {
        "IForest": -IsolationForest(random_state=seed).fit(train).score_samples(test),
        "MCD": _robust_distances(train, test, seed),
        "GMM-5": -mixture.fit(train).score_samples(test),
        "kNNmean5": np.square(near.kneighbors(test)[0]).mean(1),
    }
    for method, score in scores.items():
        auroc, ap = (
            100 * float(measure(anomalous, score))
            for measure in (roc_auc_score, average_precision_score)
        )
        yield {"method": method, "dataset": path.stem, "seed": seed, "auroc": auroc, "ap": ap}


def _robust_distances(train: Floats, test: Floats, seed: int) -> Floats:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there are many where columns depend on each other
        distances: Floats = MinCovDet(random_state=seed).fit(train).mahalanobis(test)
    return distances


def split(path: Path, seed: int, polluted: float = 0.0) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Standardised training rows, test rows, and which of those are anomalies."""
    with np.load(path, allow_pickle=False) as archive:
        x, y = archive["X"].astype(np.float64), archive["y"].ravel() == 1
    order, cap = np.random.RandomState(1000 + seed), np.random.RandomState(seed)
    if len(y) > MAX_ROWS:
        kept = order.choice(len(y), MAX_ROWS, replace=False)
        x, y = x[kept], y[kept]
    normal, odd = order.permutation(np.flatnonzero(~y)), np.flatnonzero(y)
    half = round(0.5 * len(normal))
    train, test = normal[:half], np.append(normal[half:], odd)
    if len(train) > MAX_TRAIN:
        train = cap.choice(train, MAX_TRAIN, replace=False)
    if polluted:
        added = cap.choice(odd, min(round(polluted * len(train)), len(odd) // 2), replace=False)
        train[: len(added)] = added
        test = np.setdiff1d(test, added)
    if len(test) > MAX_TEST:
        anomalies = max(1, round(MAX_TEST * y[test].mean()))
        of_kind = ((test[~y[test]], MAX_TEST - anomalies), (test[y[test]], anomalies))
        test = np.concatenate([cap.choice(rows, count, replace=False) for rows, count in of_kind])
    scaler = StandardScaler().fit(x[train])
    return scaler.transform(x[train]), scaler.transform(x[test]), y[test]


def summary(judged: pd.DataFrame, peers: pd.DataFrame) -> str:
    """Means over the data sets and the mean rank by AUROC, each method a line."""
    peers = peers[peers.dataset.isin(judged.dataset)]
    both = pd.concat([peers, judged.assign(method="Nelbo")])
    by_set = both.groupby(["method", "dataset"])[["auroc", "ap"]].mean().reset_index()
    table = by_set.groupby("method")[["auroc", "ap"]].mean()
    ranks = by_set.pivot(index="dataset", columns="method", values="auroc").rank(
        axis=1, ascending=False
    )
    table["mean rank"] = ranks.mean()
    cost = (
        f"fit: median {judged.fit_cpu_s.median():.1f}, at most {judged.fit_cpu_s.max():.1f} CPU s;"
        f" scoring: median {judged.rows_s.median():,.0f} rows/s"
    )
    return f"{table.sort_values('auroc', ascending=False).round(2).to_string()}\n{cost}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--polluted", type=float, default=0.0)
    parser.add_argument("--contaminated", type=float)
    parser.add_argument("--exemplars", type=float)
    given = parser.parse_args()
    config = Config.quick().model_copy(
        update={"contaminated": given.contaminated, "exemplars": given.exemplars}
    )
    torch.set_num_threads(1)
    paths = sorted(given.data.glob("*.npz"), key=lambda path: int(path.stem.split("_")[0]))
    rows: list[Judged] = []
    peers: list[dict[str, object]] = []
    for seed in given.seeds:
        for path in (path for path in paths if not given.only or path.stem in given.only):
            rows.append(judge(path, seed, given.polluted, config))
            peers.extend(beside(path, seed, given.polluted) if given.polluted else ())
            last = rows[-1]
            print(
                f"{last.dataset:24} seed {seed}  AUROC {last.auroc:6.2f}  AP {last.ap:6.2f} "
                f" {last.rows_s:9,.0f} rows/s",
                flush=True,
            )
    known = pd.DataFrame(peers) if given.polluted else pd.read_csv(given.data / "peers.csv")
    print(summary(pd.DataFrame([asdict(row) for row in rows]), known))


if __name__ == "__main__":
    main()

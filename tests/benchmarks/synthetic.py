"""Synthetic rows beside real ones, with the floors that no honest generator beats.

    python -m tests.benchmarks.synthetic --train TRAIN --test TEST --target COLUMN \\
        [--synthetic MADE | --seeds 0 1 2 [--quick]]

Without --synthetic it trains on TRAIN and generates as many rows. All tables are CSV or Parquet.
`real` is an equally large sample of TEST, drawn with replacement.

    shape, trend    100 x (1 - SDMetrics' column shapes, column pair trends, thresholds 0)
    tails           mean over number columns of the largest difference between the 0.1, 1, 50, 99
    and 99.9 % quantiles of
                    synthetic and TRAIN's numbers, percent of TRAIN's range
    pair_tv         mean total variation over all pairs of columns, numbers in TRAIN's deciles,
    percent
    c2st_train, c2st_test   AUC of gradient boosting that tells synthetic from real rows; 0.5 =
    cannot
    tstr            AUC on TEST after training on synthetic rows (numeric target: of "above the
    median")
    dcr_share, copies       share of synthetic rows nearer to TRAIN than to as many TEST rows; share
    that copies a TRAIN row
    found_S, same_S         of copies that `augment` makes of TRAIN rows at spread S: share whose
    nearest TRAIN row, numbers
                            standardised, is their own source, as a multiple of chance; share that
                            copies a TRAIN row
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import OrdinalEncoder

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Codes = NDArray[np.int64]
Figures = dict[str, float]
QUANTILES = [0.001, 0.01, 0.5, 0.99, 0.999]
COPY, TIE = 1e-3, 1e-4
SOURCES, PER_ROW, SPREADS = 5_000, 4, (0.0, 0.5, 1.0)


def judge(train: pd.DataFrame, test: pd.DataFrame, synthetic: pd.DataFrame, target: str) -> Figures:
    numeric = [str(name) for name in train.select_dtypes("number")]
    train, test, synthetic = (
        tidy(frame[train.columns], numeric) for frame in (train, test, synthetic.iloc[: len(train)])
    )
    return {
        **quality(train, synthetic, numeric),
        "tails": tails(train, synthetic, numeric),
        "pair_tv": pair_total_variation(train, synthetic, numeric),
        "c2st_train": detector_auc(train, synthetic, numeric),
        "c2st_test": detector_auc(test, synthetic, numeric),
        "tstr": utility(train, synthetic, test, numeric, target),
        **nearest_records(train, test, synthetic, numeric),
    }


def tidy(frame: pd.DataFrame, numeric: list[str]) -> pd.DataFrame:
    """Numbers as floats, everything else as text."""
    tidied = frame.astype(object).where(frame.notna(), "<missing>").astype(str)
    for name in numeric:
        tidied[name] = pd.to_numeric(frame[name], errors="coerce").astype(float)
    return tidied.reset_index(drop=True)


def quality(real: pd.DataFrame, synthetic: pd.DataFrame, numeric: list[str]) -> Figures:
    from sdmetrics.reports.single_table import QualityReport

    report = QualityReport()
    report.real_correlation_threshold = report.real_association_threshold = 0
    kinds = {name: {"sdtype": "numerical" if name in numeric else "categorical"} for name in real}
    report.generate(real.copy(), synthetic.copy(), {"columns": kinds}, verbose=False)
    score = report.get_properties().set_index("Property").Score
    return {
        "shape": 100 * (1 - score["Column Shapes"]),
        "trend": 100 * (1 - score["Column Pair Trends"]),
    }


def tails(real: pd.DataFrame, synthetic: pd.DataFrame, numeric: list[str]) -> float:
    differences = [
        np.abs(real[name].quantile(QUANTILES) - synthetic[name].quantile(QUANTILES)).max()
        / np.ptp(real[name].dropna())
        for name in numeric
        if real[name].nunique() > 1
    ]
    return 100 * float(np.mean(differences)) if differences else 0.0


def pair_total_variation(real: pd.DataFrame, synthetic: pd.DataFrame, numeric: list[str]) -> float:
    codes = [_codes(real[name], synthetic[name], name in numeric) for name in real]
    distances = []
    for (real_i, made_i), (real_j, made_j) in combinations(codes, 2):
        p = np.bincount(real_i * 32 + real_j, minlength=1_024) / len(real)
        q = np.bincount(made_i * 32 + made_j, minlength=1_024) / len(synthetic)
        distances.append(np.abs(p - q).sum() / 2)
    return 100 * float(np.mean(distances))


def _codes(
    real: "pd.Series[float]", synthetic: "pd.Series[float]", numeric: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if numeric:
        edges = np.unique(np.quantile(real.dropna(), np.linspace(0, 1, 11)[1:-1]))
        first, second = (
            np.where(part.isna(), len(edges) + 1, np.searchsorted(edges, part, "right"))
            for part in (real, synthetic)
        )
        return first, second
    rank = {value: i for i, value in enumerate(real.value_counts().index[:20])}
    first, second = (part.map(rank).fillna(20).to_numpy(np.int64) for part in (real, synthetic))
    return first, second


def matrices(frames: list[pd.DataFrame], numeric: list[str]) -> tuple[list[Floats], list[bool]]:
    """Numbers first, then categories as ordinals; which columns are categories."""
    text = [name for name in frames[0] if name not in numeric]
    encoder = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=np.nan, max_categories=200
    )
    if text:
        encoder.fit(pd.concat(frames)[text])
    parts = [
        np.hstack(
            [frame[numeric].to_numpy(float), *([encoder.transform(frame[text])] if text else [])]
        )
        for frame in frames
    ]
    return parts, [False] * len(numeric) + [True] * len(text)


def detector_auc(real: pd.DataFrame, synthetic: pd.DataFrame, numeric: list[str]) -> float:
    n = min(len(real), len(synthetic), 20_000)
    (a, b), categorical = matrices(
        [frame.sample(n, random_state=0) for frame in (real, synthetic)], numeric
    )
    order = np.random.RandomState(0).permutation(2 * n)
    x, y = np.vstack([a, b])[order], np.repeat([0, 1], n)[order]
    model = HistGradientBoostingClassifier(
        categorical_features=categorical, early_stopping=False, random_state=0
    ).fit(x[:n], y[:n])
    return float(roc_auc_score(y[n:], model.predict_proba(x[n:])[:, 1]))


def utility(
    real: pd.DataFrame, train: pd.DataFrame, test: pd.DataFrame, numeric: list[str], target: str
) -> float:
    features = [name for name in train if name != target]
    (a, b), categorical = matrices(
        [train[features], test[features]], [name for name in numeric if name != target]
    )
    if target in numeric:
        median = real[target].median()
        y, wanted = (frame[target].to_numpy() > median for frame in (train, test))
    else:
        label = sorted(real[target].unique())[1]
        y, wanted = (frame[target].to_numpy() == label for frame in (train, test))
    if y.min() == y.max():
        return 0.5
    model = HistGradientBoostingClassifier(categorical_features=categorical, random_state=0).fit(
        a, y
    )
    return float(roc_auc_score(wanted, model.predict_proba(b)[:, 1]))


def nearest_records(
    train: pd.DataFrame, test: pd.DataFrame, synthetic: pd.DataFrame, numeric: list[str]
) -> Figures:
    n = min(len(train), len(test))
    frames = [
        frame.sample(size, random_state=0)
        for frame, size in ((train, n), (test, n), (synthetic, min(5_000, len(synthetic))))
    ]
    both = pd.concat(frames[:2])
    low, span = both[numeric].min(), both[numeric].max() - both[numeric].min() + 1e-12
    a, b, made = points(frames, both, low, span)
    to_train, to_test = (
        NearestNeighbors(n_neighbors=1).fit(rows).kneighbors(made)[0].ravel() for rows in (a, b)
    )
    tie = np.abs(to_train - to_test) < TIE
    return {
        "dcr_share": float(((to_train < to_test) & ~tie).mean() + tie.mean() / 2),
        "copies": float((to_train < COPY).mean()),
    }


def points(
    frames: list[pd.DataFrame],
    known: pd.DataFrame,
    centre: "pd.Series[float]",
    scale: "pd.Series[float]",
) -> list[Singles]:
    """Frames in one space: numbers from `centre` in units of `scale`, categories of `known` as one
    of many, 1 from another."""
    columns = [
        [((frame[centre.index].fillna(centre) - centre) / scale).to_numpy(np.float32)]
        for frame in frames
    ]
    for name in (name for name in known if name not in centre.index):
        values = np.array(sorted(known[name].unique()), dtype=object)
        for part, frame in zip(columns, frames, strict=True):
            part.append((frame[name].to_numpy()[:, None] == values).astype(np.float32) / np.sqrt(2))
    return [np.hstack(part) for part in columns]


def nearest_sources(
    train: pd.DataFrame, copies: pd.DataFrame, source: Codes, spread: float
) -> Figures:
    """How often the nearest row of `train` to a copy is the one at `source`, and how often it is
    the copy itself."""
    numeric = [str(name) for name in train.select_dtypes("number")]
    train, copies = (tidy(frame[train.columns], numeric) for frame in (train, copies))
    known, made = points(
        [train, copies], train, train[numeric].mean(), train[numeric].std() + 1e-12
    )
    nearest = (
        NearestNeighbors(n_neighbors=1).fit(known).kneighbors(made, return_distance=False).ravel()
    )
    away, own = (np.linalg.norm(made - known[at], axis=1) for at in (nearest, source))
    return {
        f"found_{spread:g}": float((own < away + TIE).mean() * len(train)),
        f"same_{spread:g}": float((away < COPY).mean()),
    }


def made_by_nelbo(
    train: Path, rows: int, seeds: list[int], quick: bool
) -> Iterator[tuple[str, pd.DataFrame, Figures]]:
    for seed in seeds:
        with tempfile.TemporaryDirectory() as beside:
            model, out = Path(beside) / "model", Path(beside) / "made.parquet"
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            told = ["--name=judged", f"--out={model}", f"--seed={seed}", *["--quick"] * quick]
            _run(sys.executable, "-P", "-m", "training.cli", str(train), *told)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            nelbo = str(Path(sys.executable).with_name("nelbo"))
            _run(
                nelbo, "generate", str(model), f"--rows={rows}", f"--seed={seed}", f"--output={out}"
            )
            size = sum(file.stat().st_size for file in model.glob("*.onnx")) / 2**20
            cost = {"fit CPU s": cpu, "graphs MiB": size}
            yield f"seed {seed}", read(out), cost | augmented(nelbo, model, read(train), seed)


def augmented(nelbo: str, model: Path, train: pd.DataFrame, seed: int) -> Figures:
    """Where copies of training rows lie, at each spread."""
    source = np.random.default_rng(seed).permutation(len(train))[:SOURCES]
    given, out, figures = model / "given.parquet", model / "copies.parquet", Figures()
    train.iloc[source].to_parquet(given, index=False)
    told = [f"--per-row={PER_ROW}", f"--seed={seed}", f"--output={out}"]
    for spread in SPREADS:
        _run(nelbo, "augment", str(model), str(given), f"--spread={spread}", *told)
        copies = read(out)
        figures |= nearest_sources(train, copies, source[copies["row"]], spread)
    return figures


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def read(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("train", "test"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--synthetic", type=Path)
    parser.add_argument("--target", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    train, test = read(given.train), read(given.test)
    table: dict[str, Figures] = {
        "real": judge(
            train, test, test.sample(len(train), replace=True, random_state=1), given.target
        )
    }
    print(pd.DataFrame(table).round(4).T.to_string(), flush=True)
    source = [("given", read(given.synthetic), Figures())] if given.synthetic else None
    for name, made, cost in source or made_by_nelbo(
        given.train, len(train), given.seeds, given.quick
    ):
        table[name] = judge(train, test, made, given.target) | cost
        print(pd.DataFrame({name: table[name]}).round(4).T.to_string(), flush=True)


if __name__ == "__main__":
    main()

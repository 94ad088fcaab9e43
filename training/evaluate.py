"""Evaluation of an exported artifact: the quality of its rows and its scores, measured through the
engine that serves them.

Every measure of synthetic rows stands beside the same measure of fresh real rows: the floor that no
honest generator beats.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from nelbo.encoding import absolute, encode
from nelbo.engine import Engine
from nelbo.schema import Schema

from .data import Rows, Training

MOST_ROWS = 10_000
MOST_PAIRS = 500
DECILES = np.linspace(0, 1, 11)[1:-1]
TOP = 20


@dataclass(frozen=True)
class Evaluation:
    """The metrics, and the rows behind them: `fitted`, `fresh` (not fitted to) and `synthetic`.
    There is a notice for each metric that could not be measured."""

    metrics: dict[str, float]
    fitted: Rows
    fresh: Rows
    synthetic: Rows
    notices: tuple[str, ...] = ()


def evaluate(engine: Engine, training: Training, seed: int) -> Evaluation:
    """Metrics by name; errors are total variation distances in percent, `…_floor` the same for
    equally many fresh real rows.

    nelbo: mean over rows that the model was not fitted to. z_kl: mean KL, the information of z.
    shape_error: mean over columns; pair_error: mean over pairs of columns. detect_auc: how well
    gradient boosting tells synthetic from fresh rows (0.5 = not).
    """
    split = training.split
    few = np.random.default_rng([seed, 5])
    held_out = training.rows.take(np.concatenate([split.stop, split.calibrate]))
    fresh = held_out.take(_some(len(held_out), few))
    fitted = training.rows.take(split.fitted[_some(len(split.fitted), few)])
    generated = encode(engine.generate(seed, 0, len(fresh)).batch, engine.schema)
    costs = engine.costs(fresh.numbers, fresh.codes)

    fitted = _with_dates(fitted, engine.schema)
    fresh = _with_dates(fresh, engine.schema)
    synthetic = _with_dates(Rows(generated.numbers, generated.codes), engine.schema)
    metrics, notices = _measured(
        {
            "nelbo": lambda: float(costs.nelbo.mean()),
            "z_kl": lambda: float(costs.kl.mean()),
            "shape_error": lambda: shape_error(fitted, synthetic),
            "shape_error_floor": lambda: shape_error(fitted, fresh),
            "pair_error": lambda: pair_error(fitted, synthetic),
            "pair_error_floor": lambda: pair_error(fitted, fresh),
            "detect_auc": lambda: detect_auc(fresh, synthetic, seed),
            "detect_auc_floor": lambda: detect_auc(fresh, fitted, seed),
        }
    )
    return Evaluation(metrics, fitted, fresh, synthetic, notices)


def _with_dates(rows: Rows, schema: Schema) -> Rows:
    """Rows whose datetimes are dates again, not the time since another column."""
    return Rows(absolute(rows.numbers, schema), rows.codes)


def _measured(measures: dict[str, Callable[[], float]]) -> tuple[dict[str, float], tuple[str, ...]]:
    """Finite values by name, and a notice for each measure that failed: a trained model is not
    lost because of it."""
    metrics: dict[str, float] = {}
    notices = []
    for name, measure in measures.items():
        try:
            value = measure()
        except Exception as problem:
            reason = f"{type(problem).__name__}: {problem}"
        else:
            if np.isfinite(value):
                metrics[name] = value
                continue
            reason = f"it is not finite ({value})"
        notices.append(f"metric {name} could not be measured: {reason}")
    return metrics, tuple(notices)


def shape_error(real: Rows, other: Rows) -> float:
    """Mean over columns of the total variation distance between two tables' cells, numbers in
    deciles of `real`, in percent."""
    a = _binned(real, real)
    b = _binned(real, other)
    return 100 * float(np.mean([_distance(x, y) for x, y in zip(a, b, strict=True)]))


def pair_error(real: Rows, other: Rows) -> float:
    """The same over pairs of columns (up to MOST_PAIRS of them, evenly chosen), in percent."""
    a = _binned(real, real)
    b = _binned(real, other)
    pairs = list(combinations(range(len(a)), 2)) or [(0, 0)]
    some = pairs[:: -(-len(pairs) // MOST_PAIRS)]
    width = TOP + 2
    distances = [_distance(a[i] * width + a[j], b[i] * width + b[j]) for i, j in some]
    return 100 * float(np.mean(distances))


def detect_auc(real: Rows, other: Rows, seed: int) -> float:
    """Area under the ROC curve of a classifier that learned on half of the rows to tell the two
    tables apart."""
    n = min(len(real), len(other), 5_000)
    x, y = _shuffled(real, other, n, np.random.default_rng([seed, 6]))
    x = x[:, ~np.isnan(x[:n]).all(0)]  # the classifier refuses a column that is empty
    if not x.shape[1] or len(np.unique(y[:n])) < 2 or len(np.unique(y[n:])) < 2:
        return 0.5
    model = HistGradientBoostingClassifier(early_stopping=False, random_state=seed % 2**32)
    with threadpool_limits(1):  # threads that wait for each other slow a busy machine down
        model.fit(x[:n], y[:n])
    return float(roc_auc_score(y[n:], model.predict_proba(x[n:])[:, 1]))


def _shuffled(
    real: Rows, other: Rows, n: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """n rows of each table in a random order, and which of the two each is of."""
    tables = [rows.take(rng.permutation(len(rows))[:n]) for rows in (real, other)]
    order = rng.permutation(2 * n)
    numbers = np.vstack([rows.numbers for rows in tables])
    codes = np.vstack([rows.codes for rows in tables])
    return _ranked(np.hstack([numbers, codes]))[order], np.repeat([0, 1], n)[order]


def _ranked(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each column's values as ranks, which trees tell apart as well, and which cannot overflow; NaN
    stays."""
    ranks = np.column_stack([np.unique(column, return_inverse=True)[1] for column in x.T]).astype(
        np.float64
    )
    return np.where(np.isnan(x), np.nan, ranks)


def _binned(real: Rows, rows: Rows) -> list[NDArray[np.int64]]:
    return [*_number_bins(real, rows), *_category_bins(real, rows)]


def _number_bins(real: Rows, rows: Rows) -> Iterator[NDArray[np.int64]]:
    for reference, values in zip(real.numbers.T, rows.numbers.T, strict=True):
        seen = reference[~np.isnan(reference)]
        deciles = np.quantile(seen, DECILES) if len(seen) else np.empty(0)
        # A value that fills a decile is a bin of its own.
        edges = np.unique([deciles, np.nextafter(deciles, np.inf)])
        yield np.where(np.isnan(values), len(edges) + 1, np.searchsorted(edges, values, "right"))


def _category_bins(real: Rows, rows: Rows) -> Iterator[NDArray[np.int64]]:
    for reference, values in zip(real.codes.T, rows.codes.T, strict=True):
        rank = np.full(max(reference.max(initial=0), values.max(initial=0)) + 1, TOP)
        most = np.argsort(-np.bincount(reference), kind="stable")[:TOP]
        rank[most] = np.arange(len(most))
        yield rank[values]


def _distance(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    size = max(a.max(initial=0), b.max(initial=0)) + 1
    p, q = (np.bincount(codes, minlength=size) / max(1, len(codes)) for codes in (a, b))
    return float(np.abs(p - q).sum() / 2)


def _some(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return np.sort(rng.permutation(n)[:MOST_ROWS])

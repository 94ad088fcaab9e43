"""Evaluation of an exported artifact: the quality of its rows and its scores, measured through the
engine that serves them.

Every measure of synthetic rows has a floor: the same measure between real rows alone, which no
honest generator beats.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from nelbo.encoding import absolute, encode, without_rarer
from nelbo.engine import Engine
from nelbo.schema import Schema

from .associations import associations
from .data import Rows, Training

MOST_ROWS = 10_000
LEAST_SYNTHETIC = 2_000
"""Minimum number of synthetic rows: with as few as a small table holds out, chance would decide."""
LEAST_FRESH = 1_000
"""With fewer held-out rows, the classifier gets all real rows to tell synthetic ones from."""
MOST_DETECTED = 5_000
MOST_PAIRS = 500
MOST_ASSOCIATED = 100
"""Maximum number of columns whose associations are measured."""
SPLITS = 4
DECILES = np.linspace(0, 1, 11)[1:-1]
TOP = 20

Floats = NDArray[np.float64]
Errors = Callable[[Rows, Rows], Floats]
"""How far a table is from the first one, in one figure or in several, such as one per column."""


@dataclass(frozen=True)
class Evaluation:
    """The metrics, and the rows behind them: `fitted`, `fresh` (not fitted to) and `synthetic`.
    There is a notice for each metric that could not be measured."""

    metrics: dict[str, float]
    fitted: Rows
    fresh: Rows
    synthetic: Rows
    notices: tuple[str, ...] = ()

    @property
    def real(self) -> Rows:
        return _joined(self.fitted, self.fresh)

    def errors(self, measure: Errors) -> Floats:
        """The errors of the synthetic rows."""
        return measure(self.fitted, self.synthetic)

    def floors(self, measure: Errors) -> Floats:
        """The errors that as many fresh real rows would have."""
        return errors_of_samples(measure, self.real, len(self.fitted), len(self.synthetic))


def evaluate(engine: Engine, training: Training, seed: int) -> Evaluation:
    """Metrics by name; errors are total variation distances in percent, `…_floor` the same for
    equally many fresh real rows.

    nelbo: mean over rows that the model was not fitted to. z_kl: mean KL, the information of z.
    shape_error: mean over columns; pair_error: mean over pairs of columns. association_error: the
    largest difference between the associations of a pair of columns in real and in synthetic rows.
    detect_auc: how well gradient boosting tells synthetic from real rows (0.5 = not);
    detect_auc_varied: the same without columns in which all synthetic cells are equal, if there are
    any.
    """
    split = training.split
    few = np.random.default_rng([seed, 5])
    held_out = training.rows.take(np.concatenate([split.stop, split.calibrate]))
    fresh = held_out.take(_some(len(held_out), few))
    fitted = training.rows.take(split.fitted[_some(len(split.fitted), few)])
    count = max(LEAST_SYNTHETIC, len(fresh))
    generated = encode(engine.generate(seed, 0, count, identifiers=False).batch, engine.schema)
    costs = engine.costs(fresh.numbers, fresh.codes)

    fitted = _compared(fitted, engine.schema)
    fresh = _compared(fresh, engine.schema)
    synthetic = _compared(Rows(generated.numbers, generated.codes), engine.schema)
    compared = Evaluation({}, fitted, fresh, synthetic)
    measures = {
        "nelbo": lambda: float(costs.nelbo.mean()),
        "z_kl": lambda: float(costs.kl.mean()),
        **_comparisons(compared, seed),
    }
    metrics, notices = _measured(measures)
    return replace(compared, metrics=metrics, notices=notices)


def _comparisons(compared: Evaluation, seed: int) -> dict[str, Callable[[], float]]:
    """The measures of synthetic beside real rows."""
    enough = len(compared.fresh) >= LEAST_FRESH
    detected = (compared.fresh if enough else compared.real), compared.synthetic
    varied = _without_constants(*detected)
    measures: dict[str, Callable[[], float]] = {
        "shape_error": lambda: float(compared.errors(shape_errors).mean()),
        "shape_error_floor": lambda: float(compared.floors(shape_errors).mean()),
        "pair_error": lambda: float(compared.errors(pair_errors).mean()),
        "pair_error_floor": lambda: float(compared.floors(pair_errors).mean()),
        "association_error": lambda: float(compared.errors(association_error).mean()),
        "association_error_floor": lambda: float(compared.floors(association_error).mean()),
        "detect_auc": lambda: detect_auc(*detected, seed),
        "detect_auc_floor": lambda: detect_auc(*_halves(compared.real, 0), seed),
    }
    if _width(varied[0]) < _width(detected[0]):
        measures["detect_auc_varied"] = lambda: detect_auc(*varied, seed)
    return measures


def _width(rows: Rows) -> int:
    return int(rows.numbers.shape[1] + rows.codes.shape[1])


def errors_of_samples(measure: Errors, real: Rows, first: int, second: int) -> Floats:
    """The errors between two samples of the real table with so many rows.

    They are measured between random halves of its rows. Errors fall with a power of the number of
    rows, at most with its square root; quarters of the rows tell with which.
    """
    halves = []
    quarters = []
    for split in range(SPLITS):
        one, other = _halves(real, split)
        halves.append(measure(one, other))
        quarters += [measure(*_halves(half, split)) for half in (one, other)]
    of_halves = np.mean(halves, 0)
    growth = float(np.mean(quarters)) / max(float(np.mean(of_halves)), 1e-12)
    power = min(float(np.log2(max(growth, 1.0))), 0.5)
    sizes = (1 / max(1, first) + 1 / max(1, second)) / (4 / max(1, len(real)))
    return np.asarray(of_halves * sizes**power)


def _halves(rows: Rows, seed: int) -> tuple[Rows, Rows]:
    order = np.random.default_rng([seed, 7]).permutation(len(rows))
    return rows.take(order[: len(rows) // 2]), rows.take(order[len(rows) // 2 :])


def _joined(one: Rows, other: Rows) -> Rows:
    return Rows(
        np.concatenate([one.numbers, other.numbers]), np.concatenate([one.codes, other.codes])
    )


def _compared(rows: Rows, schema: Schema) -> Rows:
    """Rows whose datetimes are dates again, not the time since another column, and whose rarer
    categories are one: as each is in few rows, their shares would differ by chance."""
    return Rows(absolute(rows.numbers, schema), without_rarer(rows.codes, schema))


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


def shape_errors(real: Rows, other: Rows) -> Floats:
    """Total variation distance between two tables' cells of each column, numbers in deciles of
    `real`, in percent."""
    a = _binned(real, real)
    b = _binned(real, other)
    return 100 * np.array([_distance(x, y) for x, y in zip(a, b, strict=True)])


def pair_errors(real: Rows, other: Rows) -> Floats:
    """The same for pairs of columns (up to MOST_PAIRS of them, evenly chosen)."""
    a = _binned(real, real)
    b = _binned(real, other)
    pairs = list(combinations(range(len(a)), 2)) or [(0, 0)]
    some = pairs[:: -(-len(pairs) // MOST_PAIRS)]
    width = TOP + 2
    return 100 * np.array([_distance(a[i] * width + a[j], b[i] * width + b[j]) for i, j in some])


def pair_associations(real: Rows, rows: Rows) -> Floats:
    """The associations [d, d] of the first MOST_ASSOCIATED columns of `rows`: numbers, then
    categories, of which the rarer ones in `real` count as one."""
    numbers = rows.numbers[:, :MOST_ASSOCIATED]
    bins = list(_category_bins(real, rows))[: MOST_ASSOCIATED - numbers.shape[1]]
    levels = np.array(bins, dtype=np.int64).reshape(len(bins), len(rows)).T
    with threadpool_limits(1):  # threads that wait for each other slow a busy machine down
        return associations(numbers, levels)


def association_errors(real: Rows, other: Rows) -> Floats:
    """The differences [d, d] of the associations."""
    return np.abs(pair_associations(real, real) - pair_associations(real, other))


def association_error(real: Rows, other: Rows) -> Floats:
    """The largest difference of an association."""
    return np.array([association_errors(real, other).max()])


def _without_constants(real: Rows, synthetic: Rows) -> tuple[Rows, Rows]:
    """Both tables without the columns in which all synthetic cells are equal."""
    numbers, codes = (
        [len(np.unique(column)) > 1 for column in values.T]
        for values in (synthetic.numbers, synthetic.codes)
    )
    one, other = (
        Rows(rows.numbers[:, numbers], rows.codes[:, codes]) for rows in (real, synthetic)
    )
    return one, other


def detect_auc(real: Rows, other: Rows, seed: int) -> float:
    """Area under the ROC curve of a classifier that learned on half of the rows to tell the two
    tables apart. Of small tables it is the mean over two halves."""
    splits = 1 if min(len(real), len(other)) >= LEAST_FRESH else 2
    return float(np.mean([_detected(real, other, [seed, 6, split]) for split in range(splits)]))


def _detected(real: Rows, other: Rows, seed: list[int]) -> float:
    rng = np.random.default_rng(seed)
    tables = [rows.take(rng.permutation(len(rows))[:MOST_DETECTED]) for rows in (real, other)]
    x = _ranked(_joined(*tables))
    y = np.repeat([0, 1], [len(rows) for rows in tables])
    learned = np.concatenate([np.arange(len(rows)) % 2 == 0 for rows in tables])
    x = x[:, ~np.isnan(x[learned]).all(0)]  # the classifier refuses a column that is empty
    if not x.shape[1] or min(len(np.unique(y[learned])), len(np.unique(y[~learned]))) < 2:
        return 0.5
    model = HistGradientBoostingClassifier(early_stopping=False, random_state=seed[0] % 2**32)
    with threadpool_limits(1):
        model.fit(x[learned], y[learned])
    return float(roc_auc_score(y[~learned], model.predict_proba(x[~learned])[:, 1]))


def _ranked(rows: Rows) -> Floats:
    """Each column's values as ranks, which trees tell apart as well, and which cannot overflow; NaN
    stays."""
    x = np.hstack([rows.numbers, rows.codes])
    ranks = np.empty_like(x)
    for j, column in enumerate(x.T):
        ranks[:, j] = np.unique(column, return_inverse=True)[1]
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
        size = max(reference.max(initial=0), values.max(initial=0)) + 1
        counts = np.bincount(reference, minlength=size)
        rank = np.where(counts > 0, TOP, TOP + 1)  # a code that is new, as missing may be
        most = np.argsort(-counts, kind="stable")[:TOP]
        most = most[counts[most] > 0]
        rank[most] = np.arange(len(most))
        yield rank[values]


def _distance(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    size = max(a.max(initial=0), b.max(initial=0)) + 1
    p, q = (np.bincount(codes, minlength=size) / max(1, len(codes)) for codes in (a, b))
    return float(np.abs(p - q).sum() / 2)


def _some(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return np.sort(rng.permutation(n)[:MOST_ROWS])

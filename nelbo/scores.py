"""P-values of scores, and the threshold at which a row is an anomaly.

Jobs and local commands use the same functions.
"""

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nelbo.artifact import REACH, Manifest, Tail
from nelbo.errors import InvalidInput

Floats = NDArray[np.float64]

_STEPS_PER_OCTAVE = 2.0**8
"""Steps per power of two to which a tail's p-values are rounded up, by less than 0.8 %."""


def p_values(nelbo: Floats, calibration: Floats, tail: Tail | None = None) -> Floats:
    """Conformal p-values (1 + #{calibration >= nelbo}) / (n + 1) (Vovk et al. 2005).

    They are valid for exchangeable rows. `calibration` float64[n] ascends.

    Above its highest score, where counting gives 1 / (n + 1) for every row, the tail multiplies
    this by P(X > nelbo) / P(X > highest). It therefore changes no larger p-value. If the tail is
    the true one, a fraction alpha of the rows is flagged at a smaller alpha too; a tail that
    replaced the counts from its own threshold on would flag more.

    No p-value is 0. They are rounded up, so that any number of rows has at most n + 900 distinct
    p-values.
    """
    n = len(calibration)
    rank = np.searchsorted(calibration, nelbo, side="left")
    values: Floats = np.asarray((1.0 + n - rank) / (n + 1.0))
    if tail is not None:
        beyond = nelbo > calibration[-1]
        share = _beyond(tail, nelbo[beyond]) / _beyond(tail, calibration[-1:])
        mantissa, exponent = np.frexp(np.maximum(share, 1.0 / REACH))
        rounded_up = np.ceil(mantissa * _STEPS_PER_OCTAVE) / _STEPS_PER_OCTAVE
        values[beyond] *= np.minimum(np.ldexp(rounded_up, exponent), 1.0)
    return values


def _beyond(tail: Tail, nelbo: Floats) -> Floats:
    """P(X > nelbo) of the tail: the weighted mean over its components."""
    weight, shape, scale = np.array(tail.components).T
    return np.asarray(pareto_beyond(nelbo[:, None] - tail.threshold, shape, scale) @ weight)


def pareto_beyond(excess: Floats, shape: Floats, scale: Floats) -> Floats:
    """P(X > excess) of the generalised Pareto distribution.

    That is (1 + shape excess / scale) ** (-1 / shape). With a negative shape it ends at -scale /
    shape.
    """
    shape = np.where(np.abs(shape) < 1e-9, 1e-9, shape)
    with np.errstate(divide="ignore", over="ignore"):
        return np.asarray(np.exp(-np.log1p(np.maximum(shape * excess / scale, -1.0)) / shape))


def nelbo_at(manifest: Manifest, percentile: float) -> float:
    """The nelbo that this percentage of held-out rows does not exceed: no bound for 0 and 100.

    Beyond the highest of them, the tail of the surprise goes on.
    """
    if percentile in (0, 100):
        return -math.inf if percentile == 0 else math.inf
    if manifest.surprise is None:  # an older artifact is calibrated by nelbos
        if not manifest.calibration.scores:
            raise InvalidInput(
                "the model has no calibration rows, so it does not know which rows are rare: train"
                " it on more rows"
            )
        return float(np.quantile(manifest.calibration.scores, percentile / 100))
    return manifest.surprise.nelbo.cost_of(-math.log1p(-percentile / 100))


def rows_for(alpha: float) -> int:
    """The smallest number n of calibration rows with 1 / (n + 1) <= alpha.

    With fewer, no count is as small as alpha.
    """
    return math.ceil(1.0 / alpha - 1e-9) - 1


def out_of_reach(alpha: float, fdr: float | None, smallest: float) -> Iterator[str]:
    """A notice where every p-value is too large for a row to be an anomaly."""
    name, limit = ("alpha", alpha) if fdr is None else ("fdr", fdr)
    if limit < smallest:
        yield (
            f"{name} {limit:g} can flag nothing: this model's smallest p-value is {smallest:.2g}."
            f" Use a larger {name}, train on more rows ({rows_for(limit):,} calibration rows are"
            " needed), or set peaks_over_threshold = true in run.toml, which makes p-values up to"
            f" {REACH} times smaller"
        )


def already_known(digest: str | None, trained_on: str | None) -> Iterator[str]:
    """A notice where the rows to score are the model's training table, by their digests."""
    if digest is not None and digest == trained_on:
        yield (
            "the model was trained on these very rows. Their p-values are therefore larger than"
            " those of new rows, and fewer than alpha of them are anomalies. To find the wrong"
            " cells among them, use `nelbo clean`: it judges each row by a model that has not seen"
            " it"
        )


def threshold_of(p_values: Counter[float], alpha: float, fdr: float | None) -> float:
    """alpha, or the threshold that bounds the false discovery rate.

    The latter is the largest p-value p with p <= fdr * #{p-values <= p} / #p-values (Benjamini and
    Hochberg 1995), or 0 where there is none. P-values have few distinct values (`p_values`), so the
    counts take little memory.
    """
    if fdr is None:
        return alpha
    threshold = 0.0
    rank = 0
    total = p_values.total()
    for p_value in sorted(p_values):
        rank += p_values[p_value]
        if p_value * total <= fdr * rank:
            threshold = p_value
    return threshold


def count_p_values(p_values: Counter[float], values: Floats) -> None:
    """Add p-values to their counts."""
    distinct, counts = np.unique(values, return_counts=True)
    p_values.update(dict(zip(distinct.tolist(), counts.tolist(), strict=True)))

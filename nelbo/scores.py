"""P-values of scores, and the threshold that makes a row an anomaly: one place for jobs and for
work in this process."""

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nelbo.artifact import REACH, Tail

Floats = NDArray[np.float64]

_STEPS = 2.0**8
"""P-values of a tail are rounded up to so many steps between a power of two and the next: by less
than 0.8 %."""


def p_values(nelbo: Floats, calibration: Floats, tail: Tail | None = None) -> Floats:
    """Conformal p-values (1 + #{calibration >= nelbo}) / (n + 1), valid for exchangeable rows (Vovk
    et al. 2005).

    `calibration` float64[n] ascends. Above its highest score, where counts say 1 / (n + 1) of every
    row, a tail goes on from there: times P(X > nelbo) / P(X > highest). So it touches no larger
    p-value, and flags alpha of the rows at a smaller alpha too if it is the true one; a tail that
    took the counts' place from its threshold on would flag more. None is 0. They are rounded up, so
    that however many rows have no more than n + 900 of them.
    """
    n = len(calibration)
    found: Floats = np.asarray(
        (1.0 + n - np.searchsorted(calibration, nelbo, side="left")) / (n + 1.0)
    )
    if tail is not None:
        beyond = nelbo > calibration[-1]
        share = _beyond(tail, nelbo[beyond]) / _beyond(tail, calibration[-1:])
        mantissa, exponent = np.frexp(np.maximum(share, 1.0 / REACH))
        found[beyond] *= np.minimum(np.ldexp(np.ceil(mantissa * _STEPS) / _STEPS, exponent), 1.0)
    return found


def _beyond(tail: Tail, nelbo: Floats) -> Floats:
    """The share of the excesses that lies beyond: the mean over what the tail's parameters may
    be."""
    weight, shape, scale = np.array(tail.components).T
    return np.asarray(pareto_beyond(nelbo[:, None] - tail.threshold, shape, scale) @ weight)


def pareto_beyond(excess: Floats, shape: Floats, scale: Floats) -> Floats:
    """P(X > excess) of the generalised Pareto distribution, (1 + shape excess / scale) ** (-1 /
    shape); one with a negative shape ends at -scale / shape."""
    shape = np.where(np.abs(shape) < 1e-9, 1e-9, shape)
    with np.errstate(divide="ignore", over="ignore"):
        return np.asarray(np.exp(-np.log1p(np.maximum(shape * excess / scale, -1.0)) / shape))


def rows_for(alpha: float) -> int:
    """Calibration rows without which no count is as small as alpha: 1 / (n + 1) <= alpha."""
    return math.ceil(1.0 / alpha - 1e-9) - 1


def out_of_reach(alpha: float, fdr: float | None, smallest: float) -> Iterator[str]:
    """A notice where no row can be an anomaly, whatever it holds, as no p-value is small enough."""
    name, limit = ("alpha", alpha) if fdr is None else ("fdr", fdr)
    if limit < smallest:
        yield (
            f"no row can be an anomaly at {name} {limit:g}: the smallest p-value of this model is"
            f" {smallest:.2g}. What helps is"
            f" a larger {name}, more rows to train on ({rows_for(limit):,} of them to calibrate"
            " with), or peaks_over_threshold"
            f" in run.toml, which extends p-values to a {REACH}th of what counts can say"
        )


def already_known(digest: str | None, trained_on: str | None) -> Iterator[str]:
    """A notice where the rows to score are the very table that the model was trained on, by their
    digests."""
    if digest is not None and digest == trained_on:
        yield (
            "these are the rows that the model was trained on. It knows them: their p-values are"
            " larger than those of new rows,"
            " and fewer than alpha of them are anomalies. To find anomalies among them, train on"
            " one part of the table and"
            " score the other part, then the other way round"
        )


def threshold_of(p_values: Counter[float], alpha: float, fdr: float | None) -> float:
    """alpha or, to bound the false discovery rate, the largest p-value p with p <= fdr * #{p-values
    <= p} / #p-values (Benjamini and Hochberg 1995), 0 where there is none. P-values have few
    distinct values (p_values): memory is small."""
    if fdr is None:
        return alpha
    threshold, rank, total = 0.0, 0, p_values.total()
    for p_value in sorted(p_values):
        rank += p_values[p_value]
        if p_value * total <= fdr * rank:
            threshold = p_value
    return threshold


def count(p_values: Counter[float], found: Floats) -> None:
    """Add p-values to their counts."""
    p_values.update(
        dict(zip(*(part.tolist() for part in np.unique(found, return_counts=True)), strict=True))
    )

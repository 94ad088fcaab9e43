"""The tail of the calibration scores: peaks over a threshold, which give smaller p-values than
counts can.

Excesses over a high threshold are approximately generalised Pareto distributed, whatever the scores
are (Balkema & de Haan 1974, Pickands 1975). That is an assumption, so it is checked, and where the
check fails p-values stay counts.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nelbo.artifact import Calibration, Tail
from nelbo.scores import pareto_beyond

Floats = NDArray[np.float64]

ONE_IN = 20
"""The excesses are those of the highest twentieth: over the 95th percentile."""
MIN_EXCESSES = 50
"""With fewer, the shape is uncertain by more than 0.15, and three times alpha is flagged at a
hundredth of the smallest p-value of counts."""
LEVEL = 0.05
REPLICATES = 499
CANDIDATES = 30


def with_tail(calibration: Calibration, seed: int) -> Calibration:
    """The calibration with its tail, used or not; without one where there are too few excesses."""
    scores = np.array(calibration.scores)
    above = len(scores) // ONE_IN
    if above < MIN_EXCESSES:
        return calibration
    threshold = scores[-1 - above]
    excess = scores[scores > threshold] - threshold
    if len(excess) < MIN_EXCESSES:
        return calibration
    p_value = goodness_of_fit(excess, np.random.default_rng([seed, 7]))
    tail = {
        "threshold": threshold,
        "excesses": len(excess),
        "components": np.stack(posterior(excess), axis=1).tolist(),
        "fit": p_value,
        "used": p_value > LEVEL,
    }
    return calibration.model_copy(update={"tail": Tail.model_validate(tail)})


def notices(calibration: Calibration) -> Iterator[str]:
    """Why a tail that was asked for is not used."""
    why = None
    if calibration.tail is None:
        why = (
            f"fewer than {MIN_EXCESSES} of {len(calibration.scores):,} calibration scores lie"
            " over their 95th percentile"
        )
    elif not calibration.tail.used:
        why = (
            f"no generalised Pareto distribution fits the {calibration.tail.excesses:,} calibration"
            " scores over their 95th"
            f" percentile (Anderson-Darling, p = {calibration.tail.fit_p_value:.2g})"
        )
    if why:
        yield f"peaks_over_threshold: {why}; p-values are counts alone"


def posterior(excess: Floats) -> tuple[Floats, Floats, Floats]:
    """Weight, shape and scale [CANDIDATES] each: the posterior of the parameters, given ascending
    excesses (Zhang & Stephens 2009).

    A p-value that is averaged over it flags about alpha of the rows; one from the best parameters
    alone flags up to ten times as many.
    """
    quartile = excess[(len(excess) + 2) // 4 - 1]
    highest = excess[-1]
    steps = 1 - np.sqrt(CANDIDATES / (np.arange(CANDIDATES) + 0.5))
    return _profile(1 / highest + steps / (3 * quartile), excess)


def goodness_of_fit(excess: Floats, rng: np.random.Generator) -> float:
    """P-value of Anderson and Darling's statistic. Fitted parameters change its distribution, so it
    is compared with the statistics of samples drawn from the fitted distribution, each fitted again
    (parametric bootstrap, Stute et al. 1993)."""
    shape, scale = best(excess)
    statistic = _anderson_darling(excess, shape, scale)
    higher = 0
    for _ in range(REPLICATES):
        sample = np.sort(scale * np.expm1(-shape * np.log(rng.random(len(excess)))) / shape)
        higher += _anderson_darling(sample, *best(sample)) >= statistic
    return (1 + higher) / (1 + REPLICATES)


def best(excess: Floats) -> tuple[float, float]:
    """Shape and scale of the one distribution at the mean of what may be."""
    weight, shape, scale = posterior(excess)
    _, at, size = _profile(np.array([weight @ (-shape / scale)]), excess)
    return float(at[0]), float(size[0])


def _profile(b: Floats, excess: Floats) -> tuple[Floats, Floats, Floats]:
    """Weight, shape and scale where -shape / scale is b [m]: the likeliest shape given b, weighted
    by its likelihood."""
    shape = np.log1p(-b[:, None] * excess).mean(1)
    log_likelihood = len(excess) * (np.log(-b / shape) - shape - 1)
    weight = np.exp(log_likelihood - log_likelihood.max())
    return weight / weight.sum(), shape, -shape / b


def _anderson_darling(excess: Floats, shape: float, scale: float) -> float:
    n = len(excess)
    beyond = np.clip(pareto_beyond(excess, np.array(shape), np.array(scale)), 1e-300, 1 - 1e-16)
    return float(-n - (2 * np.arange(n) + 1) @ (np.log1p(-beyond) + np.log(beyond[::-1])) / n)

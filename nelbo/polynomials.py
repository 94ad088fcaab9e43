"""Polynomials of one number or more: their terms, and how they are fitted to rows.

Cells are float64[n, S + 1]: the numbers of a polynomial, then its target; NaN where missing.
"""

import numpy as np
from numpy.typing import NDArray

from nelbo.rules import FARTHEST, MAX_FIGURES, Polynomial, terms_of

Floats = NDArray[np.float64]


def polynomial_terms(sources: Floats, centre: Floats, scale: Floats) -> Floats:
    """float64[n, T]: the terms of a polynomial, from its numbers float64[n, S]."""
    standardised = np.clip((sources - centre) / scale, -FARTHEST, FARTHEST)
    columns = [standardised[:, list(term)].prod(axis=1) for term in terms_of(sources.shape[1])]
    return np.column_stack(columns)


def curve_of(cells: Floats) -> Polynomial:
    """The polynomial of all columns of cells but the last, which is nearest to that."""
    cells = cells[~np.isnan(cells).any(1)]
    target = cells[:, -1]
    centre, scale = standards_of(cells[:, :-1])
    x = polynomial_terms(cells[:, :-1], centre, scale)
    weights = weights_of(x, target)
    left = np.quantile(target - x @ weights, np.linspace(0, 1, MAX_FIGURES))
    return Polynomial(
        centre=tuple(centre.tolist()),
        scale=tuple(scale.tolist()),
        weights=tuple(weights.tolist()),
        left=tuple(left.tolist()),
        lowest=float(target.min()),
        highest=float(target.max()),
    )


def standards_of(sources: Floats) -> tuple[Floats, Floats]:
    """The centre and the scale of each column."""
    scale = sources.std(axis=0)
    return np.median(sources, axis=0), np.where(scale > 0, scale, 1.0)


def weights_of(x: Floats, target: Floats) -> Floats:
    """The weights of terms x float64[n, T] by least squares; the twentieth of the rows that is
    farthest off does not count."""
    off = np.abs(target - x @ np.linalg.lstsq(x, target, rcond=None)[0])
    near = off <= np.quantile(off, 0.95)
    return np.asarray(np.linalg.lstsq(x[near], target[near], rcond=None)[0])

"""Polynomials of one number or more."""

import numpy as np
from numpy.typing import NDArray

from nelbo.rules import FARTHEST, terms_of

Floats = NDArray[np.float64]


def polynomial_terms(sources: Floats, centre: Floats, scale: Floats) -> Floats:
    """float64[n, T]: the terms of a polynomial, from its numbers float64[n, S]."""
    standardised = np.clip((sources - centre) / scale, -FARTHEST, FARTHEST)
    columns = [standardised[:, list(term)].prod(axis=1) for term in terms_of(sources.shape[1])]
    return np.column_stack(columns)

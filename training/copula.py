"""Where the decoder of a wide table of few rows begins: a Gaussian copula, in closed form.

Each ordered column is a normal score s_j of its rank. The scores' correlations are shrunk towards 0
by a rule from rows and columns (Ledoit & Wolf 2004), so all columns share what is known of the
noise. Their Cholesky factor gives the regression of each score on those before it,

    s_j = Σ_{i<j} B_ji s_i + noise of variance v_j,

and with it logits of the column's codes: (m s − s² / 2) / v + s² / 2 for the mean m that the codes
before it tell. Gradient steps begin there, instead of from random weights that a few hundred steps
would first have to forget.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.covariance import ledoit_wolf
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from .decoder import Decoder
from .likelihoods import Likelihoods

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LEVEL = 4.0
"""Where a unit that holds a mean begins, so that its ReLU lets nearly every mean through."""
BOOLEAN = 4
"""Codes of a column of two categories: these, `other` and `missing`. Any order of two is one."""
ROWS_BEFORE = 5
"""A category's mean score is shrunk towards 0 as if it had so many rows more."""
LEAST_SPREAD = 1e-6
LEAST_NOISE = 0.02
"""Variance of the noise that every score has, because codes are coarser than scores. It also keeps
columns that nearly repeat each other from having large slopes of opposite signs."""


@dataclass(frozen=True)
class Copula:
    """`scores` of each column's codes [K_j], 0 for `other` and `missing`; the regression of each
    column on those before it, `slopes` [d, d], and the variance of its `noise` [d]; `log_shares`
    of the rows that hold each code [K_j]."""

    scores: Sequence[Floats]
    slopes: Floats
    noise: Floats
    log_shares: Sequence[Floats]


def fit_copula(codes: Tensor, likelihoods: Likelihoods) -> Copula:
    """From the training rows' codes int64[n, d]."""
    columns = list(codes.numpy().T)
    sizes = likelihoods.sizes
    counts = [
        np.bincount(column, minlength=size).astype(np.float64)
        for column, size in zip(columns, sizes, strict=True)
    ]
    numbers = set(likelihoods.number_at)
    is_ordered = [j in numbers or size == BOOLEAN for j, size in enumerate(sizes)]
    scores = [
        _normal_scores(own) if ordered else np.zeros(len(own))
        for own, ordered in zip(counts, is_ordered, strict=True)
    ]
    with threadpool_limits(1):  # another number of threads would add in another order
        common = _first_component(_of_rows(scores, columns))
        for j, ordered in enumerate(is_ordered):
            if not ordered:
                scores[j] = _mean_scores(columns[j], counts[j], common)
        slopes, noise = _regressions(_of_rows(scores, columns))
    log_shares = [np.log((own + 0.5) / len(codes)) for own in counts]
    return Copula(scores, slopes, noise, log_shares)


def _regressions(scores: Floats) -> tuple[Floats, Floats]:
    """The slopes [d, d] and the noise [d] of each column of scores [n, d] on those before it."""
    covariance, _ = ledoit_wolf(scores, assume_centered=True)
    spread = np.sqrt(np.maximum(np.diag(covariance), 1e-9))
    correlations = covariance / np.outer(spread, spread)
    np.fill_diagonal(correlations, 1.0 + LEAST_NOISE)
    lower = np.linalg.cholesky(correlations / (1.0 + LEAST_NOISE))
    scale = np.diag(lower)
    slopes = -np.tril(np.linalg.inv(lower) * scale[:, None], -1)
    return slopes, np.square(scale)


def _of_rows(scores: Sequence[Floats], columns: Sequence[Integers]) -> Floats:
    """The scores of the rows' codes, [n, d]."""
    return np.column_stack([own[column] for own, column in zip(scores, columns, strict=True)])


def _normal_scores(counts: Floats) -> Floats:
    """The mean rank of each known code as a normal score."""
    scores = np.zeros(len(counts))
    share = counts[:-2] / max(1.0, counts[:-2].sum())
    scores[:-2] = norm.ppf(np.clip(np.cumsum(share) - share / 2, 1e-4, 1 - 1e-4))
    return _standardised(scores, counts)


def _mean_scores(column: Integers, counts: Floats, common: Floats) -> Floats:
    """The mean of what the ordered columns have in common over the rows of each code."""
    sums = np.bincount(column, weights=common, minlength=len(counts))
    return _standardised(sums / (counts + ROWS_BEFORE), counts)


def _standardised(scores: Floats, counts: Floats) -> Floats:
    """With mean 0 and variance 1 over the rows of known codes, or 0 where all rows have one
    score."""
    present = np.append(counts[:-2] > 0, [False, False])
    if present.sum() < 2:
        return np.zeros(len(scores))
    weights = np.where(present, counts, 0.0) / counts[present].sum()
    centred = np.where(present, scores - weights @ scores, 0.0)
    spread = np.sqrt(weights @ np.square(centred))
    return np.asarray(centred / spread) if spread > LEAST_SPREAD else np.zeros(len(scores))


def _first_component(scores: Floats) -> Floats:
    """The first principal component of scores [n, d], standardised, [n]."""
    vectors = np.linalg.eigh(scores.T @ scores)[1]
    component = scores @ vectors[:, -1]
    return np.asarray(component / max(component.std(), LEAST_SPREAD))


def start_from(decoder: Decoder, copula: Copula) -> None:
    """Weights of the decoder that give the copula's conditional probabilities. A hidden unit holds
    the mean of one column, as far as there are units: first of the columns of which the others
    tell most."""
    columns = np.argsort(copula.noise, kind="stable")[: decoder.hidden.shape[1]]
    units = slice(0, len(columns))
    embedding = decoder.embedding.weight.detach().clone()
    out = torch.zeros_like(decoder.out.weight)
    own_out = out.split(decoder.sizes)
    with torch.no_grad():
        decoder.first.weight[units] = 0.0
        decoder.first.bias[units] = LEVEL
        last = decoder.deeper[-1]
        assert isinstance(last, nn.Linear)
        last.weight[units] = 0.0
        last.bias[units] = 0.0
        decoder.out_bias.add_(torch.from_numpy(np.concatenate(copula.log_shares)).float())
        own_bias = decoder.out_bias.split(decoder.sizes)

        embedding[:, units] = 0.0
        for start, scores, slopes in zip(
            decoder.embedding.start.tolist(), copula.scores, copula.slopes.T, strict=True
        ):
            shifts = np.outer(scores, slopes[columns])
            embedding[start : start + len(scores), units] = torch.from_numpy(shifts).float()
        for unit, column in enumerate(columns):
            score = torch.from_numpy(copula.scores[column]).float()
            noise = float(copula.noise[column])
            decoder.hidden[column, :, unit] = 0.0
            own_out[column][:, unit] = score / noise
            own_bias[column].add_((1 - 1 / noise) * score.square() / 2 - LEVEL * score / noise)
    decoder.embedding.assign(embedding)
    decoder.out.assign(out)

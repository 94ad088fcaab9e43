"""Calibration: nelbos of rows that touched nothing else in training, which turn a score into a
conformal p-value.

With 500 rows or more they are a part of the table that is held back (split conformal). Smaller
tables keep no part back: five models, each fitted without one fifth of the rows, score that fifth
(cross-conformal, Vovk 2015); their scores then stand in for those of the final model, which was
fitted to all rows. That is an approximation, and the model card says so.
"""

import numpy as np
from numpy.typing import NDArray

from nelbo.artifact import Calibration
from nelbo.engine import Engine
from nelbo.schema import Schema

from .config import Config
from .data import Rows, folds, split_rows
from .fit import StepProgress, fit_rows, share_of_exemplars
from .vae import score

FOLDS = 5


def split_calibration(engine: Engine, rows: Rows) -> Calibration:
    """The held-back rows, scored by the exported artifact itself."""
    return _calibration("split", engine.score_encoded(rows.numbers, rows.codes)[0])


def cross_calibration(
    schema: Schema, rows: Rows, config: Config, seed: int, progress: StepProgress
) -> Calibration:
    return _calibration("cross-conformal", cross_scores(schema, rows, config, seed, progress))


def cross_scores(
    schema: Schema, rows: Rows, config: Config, seed: int, progress: StepProgress
) -> NDArray[np.float64]:
    """Nelbo float64[n] of every row, from a model that was fitted without that row."""
    if share_of_exemplars(schema, config) == 1:  # nothing of the VAE is in the scores
        config = config.model_copy(update={"min_steps": 1, "max_steps": 1})
    scores = np.empty(len(rows))
    for fold, (outside, inside) in enumerate(folds(len(rows), FOLDS, seed)):
        seen = _without_unseen(schema, rows, outside)
        inner = split_rows(len(outside), config.held_out, seed)
        vae, _ = fit_rows(schema, seen.take(outside), inner, config, seed, _part(progress, fold))
        terms, kl = score(vae, seen.take(inside))
        scores[inside] = (terms.sum(1) + kl).numpy()
    return scores


def _part(progress: StepProgress, fold: int) -> StepProgress:
    return lambda step, steps, held_out: progress(fold * steps + step, FOLDS * steps, held_out)


def _without_unseen(schema: Schema, rows: Rows, outside: NDArray[np.int64]) -> Rows:
    """Rows whose categories occur only inside the fold as `other`, which they are for a model
    without the fold."""
    codes = rows.codes.copy()
    for i, column in enumerate(schema.categoricals):
        other = len(column.categories)
        unseen = np.setdiff1d(np.arange(other), codes[outside, i])
        codes[np.isin(codes[:, i], unseen), i] = other
    return Rows(rows.numbers, codes)


def _calibration(method: str, scores: NDArray[np.float64]) -> Calibration:
    return Calibration.model_validate(
        {"method": method, "scores": np.sort(scores[np.isfinite(scores)]).tolist()}
    )

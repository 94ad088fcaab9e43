"""Calibration: rows that touched nothing else in training say how surprising a cost is, and turn a
row's surprise into a conformal p-value.

With 500 rows or more they are a part of the table that is held back (split conformal). Smaller
tables keep no part back: five models, each fitted without one fifth of the rows, score that fifth
(cross-conformal, Vovk 2015); their scores then stand in for those of the final model, which was
fitted to all rows. That is an approximation, and the model card says so.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from nelbo.artifact import Calibration
from nelbo.encoding import encode
from nelbo.engine import Engine
from nelbo.novelty import Novelty
from nelbo.schema import Column, Schema
from nelbo.surprise import Surprise

from .config import Config
from .data import Rows, Training, folds, split_rows
from .fit import StepProgress, fit_rows, share_of_exemplars
from .surprises import HeldOutCosts, fit_surprise, held_out_surprises, novelties_of
from .vae import VAE, Scored, score

FOLDS = 5


@dataclass(frozen=True)
class Calibrated:
    """What the held-out rows say of surprises and of their p-values."""

    surprise: Surprise
    calibration: Calibration


def split_calibration(engine: Engine, training: Training, seed: int) -> Calibrated:
    """By the held-back rows, scored by the exported artifact itself."""
    held_back = one_batch(training.table.take(training.split.calibrate))
    encoded = encode(held_back, training.schema)
    scorer = engine.scorer
    costs = scorer.costs(encoded.numbers, encoded.codes)
    costs = scorer.with_rules(costs, scorer.broken_rules(encoded))
    assert costs.members is not None, "present training writes the costs of the members"
    levels = scorer.novelty.levels(held_back, encoded)
    held_out = HeldOutCosts(costs.nelbo, costs.members, levels)
    share = engine.manifest.members["exemplars"]
    return calibrated("split", held_out, training, share, seed)


def cross_calibration(
    training: Training, config: Config, seed: int, progress: StepProgress
) -> Calibrated:
    """By all rows, each scored by a model that was fitted without it."""
    costs = cross_costs(training, config, seed, progress)
    share = share_of_exemplars(training.schema, config)
    return calibrated("cross-conformal", costs, training, share, seed)


def calibrated(
    method: str, costs: HeldOutCosts, training: Training, share: float, seed: int
) -> Calibrated:
    costs = costs.finite()
    novelties = list(novelties_of(training.schema, training.table, training.rows))
    scores = held_out_surprises(costs, novelties, share, seed)
    return Calibrated(
        fit_surprise(costs, novelties, share),
        Calibration.model_validate({"method": method, "scores": np.sort(scores).tolist()}),
    )


def cross_costs(
    training: Training, config: Config, seed: int, progress: StepProgress
) -> HeldOutCosts:
    """What each row costs by a model that was fitted without it."""
    parts = [
        _fold_costs(fold, training)
        for fold in fold_models(training.schema, training.rows, config, seed, progress)
    ]
    return HeldOutCosts(
        np.concatenate([part.nelbo for part in parts]),
        np.concatenate([part.members for part in parts]),
        np.concatenate([part.levels for part in parts]),
    )


@dataclass(frozen=True)
class Fold:
    """A model that was fitted to the rows `outside` a fold, and the rows `inside` it. `rows` are
    all rows as the model sees them."""

    vae: VAE
    rows: Rows
    outside: NDArray[np.int64]
    inside: NDArray[np.int64]

    def scored(self) -> Scored[Tensor]:
        """The scores of the rows inside."""
        return score(self.vae, self.rows.take(self.inside))


def fold_models(
    schema: Schema,
    rows: Rows,
    config: Config,
    seed: int,
    progress: StepProgress,
    count: int = FOLDS,
) -> Iterator[Fold]:
    """A model for each of `count` folds, fitted to the rows outside of it."""
    if share_of_exemplars(schema, config) == 1:  # nothing of the VAE is in the scores
        config = config.model_copy(update={"min_steps": 1, "max_steps": 1})
    for number, (outside, inside) in enumerate(folds(len(rows), count, seed)):
        seen = _without_unseen(schema, rows, outside)
        inner = split_rows(len(outside), config.held_out, seed)
        part = _part(progress, number, count)
        vae, _ = fit_rows(schema, seen.take(outside), inner, config, seed, part)
        yield Fold(vae, seen, outside, inside)


def _fold_costs(fold: Fold, training: Training) -> HeldOutCosts:
    scored = fold.scored()
    schema = seen_by(training.schema, fold.rows, fold.outside)
    batch = one_batch(training.table.take(fold.inside))
    novelty = Novelty(schema, [column.name for column in schema.modelled])
    return HeldOutCosts(
        scored.nelbo.numpy(),
        np.stack([costs.numpy() for costs in scored.costs], axis=1),
        novelty.levels(batch, encode(batch, schema)),
    )


def _part(progress: StepProgress, fold: int, count: int) -> StepProgress:
    return lambda step, steps, held_out: progress(fold * steps + step, count * steps, held_out)


def _without_unseen(schema: Schema, rows: Rows, outside: NDArray[np.int64]) -> Rows:
    """Rows whose categories occur only inside the fold as `other`, which they are for a model
    without the fold."""
    codes = rows.codes.copy()
    for i, column in enumerate(schema.categoricals):
        other = len(column.categories)
        seen = [*codes[outside, i], other + 1]
        codes[~np.isin(codes[:, i], seen), i] = other
    return Rows(rows.numbers, codes)


def seen_by(schema: Schema, rows: Rows, outside: NDArray[np.int64]) -> Schema:
    """The schema with the categories that rows outside the fold hold."""
    codes = {column.name: rows.codes[outside, i] for i, column in enumerate(schema.categoricals)}
    columns = tuple(_with_seen(column, codes.get(column.name)) for column in schema.columns)
    return schema.model_copy(update={"columns": columns})


def _with_seen(column: Column, codes: NDArray[np.int64] | None) -> Column:
    if codes is None or column.kind != "categorical":
        return column
    seen = np.unique(codes)
    names = [column.categories[code] for code in seen if code < len(column.categories)]
    return column.model_copy(update={"categories": tuple(names)})


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """The rows of a table in one batch."""
    return table.combine_chunks().to_batches()[0]

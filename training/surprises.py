"""Surprises, fitted: what turns the costs of rows into surprises, from rows that training held out.

Shapes: m held-out rows, d columns in the manifest's order, M members with a part in the score.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nelbo.encoding import missing_in
from nelbo.novelty import BROKEN, NEW, level_of
from nelbo.rule_keeping import applied
from nelbo.schema import Column, Schema
from nelbo.spelling.misspelt import Vocabulary
from nelbo.surprise import MAX_KNOTS, ColumnSurprise, Curve, Levels, Surprise

from .data import Rows, category_counts, folds

Floats = NDArray[np.float64]
Novelties = Sequence[tuple[float, ...]]
"""For each column, the least surprise of each novelty level."""

FOLDS = 20
KNOTS_IN_ALL = 20_000
"""Maximum number of knots of all curves, so that the manifest of a wide table stays small."""
DIGITS = 6
"""Significant digits of the numbers in a manifest."""
BULK = 0.99
"""Share of the held-out costs that a curve counts. Beyond them it goes on as their own tail does: a
few errors among held-out rows would else make each other look usual."""
TAIL = 0.9
"""Share of the costs below those that the rate of the tail follows from."""
SELDOM = 0.05
"""Below this share of the rows, a novelty level is the more surprising the seldomer it is."""
SLOWEST = 1e-6
"""Smallest rate of a tail, so that far and farther differ."""
MOST_TEXTS = 1_000
"""Texts per column that are looked up to learn how often a new one is near to a known category."""


@dataclass(frozen=True)
class HeldOutCosts:
    """What held-out rows cost: nelbo float64[m], by member float64[m, M, d], and their novelty
    levels int8[m, d]."""

    nelbo: Floats
    members: Floats
    levels: Levels

    def __len__(self) -> int:
        return len(self.nelbo)

    def take(self, at: NDArray[np.int64]) -> Self:
        return type(self)(self.nelbo[at], self.members[at], self.levels[at])

    def finite(self) -> Self:
        """The rows whose costs are finite."""
        is_finite = np.isfinite(self.nelbo) & np.isfinite(self.members).all((1, 2))
        return self.take(np.flatnonzero(is_finite))


def fit_surprise(
    costs: HeldOutCosts,
    novelties: Novelties,
    share: float,
    bulk: float = BULK,
    nelbo_weight: float | None = None,
) -> Surprise:
    """From held-out rows. `share` is the weight of the exemplars in a row's nelbo; the weight of
    the nelbo in a row's surprise follows from it where it is None. `bulk`: see fit_curve."""
    weights = member_weights(share)
    knots = max(8, min(MAX_KNOTS, KNOTS_IN_ALL // max(1, len(novelties) * len(weights))))
    columns = tuple(
        ColumnSurprise(
            curves=tuple(
                fit_curve(of_member, knots, bulk) for of_member in costs.members[:, :, j].T
            ),
            novelty=novelty,
        )
        for j, novelty in enumerate(novelties)
    )
    flat = Curve(costs=(0.0,), surprises=(0.0,), rate=1.0)
    draft = Surprise(
        members=weights,
        columns=columns,
        most=flat,
        nelbo=fit_curve(costs.nelbo, MAX_KNOTS, bulk),
        nelbo_weight=weight_of_nelbo(share) if nelbo_weight is None else nelbo_weight,
    )
    highest = draft.of_cells(costs.members, costs.levels).max(1, initial=0.0)
    return draft.model_copy(update={"most": fit_curve(highest, MAX_KNOTS, bulk)})


def held_out_surprises(
    costs: HeldOutCosts, novelties: Novelties, share: float, seed: int
) -> Floats:
    """The surprise float64[m] of each held-out row, by curves that were fitted without it, as those
    of new rows are."""
    surprises = np.empty(len(costs))
    for outside, inside in folds(len(costs), min(FOLDS, len(costs)), seed):
        fitted = fit_surprise(costs.take(outside), novelties, share)
        part = costs.take(inside)
        cells = fitted.of_cells(part.members, part.levels)
        surprises[inside] = fitted.of_rows(cells, part.nelbo)
    return surprises


def member_weights(share: float) -> tuple[float, ...]:
    """The weights of VAE and exemplars in a cell's surprise: those in the nelbo, but the VAE has at
    least half where both score."""
    if share in (0.0, 1.0):
        return (1.0,)
    of_exemplars = min(0.5, share)
    return (1 - of_exemplars, of_exemplars)


def weight_of_nelbo(share: float) -> float:
    """The weight of the nelbo in a row's surprise. Where all columns are numbers, the usual anomaly
    is a row that is odd all over, and the nelbo alone finds most; in a table with categories it is
    one wrong cell."""
    return 1.0 if share == 1 else share / 2


def fit_curve(costs: Floats, knots: int, bulk: float = BULK) -> Curve:
    """The surprise of a cost among held-out costs float64[m]. The costs up to the quantile `bulk`
    are counted; the knots are ever closer together towards it. Beyond it the tail is exponential,
    as it is between the quantiles TAIL and `bulk`: its surprise rises by at most 1 per nat.
    """
    m = len(costs)
    if not m:
        return Curve(costs=(0.0,), surprises=(0.0,), rate=1.0)
    descending = _rounded(np.sort(costs)[::-1])
    first = int((1 - bulk) * m + 1e-9) + 1  # the rank of the highest cost that is counted
    rank = np.unique(np.rint(np.geomspace(first, m, knots)).astype(np.int64))
    cost = np.unique(descending[rank - 1])
    at_least = m - np.searchsorted(descending[::-1], cost, side="left")
    surprise = np.maximum.accumulate(_rounded(np.log((m + 1) / (1 + at_least))))

    in_tail = np.searchsorted(cost, descending[int((1 - TAIL) * m)])
    width = cost[-1] - cost[in_tail]
    rate = (surprise[-1] - surprise[in_tail]) / width if width > 0 else 1.0
    return Curve(
        costs=tuple(cost.tolist()),
        surprises=tuple(surprise.tolist()),
        rate=float(np.clip(_rounded(np.array(rate)), SLOWEST, 1.0)),
    )


def _rounded(values: Floats) -> Floats:
    """Values with DIGITS significant digits."""
    size = np.floor(np.log10(np.maximum(np.abs(values), 1e-300)))
    unit = 10.0 ** (np.maximum(size, -DIGITS) - DIGITS + 1)
    return np.asarray(np.rint(values / unit) * unit)


def novelties_of(
    schema: Schema, table: pa.Table, rows: Rows, seldom: float = SELDOM, times: float = 1.0
) -> Iterator[tuple[float, ...]]:
    """For each modelled column, the least surprise of each novelty level. `rows` are those of the
    table, encoded.

    It is −log r, where r is the share of the training rows with that level or a higher one. A level
    of a share under `seldom` is more surprising, by `times` −log of r / seldom: few columns have a
    level so seldom, and those that do have it by mistake. A category that one row holds counts as
    new, as it is to all other rows; its share is what Good and Turing expect new categories to have
    (Good 1953).
    """
    missing = {
        column.name: np.isnan(rows.numbers[:, i]).sum() for i, column in enumerate(schema.numbers)
    }
    for i, column in enumerate(schema.categoricals):
        missing[column.name] = (rows.codes[:, i] == len(column.categories) + 1).sum()

    broken = shares_broken(schema)
    for column in schema.modelled:
        new = np.zeros(BROKEN - NEW)
        if column.kind == "categorical":
            held = category_counts(table.column(column.name), missing_in(column, schema))
            new = _new_levels(column, dict(held))
        at_least = [len(rows), missing[column.name], *new[::-1].cumsum()[::-1]]
        share = (1 + np.array(at_least)) / (1 + len(rows))
        share = np.append(share, broken.get(column.name, share[-1]))
        by_mistake = -times * np.log(np.minimum(1.0, share / seldom))
        yield tuple(_rounded(by_mistake - np.log(share)).tolist())


def shares_broken(schema: Schema) -> dict[str, float]:
    """For each column with a rule, the share of the rows that break it; of several rules, the one
    that is broken most often counts."""
    shares: dict[str, float] = {}
    for rule in applied(schema):
        share = (1 + rule.rule.broken) / (1 + max(rule.rule.rows, rule.rule.broken))
        for j in rule.columns.tolist():
            name = schema.modelled[j].name
            shares[name] = max(share, shares.get(name, 0.0))
    return shares


def _new_levels(column: Column, held: dict[str, int]) -> Floats:
    """The number of training rows with each level from NEW on, as each row looks to the others;
    `held` are the rows of each category."""
    named = [*column.categories, *(category for category, _ in column.rarer)]
    names = frozenset(named)
    new = {text: rows for text, rows in held.items() if rows == 1 or text not in names}
    sample = sorted(new)[:: max(1, len(new) // MOST_TEXTS)]
    weight = sum(new.values()) / max(1, sum(new[text] for text in sample))

    counts = np.zeros(BROKEN - NEW)
    vocabulary = Vocabulary(named)
    for text in sample:
        counts[level_of(vocabulary.nearest(text)) - NEW] += weight * new[text]
    return counts

"""Surprise: how odd a row and each of its cells are, compared with rows that training held out.

A nelbo is a sum of nats, in which a column of many digits drowns a column of two categories. Here
each cost becomes comparable: the surprise of a cost is −log of the share of held-out rows whose
cost, in the same column, is at least as high.

- A cell's surprise is the weighted mean over the model's members (VAE, exemplars) of the surprise
  of what the member finds the cell to cost. A cell that is new to its column (see `novelty`) has at
  least the surprise of that.
- A row's surprise is the weighted mean of two: the surprise of its most surprising cell, which
  finds one wrong cell, and the surprise of its nelbo, which finds a row that is odd all over.

Shapes: n rows, d columns in the manifest's order, M members with a part in the score.
"""

from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, FailFast, Field, FiniteFloat, model_validator

from nelbo.schema import MAX_COLUMNS

Floats = NDArray[np.float64]
Levels = NDArray[np.int8]

MAX_KNOTS = 64
LEVELS, OLDER_LEVELS = 6, 5
"""Number of novelty levels; see `novelty`. An older Nelbo had no rules to break."""
ONE_IN_TEN = float(np.log(10))
"""The surprise that one in ten ordinary cells of a column reaches."""
ONE_IN_A_HUNDRED = float(np.log(100))

Nats = Annotated[float, Field(ge=0, le=1_000, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, le=1)]


class _Fitted(BaseModel):
    """A part of a manifest: it never changes and has no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Curve(_Fitted):
    """The surprise of a cost: linear between the knots (`costs`, `surprises`), 0 below the first
    cost; beyond the last one it rises by `rate` per nat, so that it stays finite and tells far from
    farther."""

    costs: Annotated[tuple[FiniteFloat, ...], Field(min_length=1, max_length=MAX_KNOTS), FailFast()]
    surprises: Annotated[tuple[Nats, ...], Field(min_length=1, max_length=MAX_KNOTS), FailFast()]
    rate: Annotated[float, Field(gt=0, le=1)]

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if len(self.costs) != len(self.surprises):
            raise ValueError("a curve has another number of costs than of surprises")
        if (np.diff(self.costs) <= 0).any() or (np.diff(self.surprises) < 0).any():
            raise ValueError("the knots of a curve do not ascend")
        return self

    def __call__(self, costs: Floats) -> Floats:
        """The surprises [n] of costs [n]."""
        inside: Floats = np.interp(costs, self.costs, self.surprises, left=0.0)
        beyond = np.maximum(costs - self.costs[-1], 0.0)
        return np.asarray(inside + self.rate * beyond)

    def cost_of(self, surprise: float) -> float:
        """The cost that surprises as much: the inverse of the curve."""
        beyond = max(surprise - self.surprises[-1], 0.0) / self.rate
        return float(np.interp(surprise, self.surprises, self.costs)) + beyond


class ColumnSurprise(_Fitted):
    """What turns a cell's costs into its surprise: the curve of each member, and the least surprise
    of each novelty level, which rises with the level."""

    curves: Annotated[tuple[Curve, ...], Field(min_length=1, max_length=2)]
    novelty: Annotated[tuple[Nats, ...], Field(min_length=OLDER_LEVELS, max_length=LEVELS)]


class Surprise(_Fitted):
    """What turns the costs of a model's members into surprises, fitted to held-out rows.

    `members` are the weights [M] of the members in a cell's surprise. `most` is the curve of a
    row's most surprising cell, `nelbo` that of its nelbo; `nelbo_weight` is the weight of the
    latter in the row's surprise.
    """

    members: Annotated[tuple[Weight, ...], Field(min_length=1, max_length=2)]
    columns: Annotated[tuple[ColumnSurprise, ...], Field(max_length=MAX_COLUMNS), FailFast()]
    most: Curve
    nelbo: Curve
    nelbo_weight: Weight

    @model_validator(mode="after")
    def _has_a_curve_per_member(self) -> Self:
        if any(len(column.curves) != len(self.members) for column in self.columns):
            raise ValueError("a column has another number of curves than there are members")
        return self

    @property
    def has_rules(self) -> bool:
        """Whether each column says how surprising a broken rule is."""
        return all(len(column.novelty) == LEVELS for column in self.columns)

    def never(self, column: int, level: int) -> bool:
        """Whether no training row had a cell of this novelty level in the column. Such a level is
        as surprising as any can be, and so it is in each column."""
        highest = max(max(one.novelty) for one in self.columns)
        return self.columns[column].novelty[level] == highest > 0

    def of_cells(self, costs: Floats, levels: Levels) -> Floats:
        """The surprise [n, d] of cells, from what each member finds them to cost [n, M, d] and
        their novelty levels [n, d]."""
        surprises = np.empty(levels.shape)
        for j, column in enumerate(self.columns):
            parts = (
                weight * curve(costs[:, member, j])
                for member, (weight, curve) in enumerate(
                    zip(self.members, column.curves, strict=True)
                )
            )
            surprises[:, j] = sum(parts)
        for j in np.flatnonzero(levels.any(axis=0)).tolist():
            least = np.array(self.columns[j].novelty)[levels[:, j]]
            surprises[:, j] = np.maximum(surprises[:, j], least)
        return surprises

    def of_rows(self, cells: Floats, nelbo: Floats) -> Floats:
        """The surprise [n] of rows, from those of their cells [n, d] and their nelbos [n]."""
        of_cells = self.most(cells.max(axis=1, initial=0.0))
        return np.asarray(
            (1 - self.nelbo_weight) * of_cells + self.nelbo_weight * self.nelbo(nelbo)
        )

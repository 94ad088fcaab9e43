"""Scores of rows: what they cost by the score graph and by broken rules, and how surprising that
is."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nelbo.artifact import Manifest
from nelbo.encoding import Encoded
from nelbo.novelty import BROKEN, Novelty
from nelbo.rule_keeping import RuleKeeper, matrix_of, without_unknown
from nelbo.scores import p_values
from nelbo.surprise import Levels

if TYPE_CHECKING:
    from nelbo.sessions import BatchedGraphs, Check

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True)
class Costs:
    """What rows cost, in nats: nelbo [n], terms [n, d], kl [n], and what each member finds the
    cells to cost, `members` [n, M, d]. The graph of an older artifact does not give the last."""

    nelbo: Floats
    terms: Floats
    kl: Floats
    members: Floats | None = None

    def take(self, rows: Booleans) -> Self:
        """The costs of the rows where `rows` bool[n] is true."""
        members = None if self.members is None else self.members[rows]
        return type(self)(self.nelbo[rows], self.terms[rows], self.kl[rows], members)


class RowScorer:
    """Scores rows that are encoded already."""

    def __init__(self, manifest: Manifest, graphs: "BatchedGraphs", rules: RuleKeeper) -> None:
        self.manifest = manifest
        self.schema = manifest.table_schema
        self.graphs = graphs
        self.rules = rules
        self.novelty = Novelty(self.schema, manifest.order)
        self._calibration = np.array(manifest.calibration.scores, dtype=np.float64)

    def costs(self, numbers: Floats, codes: Integers, check: "Check | None" = None) -> Costs:
        """What rows cost that are encoded already."""
        outputs = self.graphs.run("score", [numbers, codes], check=check)
        columns = len(self.manifest.order)
        members = self.manifest.scoring_members
        none = [np.empty(0), np.empty((0, columns)), np.empty(0), np.empty((0, members, columns))]
        return Costs(*(outputs or none[: len(self.manifest.graphs["score"].outputs)]))

    def broken_rules(self, encoded: Encoded) -> Booleans:
        """bool[n, R]: the rules that encoded rows break."""
        if not self.rules.rules:
            return np.zeros((len(encoded.rows), 0), dtype=np.bool_)
        x = matrix_of(encoded.numbers, encoded.named, self.schema)
        x = without_unknown(x, self.schema)
        return self.rules.broken(x)

    def with_rules(self, costs: Costs, broken: Booleans) -> Costs:
        """The costs with those of broken rules bool[n, R], each in the term of its last column. So
        the nelbo is a bound for p(x | the rules hold but for a few rows)."""
        terms = costs.terms.copy()
        nelbo = costs.nelbo.copy()
        for rule, rows in zip(self.rules.rules, broken.T, strict=True):
            terms[rows, rule.target] += rule.cost
            nelbo[rows] += rule.cost
        return replace(costs, nelbo=nelbo, terms=terms)

    def levels(
        self,
        batch: pa.RecordBatch,
        encoded: Encoded,
        broken: Booleans,
        costs: Costs,
        first_row: int = 0,
    ) -> Levels:
        """The novelty levels int8[n, d] of the cells of encoded rows of a batch. Of the cells that
        break a rule bool[n, R] together, the most surprising one has the level of that."""
        levels = self.novelty.levels(batch, encoded, first_row)
        if broken.any():
            _, surprises = self.surprise(costs, levels)
            for rule, rows in zip(self.rules.rules, broken.T, strict=True):
                of_rule = surprises[np.ix_(rows, rule.columns)]
                levels[rows, rule.columns[of_rule.argmax(1)]] = BROKEN
        return levels

    def surprise(self, costs: Costs, levels: Levels) -> tuple[Floats, Floats]:
        """The surprise of each row [n] and of each cell [n, d]. An artifact of an older Nelbo has
        the nelbo and the terms in their place."""
        fitted = self.manifest.surprise
        if fitted is None or costs.members is None:
            return costs.nelbo, costs.terms
        cells = fitted.of_cells(costs.members, levels)
        return fitted.of_rows(cells, costs.nelbo), cells

    def p_value(self, surprise: Floats) -> Floats:
        """The p-value of each surprise: it counts calibration scores and, above the highest of
        them, uses the fitted tail if the artifact has one. See scores.p_values."""
        return p_values(surprise, self._calibration, self.manifest.calibration.used_tail)

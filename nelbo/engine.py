"""The engine: scores rows and makes rows with the graphs of an artifact.

A row's score depends on the artifact and the row alone, a generated row on the artifact, the seed
and its row number alone: never on its neighbours, the batch or the chunk that it was in, the number
of machines or a retry.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nelbo import noise
from nelbo.artifact import Artifact, check_filled, check_kept, check_spread, read_artifact
from nelbo.conditional_sampler import ConditionalSampler
from nelbo.conditions import NO_CONDITIONS, Conditions, Odds
from nelbo.encoding import Encoded, decode, encode
from nelbo.errors import InvalidInput
from nelbo.expectations import DRAWS, expectation
from nelbo.forms import (
    in_form_of,
    own_times,
    with_missing,
    with_own_dates,
    with_row_numbers,
    with_unknown_categories,
)
from nelbo.identifiers import with_identifiers
from nelbo.row_sampler import NumbersAndCodes, Origin, RowSampler, repeated_rows
from nelbo.row_scorer import Costs, RowScorer
from nelbo.rows import MadeRows, RowError, Scores
from nelbo.rule_keeping import RuleKeeper
from nelbo.schema import Schema
from nelbo.sessions import BatchedGraphs, Check, Graphs, Sessions

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

GAP_DRAWS = 15
"""Number of draws that decide whether a cell is usually missing in a row like its own."""
TOO_FAR = "the row is so far from the training table that its nelbo is not finite"


class Engine:
    """An artifact ready to run. Make it after a fork, one for each process.

    Its graphs run in this process, unless `graphs` says where else. Each method takes a `check`,
    which is called before each batch and may raise to stop the work.
    """

    def __init__(self, artifact: Artifact, graphs: Graphs | None = None) -> None:
        self.artifact = artifact
        self.manifest = artifact.manifest
        self.schema: Schema = artifact.manifest.table_schema
        self.graphs = graphs or Sessions(artifact)
        self.rules = RuleKeeper(self.schema)
        batched = BatchedGraphs(self.graphs, self.manifest.batch)
        self.scorer = RowScorer(self.manifest, batched, self.rules)
        self.sampler = RowSampler(self.manifest, batched, self.rules)
        self._conditional = ConditionalSampler(self.manifest, self.sampler, self.scorer)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises NotFound or InvalidArtifact."""
        return cls(read_artifact(folder))

    # Verbs: what callers do with a table

    def score(
        self, batch: pa.RecordBatch, first_row: int = 0, check: Check | None = None
    ) -> Scores:
        """Negative ELBO and surprise of each row, with the term and the surprise of each cell. Rows
        that cannot be encoded, or whose nelbo is not finite, are errors."""
        encoded = encode(batch, self.schema, first_row)
        costs = self.costs(encoded.numbers, encoded.codes, check)

        finite = np.isfinite(costs.nelbo)
        too_far = [
            RowError(row=row, column=None, code="not-finite", message=TOO_FAR)
            for row in encoded.rows[~finite].tolist()
        ]
        scorer = self.scorer
        broken = scorer.broken_rules(encoded)
        levels = scorer.levels(batch, encoded, broken, costs, first_row)
        costs = scorer.with_rules(costs, broken).take(finite)
        surprise, surprises = scorer.surprise(costs, levels[finite])
        return Scores(
            rows=encoded.rows[finite],
            nelbo=costs.nelbo,
            surprise=surprise,
            p_value=scorer.p_value(surprise),
            kl=costs.kl,
            terms=costs.terms,
            surprises=surprises,
            columns=self.manifest.order,
            errors=sorted([*encoded.errors, *too_far], key=lambda error: error.row),
        )

    def costs(self, numbers: Floats, codes: Integers, check: Check | None = None) -> Costs:
        """See RowScorer.costs."""
        return self.scorer.costs(numbers, codes, check)

    def generate(
        self,
        seed: int,
        first_row: int,
        rows: int,
        conditions: Conditions = NO_CONDITIONS,
        check: Check | None = None,
        identifiers: bool = True,
    ) -> MadeRows:
        """Rows first_row … first_row + rows - 1 of the endless table that `seed` and the conditions
        name: z from the prior, x from p(x|z). Each row meets all conditions. With `identifiers`,
        they have new identifiers."""
        numbers = np.arange(first_row, first_row + rows)
        cells = self._conditional.cells(conditions, seed, numbers, check)
        table = decode(*cells, self.schema)
        if identifiers:
            table = with_identifiers(table, self.schema, self.manifest.identifiers, seed, numbers)
        return MadeRows(table)

    def odds(self, conditions: Conditions, seed: int, check: Check | None = None) -> Odds:
        """How probable the conditions are, and from how many rows `generate` draws."""
        return self._conditional.odds(conditions, seed, check)

    def augment(
        self,
        batch: pa.RecordBatch,
        first_row: int,
        per_row: int | Integers,
        seed: int,
        spread: float = 0.0,
        keep: Collection[str] = (),
        check: Check | None = None,
    ) -> MadeRows:
        """`per_row` copies of each row (one number for all, or int64[n]): z from q(z|x) at spread
        0, from p(z) at 1, from between them otherwise; x from p(x | z, kept cells).

        A copy keeps its row's cells of the columns `keep` and, with probability 1 - spread, its
        seldom categories. Copy k of row i depends on the spread, `keep`, the seed, row i and k
        only. Raises InvalidInput where the artifact has no spread, or no such column.
        """
        check_spread(self.manifest.graphs, spread)
        check_kept(self.schema.names, keep)
        encoded = encode(batch, self.schema, first_row)
        times = np.broadcast_to(per_row, batch.num_rows)[encoded.rows - first_row]
        repeated = repeated_rows(encoded, times)
        copy = np.arange(len(repeated.rows)) - np.repeat(np.cumsum(times) - times, times)
        u = noise.of_copies(seed, noise.AUGMENT, repeated.rows, copy, self.sampler.noise_size)
        kept = self._seldom(repeated, copy, seed, spread)
        kept |= np.isin(self.manifest.order, list(keep))
        seen = np.ones_like(kept)
        drawn = self.sampler.from_posterior(repeated, u, seen, kept, spread=spread, check=check)
        origin = Origin(seed, noise.AUGMENT, repeated.rows, copy)
        source = batch.take(repeated.rows - first_row)
        copies = self.sampler.mended(
            drawn, kept, origin, check, own_times(source, self.schema, keep)
        )
        decoded = decode(*copies, self.schema)
        decoded = with_unknown_categories(source, self.schema, repeated, decoded, keep)
        decoded = with_own_dates(source, self.schema, decoded, keep)
        table = in_form_of(source, self.schema, decoded)
        row_numbers = {"row": repeated.rows, "copy": copy}
        return MadeRows(with_row_numbers(row_numbers, table), encoded.errors)

    def reconstruct(
        self,
        batch: pa.RecordBatch,
        first_row: int,
        seed: int,
        mode: bool = False,
        denoise: bool = False,
        columns: Collection[str] = (),
        leave_usual: bool = False,
        check: Check | None = None,
    ) -> MadeRows:
        """Missing cells from p(x_j | z, the columns before it) with z from q(z | observed cells);
        observed cells stay.

        With `denoise` the observed cells are replaced too. `mode` takes the most probable value and
        the mean of z, not a draw. Categories that the model does not know keep their text.

        With `columns` all cells of other columns stay as they are. With `leave_usual` a cell stays
        missing if its row lets expect it: see _usually_missing. Raises InvalidInput where the model
        does not make one of the columns.
        """
        check_filled(self.schema, columns)
        order = self.manifest.order
        chosen = np.isin(order, list(columns) or order)
        encoded = encode(batch, self.schema, first_row)
        u = noise.uniforms(seed, noise.RECONSTRUCT, encoded.rows, self.sampler.noise_size)
        observed = self._observed(encoded)
        kept = observed & ~chosen if denoise else observed
        drawn = self.sampler.from_posterior(
            encoded, u, observed, kept, mode=mode, fill=True, check=check
        )
        source = batch.take(encoded.rows - first_row)
        origin = Origin(seed, noise.RECONSTRUCT, encoded.rows)
        names = [name for name in order if not (denoise and chosen[order.index(name)])]
        filled = self.sampler.mended(
            drawn, kept, origin, check, own_times(source, self.schema, names)
        )

        missing = ~observed & ~chosen
        if leave_usual:
            missing |= self._usually_missing(encoded, observed, chosen, seed, check)
        decoded = with_missing(
            decode(*filled, self.schema), dict(zip(order, missing.T, strict=True))
        )
        decoded = with_unknown_categories(source, self.schema, encoded, decoded, names)
        decoded = with_own_dates(source, self.schema, decoded, names)
        table = in_form_of(source, self.schema, decoded)
        return MadeRows(with_row_numbers({"row": encoded.rows}, table), encoded.errors)

    def explain(
        self,
        batch: pa.RecordBatch,
        column: str,
        first_row: int = 0,
        seed: int = 0,
        check: Check | None = None,
    ) -> MadeRows:
        """What a column should be in each row: hide its cell, draw it DRAWS times given the other
        cells of the row, and summarise the draws.

        Each draw has its own z from q(z | x without x_j), then x_j from p(x_j | z, the columns
        before it). The row's own value of the column has no influence.

        Columns: `row`, `expected`, `low`, `high`, `share`, `missing`.
        - Numbers and datetimes: `expected` is the median of the draws that have a value; 90 % of
          these are between `low` and `high`.
        - Categories: `expected` is the most frequent draw, which may be a missing value; `share` is
          its share of the draws.
        - `missing` is the share of draws without a value.
        """
        order = self.manifest.order
        if column not in order:
            raise InvalidInput(
                f"the model has no column {column!r} to hide; it models {', '.join(order)}"
            )
        encoded = encode(batch, self.schema, first_row)
        hidden = np.tile([name == column for name in order], (len(encoded.rows), 1))
        draws = self.redraw(encoded, hidden, DRAWS, seed, check)
        summary = expectation(self.schema, column, *draws)
        table = pa.RecordBatch.from_pydict({"row": encoded.rows, **summary})
        return MadeRows(table, encoded.errors)

    def redraw(
        self,
        encoded: Encoded,
        hidden: Booleans,
        times: int,
        seed: int,
        check: Check | None = None,
    ) -> NumbersAndCodes:
        """See RowSampler.redraw."""
        return self.sampler.redraw(encoded, hidden, times, seed, check)

    def run(self, graph: str, *inputs: NDArray[Any]) -> Sequence[NDArray[Any]]:
        """One fixed batch through a graph; inputs and outputs in the manifest's order, each `batch`
        rows long."""
        (outputs,) = self.graphs.run(graph, [inputs], None)
        return outputs

    # What verbs share

    def _seldom(self, copies: Encoded, number: Integers, seed: int, spread: float) -> Booleans:
        """bool[n, d]: cells with a seldom category, a share 1 - spread of them. `number` int64[n]
        is the number of each copy."""
        order = self.manifest.order
        seldom = np.zeros((len(copies.rows), len(order)), dtype=np.bool_)
        for column, codes in zip(self.schema.categoricals, copies.codes.T, strict=True):
            of_column = self.manifest.seldom.get(column.name, ())
            seldom[:, order.index(column.name)] = np.isin(codes, of_column)
        if 0 < spread < 1:
            u = noise.of_copies(seed, noise.KEEP, copies.rows, number, len(order))
            seldom &= u >= spread
        return seldom if spread < 1 else np.zeros_like(seldom)

    def _usually_missing(
        self,
        encoded: Encoded,
        observed: Booleans,
        chosen: Booleans,
        seed: int,
        check: Check | None,
    ) -> Booleans:
        """bool[n, d]: unobserved cells of the `chosen` bool[d] columns that are missing in more
        than half of GAP_DRAWS draws of the row given its observed cells."""
        usual = np.zeros_like(observed)
        at = np.flatnonzero((~observed & chosen).any(1))
        gaps = ~observed[at]
        part = Encoded(encoded.numbers[at], encoded.codes[at], encoded.rows[at], [])
        numbers, codes = self.redraw(part, gaps, GAP_DRAWS, seed, check)

        no_category = np.array([len(column.categories) + 1 for column in self.schema.categoricals])
        names = [column.name for column in (*self.schema.numbers, *self.schema.categoricals)]
        missing = np.hstack([np.isnan(numbers), codes == no_category])
        missing = missing[:, [names.index(name) for name in self.manifest.order]]
        share = missing.reshape(len(at), GAP_DRAWS, len(names)).mean(1)
        usual[at] = gaps & chosen & (share > 0.5)
        return usual

    def _observed(self, encoded: Encoded) -> Booleans:
        """bool[n, d] in the manifest's order: cells that are neither missing nor, where training
        knew none, an unknown category."""
        columns: dict[str, Booleans] = {}
        for i, column in enumerate(self.schema.numbers):
            columns[column.name] = ~np.isnan(encoded.numbers[:, i])
        for i, column in enumerate(self.schema.categoricals):
            other = len(column.categories)
            knows_other = bool(column.rarer) and not column.clusters
            unobserved = (other + 1,) if knows_other else (other, other + 1)
            columns[column.name] = ~np.isin(encoded.codes[:, i], unobserved)
        return np.stack([columns[name] for name in self.manifest.order], axis=1)

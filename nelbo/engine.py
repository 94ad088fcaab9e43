"""The engine: scores rows and makes rows with the graphs of an artifact.

A row's score depends on the artifact and the row alone, a generated row on the artifact, the seed
and its row number alone: never on its neighbours, the batch or the chunk that it was in, the number
of machines or a retry.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nelbo import noise
from nelbo.artifact import Artifact, check_filled, check_kept, check_spread, read_artifact
from nelbo.candidates import (
    LEAST,
    SEARCHES,
    TRIES,
    Candidates,
    CandidateSearch,
    Pool,
    candidates_of,
    kept_share,
    pool_rows,
)
from nelbo.conditions import NO_CONDITIONS, Conditions, Odds
from nelbo.encoding import Encoded, as_modelled, decode, encode
from nelbo.errors import InvalidArtifact, InvalidInput
from nelbo.expectations import DRAWS, expectation, hide
from nelbo.forms import (
    in_form_of,
    own_times,
    with_missing,
    with_own_dates,
    with_row_numbers,
    with_unknown_categories,
)
from nelbo.identifiers import with_identifiers
from nelbo.novelty import BROKEN, Novelty
from nelbo.rows import MadeRows, RowError, Scores
from nelbo.rule_keeping import (
    ATTEMPTS,
    RuleKeeper,
    encoded_rows,
    matrix_of,
    without_unknown,
)
from nelbo.schema import Column, Schema
from nelbo.scores import p_values
from nelbo.sessions import Check, Graphs, Sessions, fixed_batches
from nelbo.surprise import Levels
from nelbo.ties import Ties

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

NumbersAndCodes = tuple[Floats, Integers]
"""Numbers float64[n, …] and codes int64[n, …] of rows, as nelbo.encoding.decode takes them."""


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


@dataclass(frozen=True)
class Origin:
    """What a made row's random numbers follow from: the seed, the purpose (noise.GENERATE,
    RECONSTRUCT or AUGMENT), its row number int64[n] and, of copies, the number of the copy."""

    seed: int
    purpose: int
    rows: Integers
    copies: Integers | None = None

    def uniforms(self, at: Integers, attempt: int, size: int) -> Floats:
        """Uniform numbers float64[m, size] to draw the rows with the indices `at` again."""
        copies = np.zeros_like(at) if self.copies is None else self.copies[at]
        return noise.mending(self.seed, self.purpose, attempt, self.rows[at], copies, size)


NOTHING: Mapping[str, Floats] = MappingProxyType({})
GAP_DRAWS = 15
"""Number of draws that decide whether a cell is usually missing in a row like its own."""


@dataclass(frozen=True)
class Prepared:
    """What rows with conditions are drawn from, kept for the next chunk of the same request."""

    conditions: Conditions
    seed: int
    odds: Odds
    candidates: Candidates


ROOM = 1e-5
"""The least distance between the nelbo of a made row and the ends of its range, as a part of the
nelbo. Graphs compute with 32 bits, so that the last digits depend on the other rows of a batch."""
TOO_FAR = "the row is so far from the training table that its nelbo is not finite"


def flag(value: bool) -> Booleans:
    """A yes or no as the graphs take it."""
    return np.array([value])


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
        self.novelty = Novelty(self.schema, self.manifest.order)
        self.rules = RuleKeeper(self.schema)
        self.ties = Ties(self.manifest.ties, self.schema, self.manifest.order)
        self._calibration = np.array(self.manifest.calibration.scores, dtype=np.float64)
        self._noise_size = sum(self.manifest.draws.values())
        self._number_at = [self._position(column) for column in self.schema.numbers]
        self._code_at = [self._position(column) for column in self.schema.categoricals]
        self._prepared: Prepared | None = None
        self._prepared_rare: Prepared | None = None

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
        broken = self.broken_rules(encoded)
        levels = self.levels(batch, encoded, broken, costs, first_row)
        costs = self.with_rules(costs, broken).take(finite)
        surprise, surprises = self.surprise(costs, levels[finite])
        return Scores(
            rows=encoded.rows[finite],
            nelbo=costs.nelbo,
            surprise=surprise,
            p_value=self.p_value(surprise),
            kl=costs.kl,
            terms=costs.terms,
            surprises=surprises,
            columns=self.manifest.order,
            errors=sorted([*encoded.errors, *too_far], key=lambda error: error.row),
        )

    def costs(self, numbers: Floats, codes: Integers, check: Check | None = None) -> Costs:
        """What rows cost that are encoded already."""
        outputs = self._run_rows("score", [numbers, codes], check=check)
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

    def with_rules(self, costs: Costs, broken: Booleans) -> Costs:
        """The costs with those of broken rules bool[n, R], each in the term of its last column. So
        the nelbo is a bound for p(x | the rules hold but for a few rows)."""
        terms = costs.terms.copy()
        nelbo = costs.nelbo.copy()
        for rule, rows in zip(self.rules.rules, broken.T, strict=True):
            terms[rows, rule.target] += rule.cost
            nelbo[rows] += rule.cost
        return replace(costs, nelbo=nelbo, terms=terms)

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
        if conditions.nelbo:
            cells = self._rare(conditions, seed, numbers, check)
        else:
            cells = self._generated(conditions, seed, numbers, check)
        table = decode(*cells, self.schema)
        if identifiers:
            table = with_identifiers(table, self.schema, self.manifest.identifiers, seed, numbers)
        return MadeRows(table)

    def odds(self, conditions: Conditions, seed: int, check: Check | None = None) -> Odds:
        """How probable the conditions are, and from how many rows `generate` draws."""
        if conditions.nelbo:
            return self._prepare_rare(conditions, seed, check).odds
        return self._prepare(conditions, seed, check).odds

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
        repeated = _repeated(encoded, times)
        copy = np.arange(len(repeated.rows)) - np.repeat(np.cumsum(times) - times, times)
        u = noise.of_copies(seed, noise.AUGMENT, repeated.rows, copy, self._noise_size)
        kept = self._seldom(repeated, copy, seed, spread)
        kept |= np.isin(self.manifest.order, list(keep))
        seen = np.ones_like(kept)
        drawn = self._from_posterior(repeated, u, seen, kept, spread=spread, check=check)
        origin = Origin(seed, noise.AUGMENT, repeated.rows, copy)
        source = batch.take(repeated.rows - first_row)
        copies = self._mended(drawn, kept, origin, check, own_times(source, self.schema, keep))
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
        u = noise.uniforms(seed, noise.RECONSTRUCT, encoded.rows, self._noise_size)
        observed = self._observed(encoded)
        kept = observed & ~chosen if denoise else observed
        drawn = self._from_posterior(encoded, u, observed, kept, mode=mode, fill=True, check=check)
        source = batch.take(encoded.rows - first_row)
        origin = Origin(seed, noise.RECONSTRUCT, encoded.rows)
        names = [name for name in order if not (denoise and chosen[order.index(name)])]
        filled = self._mended(drawn, kept, origin, check, own_times(source, self.schema, names))

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
        """Each row `times` times, one after the other, with the cells where `hidden` bool[n, d] is
        true drawn given its other cells.

        Draw k of a row depends on the seed, the row's number, k and the other cells alone.
        """
        without = hide(encoded, self.schema, self.manifest.order, hidden)
        u = noise.repeated_uniforms(seed, noise.EXPLAIN, encoded.rows, times, self._noise_size)
        seen = np.repeat(~hidden, times, axis=0)
        return self._from_posterior(_repeated(without, times), u, seen, seen, check=check)

    # Graphs

    def run(self, graph: str, *inputs: NDArray[Any]) -> Sequence[NDArray[Any]]:
        """One fixed batch through a graph; inputs and outputs in the manifest's order, each `batch`
        rows long."""
        (outputs,) = self.graphs.run(graph, [inputs], None)
        return outputs

    def draw(
        self,
        z: Floats,
        x: Integers,
        keep: Booleans,
        u: Floats,
        mode: bool = False,
        fill: bool = False,
        check: Check | None = None,
    ) -> NumbersAndCodes:
        """Numbers float64[n, …] and codes int64[n, …] of n rows from p(x|z). Cells where `keep`
        bool[n, d] is true are copied from x.

        With `mode` each cell has its most probable value; with `fill` no cell is missing. The graph
        of an older artifact has no input `fill`. Raises InvalidArtifact for a code that no category
        has.
        """
        flags = [flag(mode), flag(fill)][: len(self.manifest.graphs["generate"].inputs) - 4]
        numbers, codes = self._run_rows("generate", [z, x, keep, u], flags, check)
        categoricals = self.schema.categoricals
        highest = [len(column.categories) + 1 + len(column.rarer) for column in categoricals]
        if ((codes < 0) | (codes > np.array(highest, dtype=np.int64))).any():
            raise InvalidArtifact(
                "the graph 'generate' gives a code that no category has; train the model again"
            )
        return numbers, codes

    def _run_rows(
        self,
        graph: str,
        rows: Sequence[NDArray[Any]],
        constants: Sequence[NDArray[Any]] = (),
        check: Check | None = None,
    ) -> list[NDArray[Any]]:
        """The outputs [n, …] of a graph for inputs of n rows each and for inputs that all batches
        share; none where there are no rows."""
        batches = list(fixed_batches(self.manifest.batch, *rows))
        inputs = ([*of_batch, *constants] for _, *of_batch in batches)
        outputs = self.graphs.run(graph, inputs, check)
        parts = [
            [output[:used] for output in of_batch]
            for (used, *_), of_batch in zip(batches, outputs, strict=True)
        ]
        return [np.concatenate(of_rows) for of_rows in zip(*parts, strict=True)]

    def _from_prior(self, u: Floats, check: Check | None) -> NumbersAndCodes:
        """Cells of new rows: z from the prior, then every column from p(x|z)."""
        if not len(u):
            none = len(self.schema.numbers), len(self.schema.categoricals)
            return np.empty((0, none[0])), np.empty((0, none[1]), dtype=np.int64)
        columns = len(self.manifest.order)
        for_z = self.manifest.draws["z"]
        blank = np.zeros((len(u), self.manifest.codes or columns), dtype=np.int64)
        keep_none = np.zeros((len(u), columns), dtype=np.bool_)
        (z,) = self._run_rows("prior", [u[:, :for_z]], check=check)
        numbers, codes = self.draw(z, blank, keep_none, u[:, for_z:], check=check)
        return numbers, self.ties.redrawn(numbers, codes, keep_none, u)

    def _from_posterior(
        self,
        encoded: Encoded,
        u: Floats,
        seen: Booleans,
        keep: Booleans,
        *,
        mode: bool = False,
        spread: float = 0.0,
        fill: bool = False,
        fresh: Booleans | None = None,
        check: Check | None = None,
    ) -> NumbersAndCodes:
        """Cells of rows like these: z from q(z | seen cells) or, by `spread`, from between that and
        p(z); then from p(x|z) every cell that is not kept. `seen` and `keep` are bool[n, d].

        Kept numbers where `fresh` bool[d] holds are drawn anew within their code.
        """
        if not len(u):
            return encoded.numbers, encoded.named
        copied = np.ones(len(self.manifest.order), np.bool_) if fresh is None else ~fresh
        encoded, seen, keep = self.ties.given(encoded, seen, keep)

        for_z = self.manifest.draws["z"]
        u_z = u[:, :for_z]
        rows = [encoded.numbers, encoded.codes, seen, u_z]
        z, x, *posterior = self._run_rows("posterior", rows, [flag(mode)], check)
        if spread:
            (z,) = self._run_rows("spread", [*posterior, u_z], [np.array([spread])], check)
        numbers, codes = self.draw(z, x, keep, u[:, for_z:], mode, fill, check)

        is_own = keep & copied
        numbers = np.where(is_own[:, self._number_at], encoded.numbers, numbers)
        codes = np.where(keep[:, self._code_at], encoded.named, codes)
        return numbers, self.ties.redrawn(numbers, codes, keep, u, mode)

    def _plain(self, u: Floats, origin: Origin, check: Check | None) -> NumbersAndCodes:
        """Cells of new rows without conditions, which keep the rules."""
        fixed = np.zeros((len(u), len(self.manifest.order)), dtype=np.bool_)
        return self._mended(self._from_prior(u, check), fixed, origin, check)

    def _mended(
        self,
        drawn: NumbersAndCodes,
        fixed: Booleans,
        origin: "Origin",
        check: Check | None,
        times: Mapping[str, Floats] = NOTHING,
    ) -> NumbersAndCodes:
        """Drawn rows with other values in cells that are not `fixed` bool[n, d], so that they keep
        the rules of the table. What is drawn again depends on the row's origin alone. `times` are
        datetimes float64[n] of some columns that are fixed too, where they are not missing."""
        if not self.rules.rules:
            return drawn

        def redraw(x: Floats, hidden: Booleans, at: Integers, attempt: int) -> Floats:
            numbers, codes = encoded_rows(x, self.schema)
            own = Encoded(numbers, as_modelled(codes, self.schema), at, [], codes)
            without = hide(own, self.schema, self.manifest.order, hidden)
            u = origin.uniforms(at, attempt, self._noise_size)
            again = self._from_posterior(without, u, ~hidden, ~hidden, check=check)
            return np.where(hidden, matrix_of(*again, self.schema), x)

        def uniforms(at: Integers) -> Floats:
            return origin.uniforms(at, ATTEMPTS, 1)[:, 0]

        x = matrix_of(*drawn, self.schema)
        fixed = fixed.copy()
        for name, own in times.items():
            at = self.manifest.order.index(name)
            fixed[:, at] |= ~np.isnan(own)
            x[:, at] = np.where(np.isnan(own), x[:, at], own)
        return encoded_rows(self.rules.kept(x, fixed, redraw, uniforms), self.schema)

    # Conditions

    def _generated(
        self, conditions: Conditions, seed: int, rows: Integers, check: Check | None
    ) -> NumbersAndCodes:
        """Cells of generated rows, whose nelbo may be any."""
        u = noise.uniforms(seed, noise.GENERATE, rows, self._noise_size)
        if conditions:
            return self._from_candidates(conditions, seed, rows, u, check)
        return self._plain(u, Origin(seed, noise.GENERATE, rows), check)

    def _rare(
        self, conditions: Conditions, seed: int, rows: Integers, check: Check | None
    ) -> NumbersAndCodes:
        """Cells of rows whose nelbo is in the range of the conditions. The first ones are the
        candidates. Each further one is drawn like a candidate until its nelbo is in the range, with
        ever more of its cells. The row numbers ascend."""
        assert conditions.nelbo is not None, "rows of other conditions are drawn elsewhere"
        candidates = self._prepare_rare(conditions, seed, check).candidates
        others = replace(conditions, nelbo=None)
        later = rows >= candidates.different
        first = candidates.first.take(rows[~later])
        rows = rows[later]
        chosen = noise.uniforms(seed, noise.CHOOSE, rows, 1)[:, 0]
        source = candidates.of_rows(np.zeros_like(rows), chosen)
        numbers, codes = source.numbers.copy(), source.codes.copy()
        at = np.arange(len(rows))
        for draw in range(TRIES):
            # Of all rows, because each gap between row numbers takes as long as many rows.
            size = self._noise_size + len(candidates.keep)
            u = noise.uniforms(seed, noise.RARE + draw, rows, size)[at]
            also = u[:, self._noise_size :] < kept_share(draw)
            cells = self._with_kept_cells(
                others,
                candidates,
                source.take(at),
                seed,
                rows[at],
                u[:, : self._noise_size],
                check,
                also,
            )
            is_rare = self._is_between(cells, conditions.nelbo, check)
            numbers[at[is_rare]], codes[at[is_rare]] = cells[0][is_rare], cells[1][is_rare]
            at = at[~is_rare]
        return np.concatenate([first.numbers, numbers]), np.concatenate([first.codes, codes])

    def _prepare_rare(self, conditions: Conditions, seed: int, check: Check | None) -> Prepared:
        """The rows that `generate` makes with the other conditions are searched for rows whose
        nelbo is in the range. Raises InvalidInput if there is none."""
        if (ready := self._prepared_rare) and (ready.conditions, ready.seed) == (conditions, seed):
            return ready
        assert conditions.nelbo is not None, "the range is what is prepared here"
        others = replace(conditions, nelbo=None)
        size = pool_rows(self.schema)
        parts: list[NumbersAndCodes] = []
        searched = 0
        while sum(len(numbers) for numbers, _ in parts) < LEAST and searched < SEARCHES * size:
            rows = np.arange(searched, searched + size)
            numbers, codes = self._generated(others, seed, rows, check)
            is_rare = self._is_between((numbers, codes), conditions.nelbo, check)
            parts.append((numbers[is_rare], codes[is_rare]))
            searched += size
        numbers, codes = map(np.concatenate, zip(*parts, strict=True))
        if not len(numbers):
            raise InvalidInput(
                f"none of {searched:,} rows that meet the other conditions has a nelbo in the range"
                " of the rarity: ask for a wider range"
            )
        odds = Odds(searched, len(numbers), len(numbers), conditions.nelbo)
        keep = fresh = np.zeros(len(self.manifest.order), np.bool_)
        if others:
            plain = self._prepare(others, seed, check)
            keep, fresh = plain.candidates.keep, plain.candidates.fresh
            first = (plain.candidates.first.numbers, plain.candidates.first.codes)
            met = int(self._is_between(first, conditions.nelbo, check).sum())
            odds = replace(odds, rows=plain.odds.rows, met=met)
        pool = Pool(numbers, codes, np.zeros(len(numbers), np.int64))
        candidates = candidates_of(pool, keep, fresh)
        self._prepared_rare = Prepared(conditions, seed, odds, candidates)
        return self._prepared_rare

    def _is_between(
        self, cells: NumbersAndCodes, ends: tuple[float, float], check: Check | None
    ) -> Booleans:
        """bool[n]: rows whose nelbo, as `score` gives it for their table, is in a range."""
        table = decode(*cells, self.schema)
        encoded = encode(table, self.schema)
        costs = self.costs(encoded.numbers, encoded.codes, check)
        nelbo = self.with_rules(costs, self.broken_rules(encoded)).nelbo
        room = ROOM * np.maximum(np.abs(nelbo), 1)
        is_between = np.zeros(table.num_rows, np.bool_)
        is_between[encoded.rows] = (nelbo - room >= ends[0]) & (nelbo + room <= ends[1])
        is_between[encoded.rows] &= np.isfinite(nelbo)
        return is_between

    def _from_candidates(
        self,
        conditions: Conditions,
        seed: int,
        rows: Integers,
        u: Floats,
        check: Check | None,
    ) -> NumbersAndCodes:
        """Cells of rows that meet the conditions. The row numbers ascend."""
        candidates = self._prepare(conditions, seed, check).candidates
        later = rows >= len(candidates.first.group)
        cells = self._near_candidates(conditions, candidates, seed, rows[later], u[later], check)
        if later.all():
            return cells
        first = candidates.first.take(rows[~later])
        return np.concatenate([first.numbers, cells[0]]), np.concatenate([first.codes, cells[1]])

    def _near_candidates(
        self,
        conditions: Conditions,
        candidates: Candidates,
        seed: int,
        rows: Integers,
        u: Floats,
        check: Check | None,
    ) -> NumbersAndCodes:
        """Cells of rows that meet the conditions, each drawn like its candidate."""
        shares = conditions.shares
        group = np.zeros_like(rows) if shares is None else shares.of_rows(rows)
        chosen = noise.uniforms(seed, noise.CHOOSE, rows, 1)[:, 0]
        source = candidates.of_rows(group, chosen)
        if not candidates.free:
            return self._with_kept_cells(conditions, candidates, source, seed, rows, u, check)

        every = np.ones_like(candidates.keep)
        origin = Origin(seed, noise.GENERATE, rows)
        drawn = self._like(source, u, every, ~every, origin, check)
        unmet = ~conditions.met(self.schema, drawn.numbers, drawn.codes)
        if shares is not None:
            cells = drawn.codes[:, self.schema.categoricals.index(shares.column)]
            unmet |= ~shares.are_met(cells, group)
        # Of all rows, because each gap between row numbers takes as long as many rows.
        again = noise.uniforms(seed, noise.AGAIN, rows, self._noise_size)[unmet]
        source = source.take(np.flatnonzero(unmet))
        numbers, codes = self._with_kept_cells(
            conditions, candidates, source, seed, rows[unmet], again, check
        )
        drawn.numbers[unmet] = numbers
        drawn.codes[unmet] = codes
        return drawn.numbers, drawn.codes

    def _with_kept_cells(
        self,
        conditions: Conditions,
        candidates: Candidates,
        source: Pool,
        seed: int,
        rows: Integers,
        u: Floats,
        check: Check | None,
        also: Booleans | None = None,
    ) -> NumbersAndCodes:
        """Cells of rows like their candidates `source`, whose cells of the conditions' columns they
        have, and nearly those where `also` bool[n, d] holds. A row that does not meet the
        conditions, because rules change it, is its candidate."""
        origin = Origin(seed, noise.GENERATE, rows, copies=np.ones_like(rows))
        every = np.ones_like(candidates.keep)
        keep, fresh = candidates.keep, candidates.fresh
        if also is not None:
            keep, fresh = keep | also, fresh | ~keep
        numbers, codes = self._near(source, u, every, keep, fresh, check=check)
        # Another number of the same code may not meet its condition.
        met = conditions.met(self.schema, numbers, codes)
        kept_numbers = candidates.keep[self._number_at]
        numbers = np.where(~met[:, None] & kept_numbers, source.numbers, numbers)
        fixed = np.tile(candidates.keep, (len(rows), 1))
        numbers, codes = self._mended((numbers, codes), fixed, origin, check)
        if not self.rules.rules:
            return numbers, codes

        met = conditions.met(self.schema, numbers, codes)
        met &= ~self.rules.broken(matrix_of(numbers, codes, self.schema)).any(axis=1)
        return (
            np.where(met[:, None], numbers, source.numbers),
            np.where(met[:, None], codes, source.codes),
        )

    def _prepare(self, conditions: Conditions, seed: int, check: Check | None) -> Prepared:
        if (ready := self._prepared) and (ready.conditions, ready.seed) == (conditions, seed):
            return ready

        def like(pool: Pool, seen: Booleans, keep: Booleans, draw: int) -> Pool:
            rows = len(pool.group)
            return self._like(pool, uniforms(rows, draw), seen, keep, origin(rows, draw), check)

        def uniforms(rows: int, draw: int) -> Floats:
            stream = noise.CANDIDATE + draw
            return noise.uniforms(seed, stream, np.arange(rows), self._noise_size)

        def origin(rows: int, draw: int) -> Origin:
            return Origin(seed, noise.CANDIDATES, np.arange(rows), np.full(rows, draw))

        rows = pool_rows(self.schema)
        cells = self._plain(uniforms(rows, 0), origin(rows, 0), check)
        plain = Pool(*cells, group=np.zeros(rows, dtype=np.int64))
        search = CandidateSearch(conditions, self.schema, self.manifest.order, self.rules, like)
        candidates = search.run(plain)
        met = conditions.met(self.schema, plain.numbers, plain.codes)
        odds = Odds(rows, int(met.sum()), candidates.different)
        self._prepared = Prepared(conditions, seed, odds, candidates)
        return self._prepared

    def _like(
        self,
        pool: Pool,
        u: Floats,
        seen: Booleans,
        keep: Booleans,
        origin: Origin,
        check: Check | None,
    ) -> Pool:
        """Rows like those of a pool, which keep the rules. `seen` and `keep` are bool[d]."""
        cells = self._near(pool, u, seen, keep, check=check)
        fixed = np.tile(keep, (len(u), 1))
        return Pool(*self._mended(cells, fixed, origin, check), pool.group)

    def _near(
        self,
        pool: Pool,
        u: Floats,
        seen: Booleans,
        keep: Booleans,
        fresh: Booleans | None = None,
        check: Check | None = None,
    ) -> NumbersAndCodes:
        """Cells of rows like those of a pool, by _from_posterior. `seen` is bool[d], `keep` bool[d]
        or bool[n, d]."""
        rows = len(pool.group)
        shape = (rows, len(self.manifest.order))
        codes = as_modelled(pool.codes, self.schema)
        encoded = Encoded(pool.numbers, codes, np.arange(rows), [], pool.codes)
        return self._from_posterior(
            encoded,
            u,
            np.broadcast_to(seen, shape),
            np.broadcast_to(keep, shape),
            fresh=fresh,
            check=check,
        )

    # What batches share

    def _position(self, column: Column) -> int:
        return self.manifest.order.index(column.name)

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


def _repeated(encoded: Encoded, times: int | Integers) -> Encoded:
    """Each row `times` times, one after the other; `times` may be int64[n]."""
    at = np.repeat(np.arange(len(encoded.rows)), times)
    return Encoded(encoded.numbers[at], encoded.codes[at], encoded.rows[at], [], encoded.named[at])

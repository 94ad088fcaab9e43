"""Rows that meet conditions: each is drawn like a candidate, see nelbo.candidates.

Rows whose nelbo is to be in a range have candidates of their own.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nelbo import noise
from nelbo.artifact import Manifest
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
from nelbo.conditions import Conditions, Odds
from nelbo.encoding import Encoded, as_modelled, decode, encode
from nelbo.errors import InvalidInput
from nelbo.row_sampler import NumbersAndCodes, Origin, RowSampler
from nelbo.row_scorer import RowScorer
from nelbo.rule_keeping import matrix_of

if TYPE_CHECKING:
    from nelbo.sessions import Check

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

ROOM = 1e-5
"""The least distance between the nelbo of a made row and the ends of its range, as a part of the
nelbo. In the graphs of an older Nelbo the last digits depend on the row's place in its batch."""


@dataclass(frozen=True)
class Prepared:
    """What rows with conditions are drawn from."""

    conditions: Conditions
    seed: int
    odds: Odds
    candidates: Candidates


class ConditionalSampler:
    """Draws rows that meet conditions, if there are any: row i depends on the conditions, the seed
    and i alone. What it prepares for a request is kept for its next chunk."""

    def __init__(self, manifest: Manifest, sampler: RowSampler, scorer: RowScorer) -> None:
        self.manifest = manifest
        self.schema = manifest.table_schema
        self.sampler = sampler
        self.rules = sampler.rules
        self.scorer = scorer
        self._prepared: Prepared | None = None
        self._prepared_rare: Prepared | None = None

    def cells(
        self, conditions: Conditions, seed: int, rows: Integers, check: "Check | None"
    ) -> NumbersAndCodes:
        """Cells of the rows with these numbers int64[n], which ascend."""
        if conditions.nelbo:
            return self._rare(conditions, seed, rows, check)
        return self._generated(conditions, seed, rows, check)

    def odds(self, conditions: Conditions, seed: int, check: "Check | None" = None) -> Odds:
        """How probable the conditions are, and from how many rows `cells` draws."""
        if conditions.nelbo:
            return self._prepare_rare(conditions, seed, check).odds
        return self._prepare(conditions, seed, check).odds

    def _generated(
        self, conditions: Conditions, seed: int, rows: Integers, check: "Check | None"
    ) -> NumbersAndCodes:
        """Cells of generated rows, whose nelbo may be any."""
        u = noise.uniforms(seed, noise.GENERATE, rows, self.sampler.noise_size)
        if conditions:
            return self._from_candidates(conditions, seed, rows, u, check)
        return self.sampler.plain(u, Origin(seed, noise.GENERATE, rows), check)

    def _rare(
        self, conditions: Conditions, seed: int, rows: Integers, check: "Check | None"
    ) -> NumbersAndCodes:
        """Cells of rows whose nelbo is in the range of the conditions. The first ones are the
        candidates. Each further one is drawn like a candidate until its nelbo is in the range, with
        ever more of its cells."""
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
            size = self.sampler.noise_size + len(candidates.keep)
            u = noise.uniforms(seed, noise.RARE + draw, rows, size)[at]
            also = u[:, self.sampler.noise_size :] < kept_share(draw)
            cells = self._with_kept_cells(
                others,
                candidates,
                source.take(at),
                seed,
                rows[at],
                u[:, : self.sampler.noise_size],
                check,
                also,
            )
            is_rare = self._is_between(cells, conditions.nelbo, check)
            numbers[at[is_rare]], codes[at[is_rare]] = cells[0][is_rare], cells[1][is_rare]
            at = at[~is_rare]
        return np.concatenate([first.numbers, numbers]), np.concatenate([first.codes, codes])

    def _prepare_rare(self, conditions: Conditions, seed: int, check: "Check | None") -> Prepared:
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
        self, cells: NumbersAndCodes, ends: tuple[float, float], check: "Check | None"
    ) -> Booleans:
        """bool[n]: rows whose nelbo, as `score` gives it for their table, is in a range."""
        table = decode(*cells, self.schema)
        encoded = encode(table, self.schema)
        costs = self.scorer.costs(encoded.numbers, encoded.codes, check)
        nelbo = self.scorer.with_rules(costs, self.scorer.broken_rules(encoded)).nelbo
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
        check: "Check | None",
    ) -> NumbersAndCodes:
        """Cells of rows that meet the conditions."""
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
        check: "Check | None",
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
        again = noise.uniforms(seed, noise.AGAIN, rows, self.sampler.noise_size)[unmet]
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
        check: "Check | None",
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
        kept_numbers = candidates.keep[self.sampler.number_at]
        numbers = np.where(~met[:, None] & kept_numbers, source.numbers, numbers)
        fixed = np.tile(candidates.keep, (len(rows), 1))
        numbers, codes = self.sampler.mended((numbers, codes), fixed, origin, check)
        if not self.rules.rules:
            return numbers, codes

        met = conditions.met(self.schema, numbers, codes)
        met &= ~self.rules.broken(matrix_of(numbers, codes, self.schema)).any(axis=1)
        return (
            np.where(met[:, None], numbers, source.numbers),
            np.where(met[:, None], codes, source.codes),
        )

    def _prepare(self, conditions: Conditions, seed: int, check: "Check | None") -> Prepared:
        if (ready := self._prepared) and (ready.conditions, ready.seed) == (conditions, seed):
            return ready

        def like(pool: Pool, seen: Booleans, keep: Booleans, draw: int) -> Pool:
            rows = len(pool.group)
            return self._like(pool, uniforms(rows, draw), seen, keep, origin(rows, draw), check)

        def uniforms(rows: int, draw: int) -> Floats:
            stream = noise.CANDIDATE + draw
            return noise.uniforms(seed, stream, np.arange(rows), self.sampler.noise_size)

        def origin(rows: int, draw: int) -> Origin:
            return Origin(seed, noise.CANDIDATES, np.arange(rows), np.full(rows, draw))

        rows = pool_rows(self.schema)
        cells = self.sampler.plain(uniforms(rows, 0), origin(rows, 0), check)
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
        check: "Check | None",
    ) -> Pool:
        """Rows like those of a pool, which keep the rules. `seen` and `keep` are bool[d]."""
        cells = self._near(pool, u, seen, keep, check=check)
        fixed = np.tile(keep, (len(u), 1))
        return Pool(*self.sampler.mended(cells, fixed, origin, check), pool.group)

    def _near(
        self,
        pool: Pool,
        u: Floats,
        seen: Booleans,
        keep: Booleans,
        fresh: Booleans | None = None,
        check: "Check | None" = None,
    ) -> NumbersAndCodes:
        """Cells of rows like those of a pool. `seen` is bool[d], `keep` bool[d] or bool[n, d]."""
        rows = len(pool.group)
        shape = (rows, len(self.manifest.order))
        codes = as_modelled(pool.codes, self.schema)
        encoded = Encoded(pool.numbers, codes, np.arange(rows), [], pool.codes)
        return self.sampler.from_posterior(
            encoded,
            u,
            np.broadcast_to(seen, shape),
            np.broadcast_to(keep, shape),
            fresh=fresh,
            check=check,
        )

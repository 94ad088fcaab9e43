"""Rows, drawn from the graphs of an artifact: new ones, and ones like given rows.

All drawn rows keep the rules of the table, and each depends on its own random numbers alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nelbo import noise
from nelbo.artifact import Manifest
from nelbo.encoding import Encoded, as_modelled
from nelbo.errors import InvalidArtifact
from nelbo.expectations import hide
from nelbo.rule_keeping import ATTEMPTS, RuleKeeper, encoded_rows, matrix_of
from nelbo.ties import Ties

if TYPE_CHECKING:
    from nelbo.sessions import BatchedGraphs, Check

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

NumbersAndCodes = tuple[Floats, Integers]
"""Numbers float64[n, …] and codes int64[n, …] of rows, as nelbo.encoding.decode takes them."""
NOTHING: Mapping[str, Floats] = MappingProxyType({})


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


def flag(value: bool) -> Booleans:
    """A yes or no as the graphs take it."""
    return np.array([value])


class RowSampler:
    """Draws the cells of rows. Each row takes `noise_size` uniform numbers."""

    def __init__(self, manifest: Manifest, graphs: "BatchedGraphs", rules: RuleKeeper) -> None:
        self.manifest = manifest
        self.schema = manifest.table_schema
        self.graphs = graphs
        self.rules = rules
        self.ties = Ties(manifest.ties, self.schema, manifest.order)
        self.noise_size = sum(manifest.draws.values())
        self.number_at = [manifest.order.index(column.name) for column in self.schema.numbers]
        self._code_at = [manifest.order.index(column.name) for column in self.schema.categoricals]

    def plain(self, u: Floats, origin: Origin, check: "Check | None") -> NumbersAndCodes:
        """Cells of new rows without conditions, which keep the rules."""
        fixed = np.zeros((len(u), len(self.manifest.order)), dtype=np.bool_)
        return self.mended(self._from_prior(u, check), fixed, origin, check)

    def redraw(
        self,
        encoded: Encoded,
        hidden: Booleans,
        times: int,
        seed: int,
        check: "Check | None" = None,
    ) -> NumbersAndCodes:
        """Each row `times` times, one after the other, with the cells where `hidden` bool[n, d] is
        true drawn given its other cells.

        Draw k of a row depends on the seed, the row's number, k and the other cells alone.
        """
        without = hide(encoded, self.schema, self.manifest.order, hidden)
        u = noise.repeated_uniforms(seed, noise.EXPLAIN, encoded.rows, times, self.noise_size)
        seen = np.repeat(~hidden, times, axis=0)
        return self.from_posterior(repeated_rows(without, times), u, seen, seen, check=check)

    def from_posterior(
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
        check: "Check | None" = None,
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
        z, x, *posterior = self.graphs.run("posterior", rows, [flag(mode)], check)
        if spread:
            (z,) = self.graphs.run("spread", [*posterior, u_z], [np.array([spread])], check)
        numbers, codes = self.draw(z, x, keep, u[:, for_z:], mode, fill, check)

        is_own = keep & copied
        numbers = np.where(is_own[:, self.number_at], encoded.numbers, numbers)
        codes = np.where(keep[:, self._code_at], encoded.named, codes)
        return numbers, self.ties.redrawn(numbers, codes, keep, u, mode)

    def mended(
        self,
        drawn: NumbersAndCodes,
        fixed: Booleans,
        origin: Origin,
        check: "Check | None",
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
            u = origin.uniforms(at, attempt, self.noise_size)
            again = self.from_posterior(without, u, ~hidden, ~hidden, check=check)
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

    def draw(
        self,
        z: Floats,
        x: Integers,
        keep: Booleans,
        u: Floats,
        mode: bool = False,
        fill: bool = False,
        check: "Check | None" = None,
    ) -> NumbersAndCodes:
        """Numbers float64[n, …] and codes int64[n, …] of n rows from p(x|z). Cells where `keep`
        bool[n, d] is true are copied from x.

        With `mode` each cell has its most probable value; with `fill` no cell is missing. The graph
        of an older artifact has no input `fill`. Raises InvalidArtifact for a code that no category
        has.
        """
        flags = [flag(mode), flag(fill)][: len(self.manifest.graphs["generate"].inputs) - 4]
        numbers, codes = self.graphs.run("generate", [z, x, keep, u], flags, check)
        categoricals = self.schema.categoricals
        highest = [len(column.categories) + 1 + len(column.rarer) for column in categoricals]
        if ((codes < 0) | (codes > np.array(highest, dtype=np.int64))).any():
            raise InvalidArtifact(
                "the graph 'generate' gives a code that no category has; train the model again"
            )
        return numbers, codes

    def _from_prior(self, u: Floats, check: "Check | None") -> NumbersAndCodes:
        """Cells of new rows: z from the prior, then every column from p(x|z)."""
        if not len(u):
            none = len(self.schema.numbers), len(self.schema.categoricals)
            return np.empty((0, none[0])), np.empty((0, none[1]), dtype=np.int64)
        columns = len(self.manifest.order)
        for_z = self.manifest.draws["z"]
        blank = np.zeros((len(u), self.manifest.codes or columns), dtype=np.int64)
        keep_none = np.zeros((len(u), columns), dtype=np.bool_)
        (z,) = self.graphs.run("prior", [u[:, :for_z]], check=check)
        numbers, codes = self.draw(z, blank, keep_none, u[:, for_z:], check=check)
        return numbers, self.ties.redrawn(numbers, codes, keep_none, u)


def repeated_rows(encoded: Encoded, times: int | Integers) -> Encoded:
    """Each row `times` times, one after the other; `times` may be int64[n]."""
    at = np.repeat(np.arange(len(encoded.rows)), times)
    return Encoded(encoded.numbers[at], encoded.codes[at], encoded.rows[at], [], encoded.named[at])

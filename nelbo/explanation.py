"""Explanation: the cells that make a row odd, and what they should be.

A cell explains its row if it is surprising and its value is not what the model expects there, given
all other cells of the row. Where its value and that of one other cell seldom go together, whatever
the rest of the row, the other cell is named too: either of the two may be wrong.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nelbo.applied_rules import AppliedRule
from nelbo.cells import Array, written
from nelbo.encoding import (
    Encoded,
    as_modelled,
    encode,
    shortened,
    spelled_field,
    written_as,
)
from nelbo.expectations import DRAWS, FEW, expectation, is_expected, unusual_time
from nelbo.forms import identifiers_of, text_of
from nelbo.novelty import BROKEN, MISSING, MISSPELT, ORDINARY
from nelbo.rows import Anomaly
from nelbo.schema import Column
from nelbo.spelling.types import as_type
from nelbo.surprise import ONE_IN_A_HUNDRED, ONE_IN_TEN, Levels

if TYPE_CHECKING:
    from nelbo.engine import Engine

SPARE = 5
"""Cells that are looked at beyond those that are asked for, as some turn out to be ordinary."""
PARTNERS = 32
"""Maximum number of cells of a row, the most surprising ones, that a cell may not fit."""
COMPLETIONS = 16
"""Rows that share one or two cells with the row, and whose other cells are drawn."""
EASIEST = 0.25
"""Quantile of a cell's surprises in the completions: the rest of a row should suit it."""
TOGETHER = 3.0
PART = 0.5
"""Two cells do not fit if they surprise by at least TOGETHER more than each does alone, and by at
least this part of the cell's own surprise. 3 means that the two go together 20 times less often
than they would by chance."""
AS_A_WHOLE = "no single cell explains this row"

_TYPES: dict[str, pa.DataType] = {
    "row": pa.int64(),
    **dict.fromkeys(("nelbo", "surprise", "p_value"), pa.float64()),
    **dict.fromkeys(("column", "value", "expected", "low", "high"), pa.string()),
    **dict.fromkeys(("share", "missing", "term", "cell_surprise"), pa.float64()),
    **dict.fromkeys(("reason", "against"), pa.string()),
}
EXPLAINED = pa.schema(_TYPES)
"""Explained cells as a table. The identifiers of their rows come after `row`."""


@dataclass(frozen=True)
class ExplainedCell:
    """A cell of a row and, where its value is not what the model expects, what that is. Values are
    texts, as the row's own table has them; None is a missing value."""

    column: str
    value: str | None
    term: float
    cell_surprise: float
    stands_out: bool
    """Whether the value is not expected, or has something unusual."""
    reason: str | None
    """What is wrong with the value, in words, where more can be said than what is expected."""
    against: str | None = None
    """The column of the cell that this one does not fit."""
    expected: str | None = None
    """The median of the draws, or the most frequent one."""
    low: str | None = None
    high: str | None = None
    share: float | None = None
    """Of the draws that are the expected category; None for numbers and dates."""
    missing: float | None = None
    """Share of the draws without a value; None where the value is expected."""


def explained(
    engine: "Engine",
    rows: Iterable[tuple[Anomaly, pa.RecordBatch]],
    identifiers: Sequence[str],
    most: int,
    seed: int,
) -> pa.Table:
    """The cells that explain each row (see `explain_row`), with the texts of its identifiers. Where
    an identifier is called like a column of EXPLAINED, the latter is called nelbo_NAME."""

    def cells_of(row: Anomaly, cells: pa.RecordBatch) -> list[ExplainedCell]:
        return explain_row(engine, row, cells, most, seed)

    return table_of_cells(engine, rows, identifiers, EXPLAINED, cells_of)


def table_of_cells(
    engine: "Engine",
    rows: Iterable[tuple[Anomaly, pa.RecordBatch]],
    identifiers: Sequence[str],
    form: pa.Schema,
    cells_of: Callable[[Anomaly, pa.RecordBatch], Sequence[Any]],
) -> pa.Table:
    """The cells (dataclasses) that `cells_of` gives for each row, one a line with the figures of
    its row, as a table of this form. The texts of the row's identifiers are after the row
    number."""
    names = {name: f"nelbo_{name}" if name in identifiers else name for name in form.names}
    lines = []
    for row, cells in rows:
        texts_of = identifiers_of(cells, identifiers, engine.schema)
        for cell in cells_of(row, cells):
            values = row.model_dump() | asdict(cell)
            lines.append({new: values[name] for name, new in names.items()} | texts_of)

    first, *rest = (field.with_name(names[field.name]) for field in form)
    named = [pa.field(name, pa.string()) for name in identifiers]
    return pa.Table.from_pylist(lines, pa.schema([first, *named, *rest]))


def explain_row(
    engine: "Engine", row: Anomaly, cells: pa.RecordBatch, most: int, seed: int
) -> list[ExplainedCell]:
    """The cells that explain a scored row, the most surprising first: at most `most`. Where no
    single cell does, a pair: a very surprising cell with the one that it does not fit or, where
    there is none, the two most surprising ones. `cells` is the row itself, as a batch."""
    this = _Row(engine, row, cells, seed)
    highest = row.highest(max(2, most + SPARE))
    looked_at = list(this.beside_draws([column for column, _ in highest]))
    single = [cell for cell in looked_at if this.is_surprising(cell) and cell.stands_out]
    if single and single[0].cell_surprise >= PART * looked_at[0].cell_surprise:
        first = this.with_partner(single[0])
        return [first, *this.not_due_to(first, single[1:])][:most]

    if looked_at[0].cell_surprise >= ONE_IN_A_HUNDRED:
        first = this.with_partner(looked_at[0])
        if first.against:
            (second,) = this.beside_draws([first.against])
            return [first, this.unfit(second, first.column)]
    return [replace(cell, reason=AS_A_WHOLE) for cell in looked_at[:2]]


@dataclass(frozen=True)
class _Row:
    """A scored row and its cells."""

    engine: "Engine"
    scored: Anomaly
    cells: pa.RecordBatch
    seed: int

    @cached_property
    def encoded(self) -> Encoded:
        return encode(self.cells, self.engine.schema, self.scored.row)

    @cached_property
    def levels(self) -> Levels:
        """The novelty levels [1, d] of the cells."""
        scorer = self.engine.scorer
        costs = scorer.costs(self.encoded.numbers, self.encoded.codes)
        return scorer.levels(self.cells, self.encoded, self.broken, costs, self.scored.row)

    @cached_property
    def broken(self) -> NDArray[np.bool_]:
        """The rules [1, R] that the row breaks."""
        return self.engine.scorer.broken_rules(self.encoded)

    def beside_draws(self, names: Sequence[str]) -> Iterator[ExplainedCell]:
        """The cells of these columns, beside what the model expects there."""
        engine = self.engine
        schema = engine.schema
        numbers, codes = self._redrawn(self._are_in([[name] for name in names]), DRAWS)
        for i, name in enumerate(names):
            draws = slice(i * DRAWS, (i + 1) * DRAWS)
            summary = expectation(schema, name, numbers[draws], codes[draws])
            level = int(self.levels[0, self._at(name)])
            cannot_be_drawn = self._cannot_be_drawn(name, summary)
            ordinary = level < MISSPELT and (
                cannot_be_drawn or is_expected(schema, name, self.encoded, summary, codes[draws])
            )
            unusual = unusual_time(schema, name, self.encoded, numbers[draws]) if ordinary else None
            yield ExplainedCell(
                column=name,
                value=self._value(name),
                term=self.scored.terms[name],
                cell_surprise=self.scored.surprises[name],
                stands_out=not ordinary or unusual is not None,
                reason=unusual or self._novelty(name, level),
                against=self._other_of_rule(name) if level == BROKEN else None,
                **({} if ordinary or cannot_be_drawn else self._spelled(name, summary)),
            )

    def is_surprising(self, cell: ExplainedCell) -> bool:
        """Whether fewer than one in ten cells of the column surprise so much. An artifact of an
        older Nelbo has terms in the place of surprises, which do not tell."""
        return self.engine.manifest.surprise is None or cell.cell_surprise >= ONE_IN_TEN

    def not_due_to(
        self, first: ExplainedCell, cells: Sequence[ExplainedCell]
    ) -> list[ExplainedCell]:
        """The cells without those that are odd beside the first one alone: with another value
        there, they would be ordinary. The cell that the first one does not fit stays."""
        if not cells or self.engine.manifest.surprise is None:
            return list(cells)
        others = [name for name in self.engine.manifest.order if name != first.column]
        (surprises,) = self._surprises_beside([others])
        return [
            self.unfit(cell, first.column) if cell.column == first.against else cell
            for cell in cells
            if cell.reason
            or cell.column == first.against
            or surprises[self._at(cell.column)] >= ONE_IN_TEN
        ]

    def with_partner(self, cell: ExplainedCell) -> ExplainedCell:
        """The cell with the one that it does not fit, where there is one."""
        partner = None if cell.reason else self._partner(cell)
        return self.unfit(cell, partner) if partner else cell

    def unfit(self, cell: ExplainedCell, partner: str) -> ExplainedCell:
        """The cell as one that does not fit another."""
        return replace(cell, reason=self._unfit_for(partner), against=partner)

    def _unfit_for(self, partner: str) -> str:
        value = self._value(partner)
        words = f"a missing {partner}" if value is None else f"{partner} {shortened(value)}"
        return f"does not fit {words}"

    def _partner(self, cell: ExplainedCell) -> str | None:
        """The column of the cell that a cell does not fit."""
        since = self._column(cell.column).since
        if since and cell.value is not None:
            return since  # the model sees such a date as the time since the other one alone

        name = cell.column
        others = [other for other, _ in self.scored.highest(PARTNERS) if other != name]
        kept = [[name], *([other] for other in others), *([name, other] for other in others)]
        own, alone, both = np.split(self._surprises_beside(kept), [1, 1 + len(others)])

        at = self._at(name)
        together = {
            other: both[i, at] - own[0, at] + both[i, self._at(other)] - alone[i, self._at(other)]
            for i, other in enumerate(others)
        }
        partner = max(together, key=together.__getitem__, default=None)
        least = max(TOGETHER, PART * cell.cell_surprise)
        return partner if partner and together[partner] >= least else None

    def _surprises_beside(self, kept: Sequence[Sequence[str]]) -> NDArray[np.float64]:
        """The surprises [k, d] of the row's cells where some columns are kept and the others are
        drawn given these: the quantile EASIEST of COMPLETIONS draws. `kept` [k] are the columns."""
        engine = self.engine
        is_kept = self._are_in(kept)
        numbers, codes = self._redrawn(~is_kept, COMPLETIONS)
        costs = engine.scorer.costs(numbers, as_modelled(codes, engine.schema))
        levels = np.where(is_kept, self.levels, np.int8(ORDINARY))
        _, surprises = engine.scorer.surprise(costs, np.repeat(levels, COMPLETIONS, axis=0))
        by_kept = surprises.reshape(len(kept), COMPLETIONS, -1)
        return np.asarray(np.quantile(by_kept, EASIEST, axis=1))

    def _are_in(self, columns: Sequence[Sequence[str]]) -> NDArray[np.bool_]:
        """A mask bool[k, d] of some columns, for each of k lists of them."""
        order = self.engine.manifest.order
        return np.array([[name in of_row for name in order] for of_row in columns])

    def _redrawn(
        self, hidden: NDArray[np.bool_], times: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Draws of the row's hidden cells, `times` for each row of `hidden` bool[k, d]."""
        at = np.zeros(len(hidden), dtype=np.int64)
        own = self.encoded
        copies = Encoded(own.numbers[at], own.codes[at], own.rows[at], [], own.named[at])
        return self.engine.redraw(copies, hidden, times, self.seed)

    def _novelty(self, name: str, level: int) -> str | None:
        """What is new about a value, or the rule that it breaks, in words."""
        value = self._value(name)
        if level == BROKEN:
            rule = self._broken_rule(name).rule.text
            other = self._other_of_rule(name)
            return f"{self._unfit_for(other)}: {rule}" if other else f"breaks the rule {rule}"
        if value is None:
            return "never missing in training" if self._is_never_missing(name) else None
        if level in (ORDINARY, MISSING):
            return None
        column = self._column(name)
        match = self.engine.scorer.novelty.match(column, value)
        if match:
            return f"did you mean {match}?"
        return "not in training" if self._names_all(column) else "rare or not in training"

    def _broken_rule(self, name: str) -> AppliedRule:
        """The first rule about a column that the row breaks."""
        at = self._at(name)
        rules = zip(self.engine.rules.rules, self.broken[0], strict=True)
        return next(rule for rule, broken in rules if broken and at in rule.columns)

    def _other_of_rule(self, name: str) -> str | None:
        """The other column of the broken rule about a column, if the rule is about two."""
        order = self.engine.manifest.order
        others = [order[at] for at in self._broken_rule(name).columns if order[at] != name]
        return others[0] if len(others) == 1 else None

    def _names_all(self, column: Column) -> bool:
        """Whether the artifact names all categories that the column had in training."""
        most = self.engine.manifest.config.get("max_categories", 0)
        return not column.rarer and len(column.categories) < most

    def _is_never_missing(self, name: str) -> bool:
        surprise = self.engine.manifest.surprise
        return surprise is not None and surprise.never(self._at(name), MISSING)

    def _cannot_be_drawn(self, name: str, summary: Mapping[str, Array]) -> bool:
        """Whether the draws of a category are missing although the column seldom is: its values are
        too rare to be generated. Such draws say nothing about a value."""
        surprise = self.engine.manifest.surprise
        if surprise is None or self._column(name).kind != "categorical":
            return False
        is_seldom_missing = surprise.columns[self._at(name)].novelty[MISSING] >= ONE_IN_TEN
        is_missing = summary["missing"][0].as_py() > 1 - FEW
        return is_missing and is_seldom_missing and self._value(name) is not None

    def _value(self, name: str) -> str | None:
        return text_of(self.cells, self._column(name), self.engine.schema)

    def _spelled(self, name: str, summary: Mapping[str, Array]) -> dict[str, Any]:
        """What is expected, spelled as the row's own table has it."""
        field = spelled_field(written_as(self._column(name), self.cells.schema.field(name)))
        figures = {
            figure: written(as_type(summary[figure], field.type), field)[0].as_py()
            for figure in ("expected", "low", "high")
        }
        return figures | {share: summary[share][0].as_py() for share in ("share", "missing")}

    def _column(self, name: str) -> Column:
        return next(column for column in self.engine.schema.columns if column.name == name)

    def _at(self, name: str) -> int:
        return self.engine.manifest.order.index(name)

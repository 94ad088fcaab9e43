"""The repair of an odd row: the fewest cells to change so that the row is ordinary.

Cells are added greedily. In each step, each of the most surprising cells is hidden beside those
that are hidden already, all of them are drawn many times given the rest of the row, and the draw
that surprises least is kept. Cells that the row turns out not to need keep their own value.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from nelbo.cells import written
from nelbo.explanation import table_of_cells
from nelbo.forms import text_of
from nelbo.rows import Anomaly

if TYPE_CHECKING:
    from nelbo.engine import Engine

ORDINARY_P = 0.05
"""A row with at least this p-value is ordinary."""
TRIED = 5
"""Number of cells, the most surprising ones, that each step tries."""
MOST_CHANGED = 8
"""Maximum number of cells that are changed."""
TIMES = 33
"""Number of draws of the hidden cells."""

_TYPES: dict[str, pa.DataType] = {
    "row": pa.int64(),
    **dict.fromkeys(("nelbo", "surprise", "p_value"), pa.float64()),
    **dict.fromkeys(("column", "value", "repaired"), pa.string()),
    **dict.fromkeys(("nelbo_after", "surprise_after", "p_value_after"), pa.float64()),
}
REPAIRED = pa.schema(_TYPES)
"""Repaired cells as a table. The identifiers of their rows come after `row`."""


@dataclass(frozen=True)
class RepairedCell:
    """A cell and its new value, as texts of the row's own table; None is a missing value. The
    figures are those of the row with all its new values."""

    column: str
    value: str | None
    repaired: str | None
    nelbo_after: float
    surprise_after: float
    p_value_after: float


def repaired(
    engine: "Engine",
    rows: Iterable[tuple[Anomaly, pa.RecordBatch]],
    identifiers: Sequence[str],
    seed: int,
) -> pa.Table:
    """The cells that each row changes (see `repair_row`), with the texts of its identifiers. Where
    an identifier is called like a column of REPAIRED, the latter is called nelbo_NAME."""

    def cells_of(row: Anomaly, cells: pa.RecordBatch) -> list[RepairedCell]:
        return repair_row(engine, row, cells, seed)

    return table_of_cells(engine, rows, identifiers, REPAIRED, cells_of)


def repair_row(
    engine: "Engine", row: Anomaly, cells: pa.RecordBatch, seed: int
) -> list[RepairedCell]:
    """The cells to change so that a scored row is ordinary, in the order of the table; none if it
    is ordinary. `cells` is the row itself, as a batch.

    If MOST_CHANGED cells are not enough, the p-value after them is below ORDINARY_P.
    """
    best = _Repair((), cells, row)
    while best.scored.p_value < ORDINARY_P and len(best.columns) < MOST_CHANGED:
        others = [name for name in best.scored.surprises if name not in best.columns]
        wider = [_least_odd(engine, cells, (*best.columns, name), seed) for name in others[:TRIED]]
        if not wider:
            break
        best = min(wider, key=lambda repair: repair.scored.surprise)

    for name in best.columns[:-1]:
        if best.scored.p_value >= ORDINARY_P:
            rest = tuple(column for column in best.columns if column != name)
            fewer = _least_odd(engine, cells, rest, seed)
            best = fewer if fewer.scored.p_value >= ORDINARY_P else best
    return list(_changes(engine, cells, best))


@dataclass(frozen=True)
class _Repair:
    """A row with other values in some columns, as a batch, and its scores."""

    columns: tuple[str, ...]
    cells: pa.RecordBatch
    scored: Anomaly


def _least_odd(
    engine: "Engine", cells: pa.RecordBatch, columns: tuple[str, ...], seed: int
) -> _Repair:
    """The least surprising of TIMES draws of these columns, given the other cells of the row."""
    hidden = cells
    for name in columns:
        at = hidden.schema.get_field_index(name)
        nothing: Any = pa.nulls(1, hidden.column(at).type)
        hidden = hidden.set_column(at, hidden.schema.field(at), nothing)
    draws = pa.Table.from_batches([hidden] * TIMES).combine_chunks().to_batches()[0]
    made_rows = engine.reconstruct(draws, 0, seed, columns=columns, leave_usual=True).batch
    made_rows = made_rows.select(range(1, made_rows.num_columns))
    scores = engine.score(made_rows)
    (first,) = replace(scores, surprise=-scores.surprise).top(1)
    least = made_rows.slice(first.row, 1)
    (scored,) = engine.score(least).top(1)
    return _Repair(columns, least, scored)


def _changes(engine: "Engine", cells: pa.RecordBatch, repair: _Repair) -> Iterator[RepairedCell]:
    after = repair.scored
    for column in engine.schema.columns:
        if column.name in repair.columns:
            field = repair.cells.schema.field(column.name)
            new: str | None = written(repair.cells.column(column.name), field)[0].as_py()
            value = text_of(cells, column, engine.schema)
            yield RepairedCell(column.name, value, new, after.nelbo, after.surprise, after.p_value)

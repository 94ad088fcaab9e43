"""The odd rows of a table, explained or repaired: for `nelbo explain`, for `TableModel.explain` and
for explain jobs."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from nelbo.explanation import explained
from nelbo.forms import identifier_columns
from nelbo.jobs import ExplainRequest, check_row_numbers
from nelbo.row_repair import repaired
from nelbo.rows import Anomaly, RowError

if TYPE_CHECKING:
    from nelbo.engine import Engine
    from nelbo.sessions import Check


@dataclass(frozen=True)
class OddRows:
    """Rows of a table with their scores, each row as a batch of its own. `identifiers` are the
    columns of the table that name its rows."""

    rows: Sequence[tuple[Anomaly, pa.RecordBatch]]
    identifiers: Sequence[str]


def find_odd_rows(
    engine: "Engine",
    batches: Iterable[pa.RecordBatch],
    request: ExplainRequest,
    add_errors: Callable[[Sequence[RowError]], None],
    *,
    name: str,
    check: "Check | None" = None,
) -> OddRows:
    """The rows of a table that a request names or, if it names none, its least likely ones: in the
    order of the rank. `add_errors` gets the rows that cannot be scored.

    Raises NotFound, with the `name` of the table, if a named row is absent.
    """
    numbers = sorted(set(request.row_numbers))
    odd: list[tuple[Anomaly, pa.RecordBatch]] = []
    identifiers: Sequence[str] = ()
    end = 0
    for batch in batches:
        first_row = end
        end += batch.num_rows
        if not first_row:
            identifiers = identifier_columns(batch, engine.schema)
        named = [row for row in numbers if first_row <= row < end]
        parts = [(row, batch.slice(row - first_row, 1)) for row in named]
        for first, part in parts if numbers else [(first_row, batch)]:
            scores = engine.score(part, first, check)
            add_errors(scores.errors)
            for row in scores.top(request.top, rank=request.rank):
                odd.append((row, part.take(pa.array([row.row - first]))))
        odd.sort(key=lambda row: (-getattr(row[0], request.rank), row[0].row))
        odd = odd if numbers else odd[: request.top]

    check_row_numbers(numbers, end, name)
    return OddRows(odd, identifiers)


def cells_of_odd_rows(
    engine: "Engine", odd: OddRows, request: ExplainRequest, check: "Check | None" = None
) -> pa.Table:
    """The cells that explain the rows, or the cells to change: tables of the forms EXPLAINED and
    REPAIRED. The same rows and request give the same table."""

    def checked() -> Iterator[tuple[Anomaly, Any]]:
        for row in odd.rows:
            if check is not None:
                check()
            yield row

    if request.repair:
        return repaired(engine, checked(), odd.identifiers, request.seed)
    return explained(engine, checked(), odd.identifiers, request.columns, request.seed)

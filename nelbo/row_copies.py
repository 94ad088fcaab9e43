"""Copies of the rows of a table: `per_row` of each, or as many as balance a column, so that all its
categories have as many rows and copies as the most frequent one has rows."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nelbo.encoding import encode
from nelbo.errors import InvalidInput, InvalidRequest
from nelbo.jobs import MOST_COPIES, AugmentRequest, seed_of
from nelbo.rows import MadeRows
from nelbo.schema import CATEGORICALS, Column, Schema

if TYPE_CHECKING:
    from nelbo.engine import Engine
    from nelbo.sessions import Check

Integers = NDArray[np.int64]
PART_ROWS = 8_192
"""Maximum number of rows and copies that are in memory with their random numbers."""


def copies_of_batch(
    engine: "Engine",
    batch: pa.RecordBatch,
    first_row: int,
    request: AugmentRequest,
    copies: Integers | None,
    check: "Check | None" = None,
) -> Iterator[MadeRows]:
    """The copies of the rows of a batch, whose first row has this number in its table. `copies` are
    those that `balanced_copies` gives for the table; None for `per_row` of each row."""
    end = first_row + batch.num_rows
    keep = request.keep if request.balance is None else (*request.keep, request.balance)
    times = np.full(batch.num_rows, request.per_row) if copies is None else copies[first_row:end]
    for first, part, of_part in _parts(batch, first_row, times):
        yield engine.augment(part, first, of_part, seed_of(request), request.spread, keep, check)


def check_balanced(schema: Schema, balance: str | None, per_row: int) -> None:
    """Raise InvalidInput or InvalidRequest if the copies of a request cannot be balanced."""
    if balance is None:
        return
    column = _column(schema, balance)
    if column is None or column.kind not in CATEGORICALS:
        names = [each.name for each in schema.categoricals]
        raise InvalidInput(
            f"the model has no categories in a column {balance!r} to balance; its columns of"
            f" categories are {', '.join(names) or 'none'}"
        )
    if per_row != 1:
        raise InvalidRequest(
            "balance decides how many copies each row gets: leave out per_row, or balance"
        )


def balanced_copies(batches: Iterable[pa.RecordBatch], schema: Schema, balance: str) -> Integers:
    """int64[n]: the number of copies of each row of a table.

    The rows of a category get equally many copies, or the first ones one more. Rows with a missing
    value, or with a category that the model does not know, get none. Raises InvalidInput where a
    row would need more than MOST_COPIES.
    """
    column = _column(schema, balance)
    assert column is not None, "check_balanced has accepted it"
    parts = [_codes(batch, column, schema) for batch in batches]
    codes = np.concatenate([np.empty(0, np.int64), *parts])
    copies = np.zeros(len(codes), np.int64)
    nameless = (len(column.categories), len(column.categories) + 1)
    present, counts = np.unique(codes[~np.isin(codes, nameless)], return_counts=True)
    for code, count in zip(present.tolist(), counts.tolist(), strict=True):
        each, more = divmod(int(counts.max()) - count, count)
        if each + bool(more) > MOST_COPIES:
            names = [*column.categories, "", "", *(name for name, _ in column.rarer)]
            raise InvalidInput(
                f"the table has {count:,} rows with {names[code]!r} in column {balance!r}, and"
                f" {counts.max():,} with the most frequent category; a row has at most"
                f" {MOST_COPIES:,} copies: give more rows of this category, or leave them out"
            )
        own = np.flatnonzero(codes == code)
        copies[own] = each
        copies[own[:more]] += 1
    return copies


def _parts(
    batch: pa.RecordBatch, first_row: int, copies: Integers
) -> Iterator[tuple[int, pa.RecordBatch, Integers]]:
    """A batch in parts of at most PART_ROWS rows and copies, or of a single row; each with the
    number of its first row and the copies of its rows."""
    if not batch.num_rows:
        yield first_row, batch, copies
    upto = np.cumsum([0, *(copies + 1)])
    start = 0
    while start < batch.num_rows:
        end = int(np.searchsorted(upto, upto[start] + PART_ROWS, side="right")) - 1
        end = max(start + 1, end)
        yield first_row + start, batch.slice(start, end - start), copies[start:end]
        start = end


def _column(schema: Schema, name: str) -> Column | None:
    return next((column for column in schema.modelled if column.name == name), None)


def _codes(batch: pa.RecordBatch, column: Column, schema: Schema) -> Integers:
    """int64[n]: the categories of rows as encode gives them."""
    alone = Schema(columns=(column,), missing=schema.missing)
    return encode(batch.select([column.name]), alone).named[:, 0]

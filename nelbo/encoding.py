"""Rows as numbers and codes, and back: the one place where names and strings become what the graphs
take.

All other maths (scaling, bins, densities) is inside the graphs.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nelbo import cells
from nelbo.cells import Cells
from nelbo.errors import InvalidInput
from nelbo.rows import RowError
from nelbo.schema import Column, Schema
from nelbo.spelling import dates
from nelbo.spelling.columns import MAYBE_MISSING, Spelling
from nelbo.spelling.types import as_type, type_of

SHOWN = 40
"""Characters of a value that a message repeats."""

_WISHES = {
    "not-a-number": "a number",
    "not-finite": "a finite number",
    "not-an-integer": "a whole number",
    "not-a-boolean": "true or false",
    "not-a-date": "a date such as 2024-01-31 or 2024-01-31T12:00:00",
}


@dataclass(frozen=True)
class Encoded:
    """The usable rows of a batch.

    numbers: float64[n, len(schema.numbers)], NaN = missing; datetimes in microseconds since the
    epoch, or since the column that theirs is counted from (missing where that is). codes: int64[n,
    len(schema.categoricals)], an index into column.categories; len(categories) = other, + 1 =
    missing. rows: int64[n], the row number of each; rows with an error are left out of all three.
    """

    numbers: NDArray[np.float64]
    codes: NDArray[np.int64]
    rows: NDArray[np.int64]
    errors: list[RowError]


def encode(batch: pa.RecordBatch, schema: Schema, first_row: int = 0) -> Encoded:
    """Encode a batch that passed check_columns and whose first row has the number first_row.

    Text is read as its file writes it where a field of the batch says so (spelling.columns), else
    as the schema's table did.
    """
    numbers = np.empty((batch.num_rows, len(schema.numbers)), np.float64)
    codes = np.empty((batch.num_rows, len(schema.categoricals)), np.int64)
    faults: dict[str, Cells] = {}
    for at, column in enumerate(schema.numbers):
        faults[column.name] = found = _numbers(batch, column, schema)
        numbers[:, at] = found.values
    for at, column in enumerate(schema.categoricals):
        if column.kind == "boolean":
            faults[column.name] = found = cells.booleans(
                batch.column(column.name), missing_in(column, schema)
            )
            codes[:, at] = np.where(np.isnan(found.values), 3, found.values)
        else:
            codes[:, at] = cells.codes(
                batch.column(column.name), missing_in(column, schema), column.categories
            )
    errors = _errors(batch, schema, faults, first_row)
    rows = np.arange(first_row, first_row + batch.num_rows, dtype=np.int64)
    if errors:
        kept = np.ones(batch.num_rows, bool)
        kept[[error.row - first_row for error in errors]] = False
        numbers, codes, rows = numbers[kept], codes[kept], rows[kept]
    return Encoded(relative(numbers, schema), codes, rows, errors)


def relative(numbers: NDArray[np.float64], schema: Schema) -> NDArray[np.float64]:
    """Numbers whose datetimes are all counted since the epoch, as encode gives them."""
    return _moved(numbers, schema, -1)


def absolute(numbers: NDArray[np.float64], schema: Schema) -> NDArray[np.float64]:
    """Numbers as encode gives them, with all datetimes counted since the epoch."""
    return _moved(numbers, schema, 1)


def _moved(numbers: NDArray[np.float64], schema: Schema, times: int) -> NDArray[np.float64]:
    """With so many times the reference added to each datetime that has one, down to the resolution
    of the datetime itself."""
    place, moved = {column.name: at for at, column in enumerate(schema.numbers)}, numbers.copy()
    for at, column in enumerate(schema.numbers):
        if column.since:
            moved[:, at] += times * floored(numbers[:, place[column.since]], column.step)
    return moved


def floored(times: NDArray[np.float64], step: int) -> NDArray[np.float64]:
    """Times in microseconds, down to multiples of a step."""
    return step * np.floor(times / step)


def decode(
    numbers: NDArray[np.float64], codes: NDArray[np.int64], schema: Schema
) -> pa.RecordBatch:
    """The modelled columns in schema order, in the types of arrow_schema. Other becomes null.

    Codes after those that encode gives name a column's rarer categories.
    """
    numbers = absolute(numbers, schema)
    number_at = {column.name: at for at, column in enumerate(schema.numbers)}
    code_at = {column.name: at for at, column in enumerate(schema.categoricals)}
    arrays: list[cells.Array] = []
    for column in schema.modelled:
        if column.name in number_at:
            arrays.append(_typed(numbers[:, number_at[column.name]], column))
        else:
            arrays.append(_named(codes[:, code_at[column.name]], column))
    return pa.record_batch(arrays, schema=arrow_schema(schema))


def arrow_schema(schema: Schema) -> pa.Schema:
    """The Arrow types that decode gives, those of the table that was trained on; fields say how
    text files have them."""
    return pa.schema([spelled_field(column) for column in schema.modelled])


def spelled_field(column: Column) -> "pa.Field[Any]":
    """The field of a made column."""
    spelling = Spelling(number=column.number, format=column.format, words=column.words)
    field = pa.field(column.name, _arrow_type(column))
    return field if spelling == Spelling() else spelling.on(field)


def written_as(column: Column, field: "pa.Field[Any]") -> Column:
    """The column as a given table has it: in its type, or its text in its form."""
    given = Spelling.of(field)
    typed = None if pa.types.is_string(field.type) else str(field.type)
    update = {
        "type": given.type or typed,
        "number": given.number_for(column.number),
        "format": given.format_for(column.format),
    }
    return column.model_copy(update=update)


def missing_in(column: Column, schema: Schema) -> tuple[str, ...]:
    """The texts that mean in a column that a value is missing; beside numbers, dates and flags
    these are more."""
    more = MAYBE_MISSING if column.kind not in ("categorical", "identifier") else ()
    return (*schema.missing, *column.missing, *more)


def check_columns(names: Sequence[str], schema: Schema) -> list[str]:
    """Refuse a table whose columns do not serve the schema; notices about those that are too
    many."""
    known, given = set(schema.names), Counter(names)
    twice = sorted(name for name, times in given.items() if times > 1)
    if twice:
        raise InvalidInput(
            f"column names must be unique; these stand twice: {_listed(twice)}; rename one of each"
        )
    absent = [column.name for column in schema.modelled if column.name not in given]
    if absent:
        raise InvalidInput(
            f"the table lacks {_counted(absent)} {_listed(absent)}; it has {_listed(names)}; add"
            " what is missing, "
            "with empty cells where a value is not known"
        )
    extra = [name for name in names if name not in known]
    return (
        [f"ignored {_counted(extra)} {_listed(extra)}, which the model does not know"]
        if extra
        else []
    )


def _numbers(batch: pa.RecordBatch, column: Column, schema: Schema) -> Cells:
    array, missing = batch.column(column.name), missing_in(column, schema)
    spelling = Spelling.of(batch.schema.field(column.name))
    if column.kind == "datetime":
        return cells.datetimes(array, missing, column.zone, spelling.format_for(column.format))
    read = cells.integers if column.kind == "integer" else cells.numbers
    return read(array, missing, spelling.number_for(column.number), spelling.plain_first)


def _errors(
    batch: pa.RecordBatch, schema: Schema, faults: dict[str, Cells], first_row: int
) -> list[RowError]:
    """One error for each row that has any, about its first faulty column; in row order."""
    errors: dict[int, RowError] = {}
    for column in schema.modelled:
        for code, mask in faults.get(column.name, _SOUND).faults.items():
            new = [at for at in np.flatnonzero(mask).tolist() if at not in errors]
            cells_at = batch.column(column.name).take(np.array(new, np.int64))
            name = _cut(column.name)
            wish = _wish(column, code)
            for at, value in zip(new, cells.spelled(cells_at).to_pylist(), strict=True):
                message = f"column {name!r} holds {_cut(str(value))!r}; the model wants {wish}"
                errors[at] = RowError(
                    row=first_row + at, column=column.name, code=code, message=message
                )
    return [errors[at] for at in sorted(errors)]


_SOUND = Cells(np.empty(0))


def _wish(column: Column, code: str) -> str:
    """What the model wants in a column, where a cell has this fault."""
    if code == "wrong-zone":
        zoned = "a time with a zone, such as …Z or …+02:00"
        return zoned if column.zone else "a time without a zone"
    if code == "out-of-range":
        dated = column.kind == "datetime"
        return "a date in the years 1 to 9999" if dated else "a whole number below 2^53 in size"
    if code == "not-a-date" and column.format and not dates.is_iso(column.format):
        noon = pa.array([datetime(2024, 1, 31, 12)], pa.timestamp("us"))
        example = dates.write(noon, column.format)[0]
        return f"a date such as {example} ({column.format}) or 2024-01-31"
    return _WISHES[code]


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(_cut(name)) for name in names[:10])
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"


def _counted(names: Sequence[str]) -> str:
    return "the column" if len(names) == 1 else f"{len(names)} columns:"


def _arrow_type(column: Column) -> pa.DataType:
    own = type_of(column)
    if own is not None:
        return own
    if column.kind == "datetime":
        return pa.timestamp("us", "UTC" if column.zone else None)
    types: dict[str, pa.DataType] = {
        "continuous": pa.float64(),
        "integer": pa.int64(),
        "boolean": pa.bool_(),
    }
    return types.get(column.kind, pa.string())


def _typed(values: NDArray[np.float64], column: Column) -> cells.Array:
    missing = np.isnan(values)
    made: Any
    if column.kind == "continuous":
        made = pa.array(values, pa.float64(), mask=missing)
    else:
        low, high = cells.YEARS if column.kind == "datetime" else (1 - cells.EXACT, cells.EXACT - 1)
        whole = np.clip(np.rint(np.where(missing, 0.0, values)).astype(np.int64), low, high)
        if column.kind == "datetime":
            whole -= whole % column.step  # far from the epoch float64 holds only some microseconds
        made = pa.array(whole, pa.int64(), mask=missing)
    if column.kind == "datetime":
        made = made.cast(pa.timestamp("us", "UTC" if column.zone else None))
    typed: cells.Array = as_type(made, _arrow_type(column))
    return typed


def _named(codes: NDArray[np.int64], column: Column) -> cells.Array:
    every = pa.array(
        [*column.categories, None, None, *(name for name, _ in column.rarer)], pa.string()
    )
    names = every.take(pa.array(codes, pa.int64()))
    typed: cells.Array = as_type(
        cells.pc.equal(names, "true") if column.kind == "boolean" else names, _arrow_type(column)
    )
    return typed

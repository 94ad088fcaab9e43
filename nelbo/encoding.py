"""Rows as numbers and codes, and back: the only place that translates names and strings for graphs.

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
"""Number of characters of a value that a message repeats."""
NAMED = 10
"""Number of names that a message lists."""

_EXPECTED = {
    "not-a-number": "a number",
    "not-finite": "a finite number",
    "not-an-integer": "a whole number",
    "not-a-boolean": "true or false",
    "not-a-date": "a date such as 2024-01-31 or 2024-01-31T12:00:00",
}


@dataclass(frozen=True)
class Encoded:
    """The usable rows of a batch.

    numbers: float64[n, len(schema.numbers)], NaN = missing. Datetimes are in microseconds since the
    epoch or, where their column has `since`, since that other column (missing where that is
    missing).

    codes: int64[n, len(schema.categoricals)], an index into column.categories; len(categories) =
    other, + 1 = missing; from + 2 on, the rarer categories of a column that has clusters.

    rows: int64[n], the row number of each. Rows with an error are left out of all three.

    own_codes: codes with a code of its own for each rarer category of all columns, as decode takes
    them; None where they are the codes.
    """

    numbers: NDArray[np.float64]
    codes: NDArray[np.int64]
    rows: NDArray[np.int64]
    errors: list[RowError]
    own_codes: NDArray[np.int64] | None = None

    @property
    def named(self) -> NDArray[np.int64]:
        """Codes as decode takes them."""
        return self.codes if self.own_codes is None else self.own_codes


def encode(batch: pa.RecordBatch, schema: Schema, first_row: int = 0) -> Encoded:
    """Encode a batch that passed check_columns; its first row has the number first_row.

    A field of the batch may say how its file spells text (spelling.columns); otherwise text is read
    as in the schema's table.
    """
    numbers = np.empty((batch.num_rows, len(schema.numbers)), np.float64)
    named = np.empty((batch.num_rows, len(schema.categoricals)), np.int64)
    parsed: dict[str, Cells] = {}
    for i, column in enumerate(schema.numbers):
        parsed[column.name] = _numbers(batch, column, schema)
        numbers[:, i] = parsed[column.name].values
    for i, column in enumerate(schema.categoricals):
        array = batch.column(column.name)
        missing = missing_in(column, schema)
        if column.kind == "boolean":
            flags = cells.booleans(array, missing)
            parsed[column.name] = flags
            named[:, i] = np.where(np.isnan(flags.values), 3, flags.values)
        else:
            named[:, i] = _named_codes(array, missing, column)

    errors = _errors(batch, schema, parsed, first_row)
    rows = np.arange(first_row, first_row + batch.num_rows, dtype=np.int64)
    if errors:
        usable = np.ones(batch.num_rows, bool)
        usable[[error.row - first_row for error in errors]] = False
        numbers = numbers[usable]
        named = named[usable]
        rows = rows[usable]
    codes = as_modelled(named, schema)
    return Encoded(relative(numbers, schema), codes, rows, errors, named)


def _named_codes(array: cells.Array, missing: Sequence[str], column: Column) -> NDArray[np.int64]:
    """The codes of a column as decode takes them: the rarer categories come after `other` and
    `missing`."""
    other = len(column.categories)
    rarer = len(column.rarer)
    names = (*column.categories, *(name for name, _ in column.rarer))
    codes = cells.codes(array, missing, names)
    if not rarer:
        return codes
    in_order = np.array([*range(other), *range(other + 2, other + 2 + rarer), other, other + 1])
    return in_order[codes]


def relative(numbers: NDArray[np.float64], schema: Schema) -> NDArray[np.float64]:
    """Numbers as encode gives them, from numbers whose datetimes all count from the epoch."""
    return _shifted(numbers, schema, -1)


def absolute(numbers: NDArray[np.float64], schema: Schema) -> NDArray[np.float64]:
    """Numbers whose datetimes all count from the epoch, from numbers as encode gives them."""
    return _shifted(numbers, schema, 1)


def _shifted(numbers: NDArray[np.float64], schema: Schema, sign: int) -> NDArray[np.float64]:
    """Add `sign` times its reference column to each datetime that counts from another column.

    The reference is floored to the step of the datetime's own column.
    """
    index = {column.name: i for i, column in enumerate(schema.numbers)}
    shifted = numbers.copy()
    for i, column in enumerate(schema.numbers):
        if column.since:
            reference = numbers[:, index[column.since]]
            shifted[:, i] += sign * floored(reference, column.step)
    return shifted


def floored(times: NDArray[np.float64], step: int) -> NDArray[np.float64]:
    """Times in microseconds, rounded down to multiples of a step."""
    return step * np.floor(times / step)


def decode(
    numbers: NDArray[np.float64], codes: NDArray[np.int64], schema: Schema
) -> pa.RecordBatch:
    """The modelled columns in schema order, in the types of arrow_schema.

    The code for other becomes null. Codes above those that encode gives stand for a column's rarer
    categories.
    """
    numbers = absolute(numbers, schema)
    number_index = {column.name: i for i, column in enumerate(schema.numbers)}
    code_index = {column.name: i for i, column in enumerate(schema.categoricals)}
    arrays: list[cells.Array] = []
    for column in schema.modelled:
        if column.name in number_index:
            arrays.append(_typed(numbers[:, number_index[column.name]], column))
        else:
            arrays.append(_named(codes[:, code_index[column.name]], column))
    return pa.record_batch(arrays, schema=arrow_schema(schema))


def as_modelled(codes: NDArray[np.int64], schema: Schema) -> NDArray[np.int64]:
    """Codes as encode gives them: that of a rarer category becomes the code for other, unless its
    column has clusters."""
    other = np.array([len(column.categories) for column in schema.categoricals], np.int64)
    clustered = np.array([len(column.clusters) for column in schema.categoricals], np.int64)
    return np.where(codes > other + 1 + clustered, other, codes)


def without_rarer(codes: NDArray[np.int64], schema: Schema) -> NDArray[np.int64]:
    """The codes with that for other in the place of each rarer category."""
    other = np.array([len(column.categories) for column in schema.categoricals], np.int64)
    return np.where(codes > other + 1, other, codes)


def in_clusters(codes: NDArray[np.int64], column: Column) -> NDArray[np.int64]:
    """The codes of a column as the model sees them: the rarer categories of a cluster have one
    code."""
    other = len(column.categories)
    rarer = codes > other + 1
    if not column.clusters:
        return np.where(rarer, other, codes)
    clusters = other + 2 + np.array(column.clusters, np.int64)
    return np.where(rarer, clusters[np.where(rarer, codes - other - 2, 0)], codes)


def arrow_schema(schema: Schema) -> pa.Schema:
    """The Arrow schema that decode gives, with the types of the training table.

    Its fields say how text files spell the values.
    """
    return pa.schema([spelled_field(column) for column in schema.modelled])


def spelled_field(column: Column) -> "pa.Field[Any]":
    """The field of a made column."""
    spelling = Spelling(number=column.number, format=column.format, words=column.words)
    field = pa.field(column.name, _arrow_type(column))
    return field if spelling == Spelling() else spelling.on(field)


def written_as(column: Column, field: "pa.Field[Any]") -> Column:
    """The column in the form of another table: in its type, or in the spelling of its text."""
    spelling = Spelling.of(field)
    typed = None if pa.types.is_string(field.type) else str(field.type)
    update = {
        "type": spelling.type or typed,
        "number": spelling.number_for(column.number),
        "format": spelling.format_for(column.format),
    }
    return column.model_copy(update=update)


def missing_in(column: Column, schema: Schema) -> tuple[str, ...]:
    """The texts that mean in a column that a value is missing.

    Columns of numbers, dates and flags have more of them than columns of text.
    """
    more = MAYBE_MISSING if column.kind not in ("categorical", "identifier") else ()
    return (*schema.missing, *column.missing, *more)


def check_columns(names: Sequence[str], schema: Schema) -> list[str]:
    """Refuse a table that lacks columns of the schema; returns notices about surplus columns."""
    counts = Counter(names)
    repeated = sorted(name for name, count in counts.items() if count > 1)
    if repeated:
        raise InvalidInput(
            f"column names must be unique; these are repeated: {listed_names(repeated)}; rename one"
            " of each"
        )

    absent = [column.name for column in schema.modelled if column.name not in counts]
    if absent:
        raise InvalidInput(
            f"the table lacks {_counted(absent)} {listed_names(absent)}; it has"
            f" {listed_names(names)}; add the missing columns, with empty cells where a value is"
            " not known"
        )

    schema_names = set(schema.names)
    extra = [name for name in names if name not in schema_names]
    if not extra:
        return []
    return [f"ignored {_counted(extra)} {listed_names(extra)}, which the model does not know"]


def _numbers(batch: pa.RecordBatch, column: Column, schema: Schema) -> Cells:
    array = batch.column(column.name)
    missing = missing_in(column, schema)
    spelling = Spelling.of(batch.schema.field(column.name))
    if column.kind == "datetime":
        return cells.datetimes(array, missing, column.zone, spelling.format_for(column.format))
    read = cells.integers if column.kind == "integer" else cells.numbers
    return read(array, missing, spelling.number_for(column.number), spelling.plain_first)


def _errors(
    batch: pa.RecordBatch, schema: Schema, parsed: dict[str, Cells], first_row: int
) -> list[RowError]:
    """One error for each row that has any, about its first faulty column; in row order."""
    errors: dict[int, RowError] = {}
    for column in schema.modelled:
        for code, mask in parsed.get(column.name, _NO_FAULTS).faults.items():
            new = [i for i in np.flatnonzero(mask).tolist() if i not in errors]
            faulty = batch.column(column.name).take(np.array(new, np.int64))
            name = shortened(column.name)
            expected = _expected(column, code)
            for i, value in zip(new, cells.spelled(faulty).to_pylist(), strict=True):
                text = shortened(str(value))
                message = f"column {name!r} holds {text!r}; the model wants {expected}"
                errors[i] = RowError(
                    row=first_row + i, column=column.name, code=code, message=message
                )
    return [errors[i] for i in sorted(errors)]


_NO_FAULTS = Cells(np.empty(0))


def _expected(column: Column, code: str) -> str:
    """The value that the model expects in a column where a cell has this fault."""
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
    return _EXPECTED[code]


def shortened(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def listed_names(names: Sequence[str]) -> str:
    """The first NAMED names, in quotes, and the number of the others."""
    shown = ", ".join(repr(shortened(name)) for name in names[:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"


def _counted(names: Sequence[str]) -> str:
    return "the column" if len(names) == 1 else f"{len(names)} columns:"


def _arrow_type(column: Column) -> pa.DataType:
    own_type = type_of(column)
    if own_type is not None:
        return own_type
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
    array: Any
    if column.kind == "continuous":
        array = pa.array(values, pa.float64(), mask=missing)
    else:
        low, high = cells.YEARS if column.kind == "datetime" else (1 - cells.EXACT, cells.EXACT - 1)
        whole = np.clip(np.rint(np.where(missing, 0.0, values)).astype(np.int64), low, high)
        if column.kind == "datetime":
            # Far from the epoch, float64 cannot hold every microsecond.
            whole -= whole % column.step
        array = pa.array(whole, pa.int64(), mask=missing)
    if column.kind == "datetime":
        array = array.cast(pa.timestamp("us", "UTC" if column.zone else None))
    typed: cells.Array = as_type(array, _arrow_type(column))
    return typed


def _named(codes: NDArray[np.int64], column: Column) -> cells.Array:
    rarer = (name for name, _ in column.rarer)
    names = pa.array([*column.categories, None, None, *rarer], pa.string())
    values = names.take(pa.array(codes, pa.int64()))
    if column.kind == "boolean":
        values = cells.pc.equal(values, "true")
    typed: cells.Array = as_type(values, _arrow_type(column))
    return typed

"""The form of a source table: its columns, types and spelling, and the columns that only it has."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nelbo.cells import texts, written
from nelbo.encoding import Encoded, decode, encode, missing_in, spelled_field, written_as
from nelbo.schema import Column, Schema
from nelbo.schema_inference import infer
from nelbo.spelling.types import as_type

LOOKED_AT = 1_000
"""Number of rows in which a column that the schema does not know is looked at."""


def in_form_of(source: pa.RecordBatch, schema: Schema, decoded: pa.RecordBatch) -> pa.RecordBatch:
    """All columns of the schema in its order, in the types and spelling of the source table.

    Identifiers come from the source rows, where the table has them; the other columns come from the
    decoded rows.
    """
    columns = []
    fields = []
    for column in schema.columns:
        if column.kind != "identifier":
            field = spelled_field(written_as(column, source.schema.field(column.name)))
            columns.append(as_type(decoded.column(column.name), field.type))
            fields.append(field)
        elif column.name in source.schema.names:
            columns.append(source.column(column.name))
            fields.append(pa.field(column.name, source.schema.field(column.name).type))
    return pa.record_batch(columns, schema=pa.schema(fields))


def with_unknown_categories(
    source: pa.RecordBatch,
    schema: Schema,
    encoded: Encoded,
    decoded: pa.RecordBatch,
    names: Collection[str],
) -> pa.RecordBatch:
    """Decoded rows in which observed but unknown categories have their own text again, in the
    columns `names`."""
    for i, column in enumerate(schema.categoricals):
        unknown = encoded.codes[:, i] == len(column.categories)
        if column.name in names and unknown.any():
            own = source.column(column.name).cast(pa.string())
            texts = decoded.column(column.name).cast(pa.string())
            decoded = _replaced(decoded, column.name, pc.if_else(pa.array(unknown), own, texts))
    return decoded


def with_own_dates(
    source: pa.RecordBatch, schema: Schema, decoded: pa.RecordBatch, names: Collection[str]
) -> pa.RecordBatch:
    """Decoded rows in which a datetime that counts from a reference has its observed value again,
    in the columns `names`.

    Without its reference, or with another one, it is not what its encoding says.
    """
    dates = _without_references(schema, names)
    encoded = encode(source, dates)
    own = decode(encoded.numbers, encoded.codes, dates)
    for name in dates.names:
        decoded = _replaced(decoded, name, pc.coalesce(own.column(name), decoded.column(name)))
    return decoded


def with_missing(
    decoded: pa.RecordBatch, missing: Mapping[str, NDArray[np.bool_]]
) -> pa.RecordBatch:
    """Decoded rows without the cells where `missing` bool[n] of their column is true."""
    rows = np.arange(decoded.num_rows)
    for name, is_missing in missing.items():
        if is_missing.any():
            present: Any = pa.array(rows, mask=is_missing)
            decoded = _replaced(decoded, name, decoded.column(name).take(present))
    return decoded


def own_times(
    source: pa.RecordBatch, schema: Schema, names: Collection[str]
) -> dict[str, NDArray[np.float64]]:
    """The observed microseconds since the epoch, float64[n], of each datetime among these columns
    that counts from a reference, whatever the reference; NaN where missing."""
    dates = _without_references(schema, names)
    encoded = encode(source, dates)
    return dict(zip(dates.names, encoded.numbers.T, strict=True))


def _without_references(schema: Schema, names: Collection[str]) -> Schema:
    """The datetimes among these columns that count from a reference, as if they did not."""
    columns = tuple(
        column.model_copy(update={"since": None})
        for column in schema.numbers
        if column.since and column.name in names
    )
    return Schema(columns=columns, missing=schema.missing)


def identifier_columns(batch: pa.RecordBatch, schema: Schema) -> tuple[str, ...]:
    """The columns of a table that name its rows, from its first batch: the schema's identifiers,
    and columns that the schema does not know and that look like identifiers."""
    unknown = [name for name in batch.schema.names if name not in schema.names]
    first_rows = batch.select(unknown).slice(0, LOOKED_AT)
    names = {column.name for column in (*schema.identifiers, *infer([first_rows]).identifiers)}
    return tuple(name for name in batch.schema.names if name in names)


def identifiers_of(
    row: pa.RecordBatch, names: Sequence[str], schema: Schema
) -> dict[str, str | None]:
    """The texts in these columns of a single row; None where they are missing."""
    return {name: texts(row.column(name), schema.missing)[0].as_py() for name in names}


def text_of(row: pa.RecordBatch, column: Column, schema: Schema) -> str | None:
    """The text of a single row's cell; None where it is missing. Text is as the row's table has it;
    values of other types are spelled as made rows are."""
    cell = row.column(column.name)
    text: str | None = texts(cell, missing_in(column, schema))[0].as_py()
    if text is None or pa.types.is_string(cell.type):
        return text
    field = spelled_field(written_as(column, row.schema.field(column.name)))
    spelled: str | None = written(cell, field)[0].as_py()
    return spelled


def with_row_numbers(
    numbers: dict[str, NDArray[np.int64]], table: pa.RecordBatch
) -> pa.RecordBatch:
    """The table with columns of row numbers before it.

    A row number's column is called nelbo_NAME where the table already has a column of that name.
    """
    own = set(table.schema.names)
    names = [f"nelbo_{name}" if name in own else name for name in numbers]
    return pa.record_batch(
        [*(pa.array(values, pa.int64()) for values in numbers.values()), *table.columns],
        schema=pa.schema([*(pa.field(name, pa.int64()) for name in names), *table.schema]),
    )


def _replaced(table: pa.RecordBatch, name: str, values: "pa.Array[Any]") -> pa.RecordBatch:
    return table.set_column(table.schema.get_field_index(name), name, values)

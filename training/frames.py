"""Data frames as the detectors take them: as schema and encoded rows."""

import warnings
from typing import Any

import pyarrow as pa

from nelbo.encoding import encode
from nelbo.errors import InvalidInput
from nelbo.frames import to_arrow
from nelbo.schema import Kind, Schema
from nelbo.schema_inference import Inspector

from .data import Rows


def arrow(frame: Any) -> pa.Table:
    """The columns of a data frame, without its index. Numbers, durations and times of day become
    float64.

    Raises ValueError for a column of lists, of bytes or of several types.
    """
    try:
        table = to_arrow(frame)
    except InvalidInput as problem:
        raise ValueError(problem.message) from None
    columns = [
        _plain(name, column) for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    return pa.table(columns, names=table.column_names)


def schema_of(table: pa.Table) -> Schema:
    """The schema of a table from `arrow`: numbers are continuous, categories categorical; other
    kinds are inferred.

    Warns of each column that is left out. Raises ValueError where none remains.
    """
    inspector = Inspector(
        {field.name: kind for field in table.schema if (kind := _kind(field.type))}
    )
    for batch in table.to_batches():
        inspector.update(batch)
    schema = inspector.finish().schema
    if not schema.modelled:
        raise ValueError(
            "no column is left to score: each is text that differs in every row; make one a"
            " category"
        )
    for column in schema.identifiers:
        warnings.warn(
            f"column {column.name!r} looks like an identifier, as its text differs in every row: it"
            " has no part in the scores. "
            "Make it a category to have it scored",
            stacklevel=4,
        )
    return schema


def rows_of(table: pa.Table, schema: Schema) -> Rows:
    """The encoded rows of a table from `arrow`, whose columns are the schema's in order, under any
    name.

    Raises ValueError with row and column of the first cell that is not of its column's kind.
    """
    (batch,) = table.rename_columns(list(schema.names)).combine_chunks().to_batches()
    encoded = encode(batch, schema)
    if encoded.errors:
        first = encoded.errors[0]
        more = f" ({len(encoded.errors) - 1} more rows like it)" if len(encoded.errors) > 1 else ""
        raise ValueError(f"row {first.row}: {first.message}{more}")
    return Rows(encoded.numbers, encoded.codes)


def _kind(cells: pa.DataType) -> Kind | None:
    if pa.types.is_floating(cells):
        return "continuous"
    return "categorical" if pa.types.is_dictionary(cells) else None


def _plain(name: str, column: "pa.ChunkedArray[Any]") -> "pa.ChunkedArray[Any]":
    cells = column.type
    if pa.types.is_nested(cells) or pa.types.is_binary(cells):
        raise ValueError(
            f"column {name!r} holds {cells} values, which cannot be scored; leave it out or make it"
            " text"
        )
    if pa.types.is_duration(cells) or pa.types.is_time(cells):
        column = column.cast(pa.int32() if cells.bit_width == 32 else pa.int64())
    if any(
        is_number(column.type)
        for is_number in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    ):
        return column.cast(pa.float64(), safe=False)
    return column

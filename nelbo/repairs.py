"""Repairs: the rows of a table with their probably wrong cells replaced by the expected values."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from nelbo.errors import InvalidInput
from nelbo.files import Table
from nelbo.rows import LIKELY
from nelbo.spelling.columns import Spelling
from nelbo.spelling.types import as_type, named

pc: Any = pyarrow.compute
_TYPES = pa.types


class Repairs:
    """The cells to replace, from suspicious cells (rows.SUSPICIOUS): those of rows that are
    probably wrong, where another value is expected."""

    def __init__(self, cells: pa.Table) -> None:
        self._by_column: dict[str, dict[int, str]] = {}
        columns = ["row", "q_value", "column", "value", "expected"]
        for cell in cells.select(columns).to_pylist():
            if cell["q_value"] <= LIKELY and cell["expected"] not in (None, cell["value"]):
                self._by_column.setdefault(cell["column"], {})[cell["row"]] = cell["expected"]

    @property
    def count(self) -> int:
        """The number of cells to replace."""
        return sum(len(rows) for rows in self._by_column.values())

    def repaired(self, table: Table) -> Iterator[pa.RecordBatch]:
        """All rows of the table that the cells are from, in the types of its file. Raises
        InvalidInput where an expected value does not fit its column's type."""
        schema = repaired_schema(table)
        first_row = 0
        for batch in table.batches():
            columns: list[Any] = []
            for column, field, kind in zip(batch.columns, batch.schema, schema.types, strict=True):
                replaced = self._replaced(column, field, first_row)
                columns.append(as_type(replaced, kind))
            if table.format == "csv":
                columns = [_without_empty_text(column) for column in columns]
            yield pa.record_batch(columns, schema=schema)
            first_row += batch.num_rows

    def _replaced(self, column: Any, field: "pa.Field[Any]", first_row: int) -> Any:
        rows = self._by_column.get(field.name, {})
        at = [row for row in sorted(rows) if first_row <= row < first_row + len(column)]
        if not at:
            return column
        mask = np.zeros(len(column), dtype=bool)
        mask[np.array(at) - first_row] = True
        values = _values([rows[row] for row in at], field)
        return pc.replace_with_mask(column, pa.array(mask), values)


def _without_empty_text(column: Any) -> Any:
    """In a CSV file an empty cell is read as empty text. As null, it is written without quotes."""
    return pc.if_else(pc.equal(column, ""), None, column)


def repaired_schema(table: Table) -> pa.Schema:
    """The columns of a table in the types of its file."""
    return pa.schema([field.with_type(_own_type(field)) for field in table.schema])


def _own_type(field: "pa.Field[Any]") -> Any:
    """The type of a column in its file, as far as the values that were read can have it again."""
    kind: Any = named(Spelling.of(field).type or "")
    if kind is None:
        return field.type
    value_type = kind.value_type if _TYPES.is_dictionary(kind) else kind
    fits = _TYPES.is_duration(kind) or _TYPES.is_large_string(kind) or value_type == field.type
    return kind if fits else field.type


def _values(texts: list[str], field: "pa.Field[Any]") -> Any:
    """Expected values, which are texts, in the type that a column was read as."""
    values: Any = pa.array(texts, pa.string())
    kind: Any = field.type
    try:
        return as_type(values, kind) if _TYPES.is_time(kind) else values.cast(kind)
    except pa.ArrowInvalid:
        raise InvalidInput(
            f"column {field.name!r} holds {field.type}, and the expected value {texts[0]!r} is"
            " written otherwise: leave the number, the format and the words of this column out of"
            " the schema"
        ) from None

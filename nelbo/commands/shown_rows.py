"""The rows of a table that a command names: their identifiers, and the texts of their cells."""

from collections.abc import Collection
from dataclasses import dataclass, field

import pyarrow as pa

from nelbo.files import Table
from nelbo.forms import identifier_columns, identifiers_of, text_of
from nelbo.novelty import Novelty
from nelbo.schema import Schema


@dataclass
class ShownRows:
    """Rows of a table by their numbers, each as a batch, with the schema of the model that scored
    them. `identifiers` are the columns of the table that name its rows."""

    schema: Schema
    identifiers: tuple[str, ...] = ()
    cells: dict[int, pa.RecordBatch] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._columns = {column.name: column for column in self.schema.columns}
        self._novelty = Novelty(self.schema, self.schema.names)

    def look(self, first_rows: pa.RecordBatch) -> None:
        """Learn from the first batch of the table which columns name its rows."""
        self.identifiers = identifier_columns(first_rows, self.schema)

    def keep(self, rows: Collection[int], batch: pa.RecordBatch, first_row: int) -> None:
        """Keep these rows alone; those that are new are in a batch, whose first row has the number
        first_row."""
        self.cells = {
            row: self.cells[row] if row in self.cells else batch.take([row - first_row])
            for row in rows
        }

    def read(self, table: Table, rows: Collection[int]) -> None:
        """Keep these rows of a table."""
        first_row = 0
        for batch in table.batches():
            if not first_row:
                self.look(batch)
            new = [row for row in rows if first_row <= row < first_row + batch.num_rows]
            self.keep([*self.cells, *new], batch, first_row)
            first_row += batch.num_rows
            if len(self.cells) == len(rows):
                return

    def names_of(self, row: int) -> dict[str, str | None]:
        """The texts of a row's identifiers."""
        return identifiers_of(self.cells[row], self.identifiers, self.schema)

    def text(self, row: int, name: str) -> str | None:
        """The text of a cell; None where it is missing."""
        return text_of(self.cells[row], self._columns[name], self.schema)

    def meant(self, row: int, name: str) -> str | None:
        """The known category that a new text was probably meant to be."""
        return self._novelty.match(self._columns[name], self.text(row, name))

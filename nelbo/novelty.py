"""Novelty: cells whose kind of value the training rows of their column had seldom or never.

Each cell has a level:

- ORDINARY: a value, or a known category.
- MISSING: no value.
- NEW: a text that is no known category.
- MISSPELT: a new text that is one edit away from a known category.
- RESPELT: a new text that differs from a known category only in case and blanks.
- BROKEN: a value that breaks a rule of the table, whatever it is by itself (see `rule_keeping`).

How surprising a level is follows from how many training rows of the column have it (`Surprise`): a
missing cell surprises where none ever was missing, a new name does not in a column of names.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa

from nelbo import cells
from nelbo.encoding import Encoded, missing_in
from nelbo.schema import Column, Schema
from nelbo.spelling.misspelt import Match, Vocabulary
from nelbo.surprise import Levels

ORDINARY, MISSING, NEW, MISSPELT, RESPELT, BROKEN = range(6)
CACHED = 4_096
"""Number of new texts per column whose level is remembered."""
LONGEST_CACHED = 100
"""Number of characters of a text whose level is remembered; a cell may hold megabytes."""
MOST_COLUMNS = 64
"""Maximum number of columns whose categories are held ready."""


def level_of(match: Match | None) -> int:
    """The level of a new text, from the known category that it is near to."""
    if match is None:
        return NEW
    return RESPELT if match.same else MISSPELT


class Known:
    """The categories of a column that an artifact names."""

    def __init__(self, column: Column) -> None:
        rarer = [category for category, _ in column.rarer]
        self.categories = frozenset([*column.categories, *rarer])
        self.match = Vocabulary([*column.categories, *rarer]).nearest
        self._remembered = lru_cache(CACHED)(self._level)

    def level(self, text: str) -> int:
        """The level of a text that the schema has no code for."""
        return self._remembered(text) if len(text) <= LONGEST_CACHED else self._level(text)

    def _level(self, text: str) -> int:
        return ORDINARY if text in self.categories else level_of(self.match(text))


class Novelty:
    """Finds the levels of a table's cells. `order` names the columns in the order of the levels."""

    def __init__(self, schema: Schema, order: Sequence[str]) -> None:
        self._schema = schema
        self._order = order
        self._known: dict[str, Known] = {}

    def known(self, column: Column) -> Known:
        """The known categories of a column, made ready on first use."""
        if column.name not in self._known:
            if len(self._known) == MOST_COLUMNS:
                self._known.pop(next(iter(self._known)))
            self._known[column.name] = Known(column)
        return self._known[column.name]

    def match(self, column: Column, text: str | None) -> str | None:
        """The known category that a new text in the column was probably meant to be."""
        if column.kind != "categorical" or text is None:
            return None
        vocabulary = self.known(column)
        match = None if text in vocabulary.categories else vocabulary.match(text)
        return match.category if match else None

    def levels(self, batch: pa.RecordBatch, encoded: Encoded, first_row: int = 0) -> Levels:
        """The levels int8[n, d] of the cells of encoded rows of a batch, whose first row has the
        number first_row."""
        levels = np.full((len(encoded.rows), len(self._order)), ORDINARY, dtype=np.int8)
        at = {name: j for j, name in enumerate(self._order)}
        for i, column in enumerate(self._schema.numbers):
            levels[np.isnan(encoded.numbers[:, i]), at[column.name]] = MISSING
        for i, column in enumerate(self._schema.categoricals):
            other = len(column.categories)
            of_column = levels[:, at[column.name]]
            of_column[encoded.codes[:, i] == other + 1] = MISSING
            new = np.flatnonzero(encoded.codes[:, i] == other)
            if len(new):
                source = batch.column(column.name).take(encoded.rows[new] - first_row)
                texts = cells.texts(source, missing_in(column, self._schema)).to_pylist()
                vocabulary = self.known(column)
                of_column[new] = [vocabulary.level(str(text)) for text in texts]
        return levels

"""The likelihoods of all columns: p(x_j | h) = p(code | h) · p(x_j | code), fitted to the training
rows.

Each column has codes, and the network gives their probabilities (masses.log_prob). Inside a code
the density is fixed: see numbers (and ranges for the density of a bin) and categories. This module
only puts the laws of all columns side by side. A datetime may be split into several fields (week,
weekday, time), each with its own code. Missingness is shared: the first field decides.
"""

from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nelbo.schema import Schema

from .arrays import Array, concat, take
from .categories import Categories, Category, fit_category
from .fields import fields
from .masses import Masses
from .numbers import Number, Numbers, fit_number

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Likelihoods(nn.Module):
    """All columns' likelihoods; d columns in the schema's order, C codes of all columns in one row.

    A field of a column that is split counts as a column here and wherever codes are; d_t is the
    number of the table's own columns. `column_of` int64[d] says which of those each is of.
    """

    column_of: Tensor

    def __init__(
        self,
        schema: Schema,
        numbers: Sequence[Sequence[Number]],
        categories: Sequence[Category],
        rare: int,
    ) -> None:
        super().__init__()
        self.schema = schema
        laws = _by_name(schema, numbers, categories)
        self.fitted = [laws[column.name] for column in schema.modelled]
        self.columns = tuple(law for fields in self.fitted for law in fields)
        self.follows = [i > 0 for fields in self.fitted for i in range(len(fields))]
        """Whether each is a later field of the column before it."""
        self.number_at = _places(self.columns, Number)
        self.category_at = _places(self.columns, Category)
        self.rare = rare
        self.numbers = Numbers(numbers)
        self.categories = Categories(categories)
        self.masses = Masses(self.columns, self.follows, rare)
        self.register_buffer("column_of", torch.tensor(self.follows).logical_not().cumsum(0) - 1)

    @classmethod
    def fit(cls, schema: Schema, numbers: Floats, codes: Integers, rare: int = 1) -> Self:
        """From encoded training rows: numbers float64[n, …], codes int64[n, …] as nelbo.encoding
        gives them.

        Categories that fewer than `rare` rows hold are never drawn; a column that has no others is
        drawn as missing. Numbers so rare are drawn from ranges that at least `rare` rows hold, or
        all rows if those are fewer.
        """
        number_laws = [
            [fit_number(values, field, rare) for field in fields(column, values)]
            for values, column in zip(numbers.T, schema.numbers, strict=True)
        ]
        category_laws = [
            fit_category(values, column, rare)
            for values, column in zip(codes.T, schema.categoricals, strict=True)
        ]
        return cls(schema, number_laws, category_laws, rare)

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Copies of a model share what is fitted once: the intervals of a wide table take seconds
        to copy."""
        return self

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes of each column: the known ones, `other`, `missing`."""
        return self.masses.sizes

    @property
    def values(self) -> list[int]:
        """The same before rare numbers shared a code: how finely each column is resolved."""
        return [law.values + 2 for law in self.columns]

    @property
    def ordered(self) -> list[Sequence[int]]:
        """Codes of each column whose neighbours are alike, in the order of their values."""
        return [law.ordered for law in self.columns]

    def encode(self, numbers: Array, codes: Array) -> tuple[Array, Array]:
        """Codes int64[n, d] and log p(x | code) float64[n, d] of encoded rows."""
        log_share = self.categories.log_shares(codes)
        codes = self.categories.encode(codes)
        if not self.number_at:
            return codes, log_share
        number_codes, log_density = self.numbers.encode(numbers)
        if not self.category_at:
            return number_codes, log_density
        return self.in_order(number_codes, codes), self.in_order(log_density, log_share)

    def rarity(self, numbers: Array, codes: Array, x: Array) -> Array:
        """float64[n, d]: the rarity of the codes x int64[n, d] of encoded rows (masses.rarities),
        and what the distance from the seen range costs."""
        rarity = take(self.masses.rarity, x + self.masses.start)
        if not self.number_at:
            return rarity
        beyond = self.numbers.beyond(numbers)
        if self.category_at:
            beyond = self.in_order(beyond, codes.double() * 0)
        return rarity + beyond

    def in_order(self, of_numbers: Array, of_categories: Array) -> Array:
        """[n, d] in the columns' order, from the number columns and the categorical ones."""
        if not self.number_at or not self.category_at:
            return of_numbers if self.number_at else of_categories
        order = torch.tensor(np.argsort(self.number_at + self.category_at))
        return concat([of_numbers, of_categories], 1).index_select(1, order)

    def of_categories(self, values: Array) -> Array:
        """float64[n, d] in the columns' order: values float64[n, …] of the categorical columns, and
        0 for all others."""
        own = torch.eq(torch.tensor(self.category_at)[:, None], torch.arange(len(self.columns)))
        return values @ own.double()

    def draw(self, codes: Array, u: Array, u_rarer: Array) -> tuple[Array, Array]:
        """Numbers float64[n, …] and categories int64[n, …] as in a table, from codes int64[n, d]
        and uniform numbers float64[n, …]: u has one for each number column, u_rarer one for each
        categorical column if any has rarer categories."""
        numbers = codes.index_select(1, torch.tensor(self.number_at, dtype=torch.int64))
        categories = codes.index_select(1, torch.tensor(self.category_at, dtype=torch.int64))
        values = self.numbers.draw(numbers, u) if self.number_at else numbers.double()
        return values, self.categories.draw(categories, u_rarer)

    def by_column(self, terms: Array) -> Array:
        """Terms [n, d] as those of the table's own columns, [n, d_t]: a column's term is the sum of
        its fields'."""
        if not any(self.follows):
            return terms
        own = torch.eq(self.column_of[:, None], torch.arange(len(self.fitted)))
        return terms @ own.double()

    def of_fields(self, cells: Array) -> Array:
        """bool[n, d] from bool[n, d_t]: what holds for a cell holds for all its fields."""
        return cells.index_select(1, self.column_of) if any(self.follows) else cells

    @property
    def log_most(self) -> Tensor:
        """float[C]: the log of the largest share that a category which is drawn has of each code; 0
        for all codes but those of clusters and `other`."""
        parts = [torch.zeros(size) for size in self.sizes]
        for column in self.category_at:
            law = self.columns[column]
            assert isinstance(law, Category)
            if law.names_others:
                parts[column][len(law.frequent) : -1] = torch.from_numpy(law.log_most)
        return torch.cat(parts)

    @property
    def missing_together(self) -> list[list[int]]:
        """The fields of each column that is split and may be drawn as missing."""
        columns = self.column_of.tolist()
        may_be_missing = set(self.column_of[self.masses.may_be_missing].tolist())
        return [
            [position for position, own in enumerate(columns) if own == column]
            for column, fields in enumerate(self.fitted)
            if len(fields) > 1 and column in may_be_missing
        ]

    @property
    def seldom(self) -> dict[str, tuple[int, ...]]:
        """The seldom codes of each categorical column that has some."""
        laws = [law for law in self.columns if isinstance(law, Category)]
        codes = {
            column.name: law.seldom(self.rare)
            for column, law in zip(self.schema.categoricals, laws, strict=True)
        }
        return {name: of_column for name, of_column in codes.items() if of_column}

    def described(self) -> Iterator[tuple[str, str]]:
        """Each modelled column's name and its likelihood in words, for the manifest."""
        for column, fitted in zip(self.schema.modelled, self.fitted, strict=True):
            yield column.name, "; ".join(law.words for law in fitted)


def _by_name(
    schema: Schema, numbers: Sequence[Sequence[Number]], categories: Sequence[Category]
) -> dict[str, Sequence[Number | Category]]:
    laws: dict[str, Sequence[Number | Category]] = {}
    for column, fitted in zip(schema.numbers, numbers, strict=True):
        laws[column.name] = fitted
    for column, category in zip(schema.categoricals, categories, strict=True):
        laws[column.name] = [category]
    return laws


def _places(laws: Sequence[Number | Category], kind: type) -> list[int]:
    return [position for position, law in enumerate(laws) if isinstance(law, kind)]

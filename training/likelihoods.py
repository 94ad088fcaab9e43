"""Column likelihoods: p(x_j | h) = p(code | h) · p(x_j | code), fitted to the training rows.

A code is a known category, a single number that stands often in the table (an atom), an interval of
numbers (a bin), `other` (whatever the training rows do not show) or `missing`. The network gives
the probabilities of the codes. Inside a code the density is fixed: 1 for a category, for an atom by
its rows and those of rare numbers that share its code, piecewise uniform between quantiles in a bin
(see ranges); `other` numbers lie uniformly in the gaps between known values or in exponential tails
beyond the seen range. Integers and datetimes count multiples of their step, so theirs is a mass.
Nothing is scaled outside: rescaling a continuous column by c moves -log p by log c.

`other` has the Good-Turing mass (singletons + 1) / (n + K + 1) whatever h says (Good 1953), unless
training rows hold it, as they do where a column has more categories than are known; which of the
rarer ones it stands for is then drawn by their shares. `missing` has 1 / (n + K + 1) unless
training rows hold it. Codes stand in the order of the values, `other` and `missing` last.

A number column that is cut into fields has a code for each. It is missing in all of them or in
none, as the first one says.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from nelbo.schema import Column, Schema
from training.fields import fields
from training.numbers import Number, fit_number

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MASKED = -1e9
"""Added to the logit of a code that is not drawn now."""
NEVER = 4 * MASKED
"""Added to the logit of a code that is never drawn: it loses even where all other codes are
MASKED."""


@dataclass(frozen=True)
class Category:
    """The likelihood of a categorical column: how often each known category, `other` and `missing`
    stand in the table.

    `rarer` are the rows of each category that is drawn in the place of `other`.
    """

    counts: Integers
    others: int
    missing: int
    rarer: Integers

    @property
    def known(self) -> int:
        return len(self.counts)


class Likelihoods(nn.Module):
    """All columns' likelihoods as tables; d columns in the schema's order, C codes of all columns
    in one row.

    A field of a column that is cut counts as a column here and wherever codes are; d_t are the
    table's own.

    Buffers `start` int64[d] (where a column's codes begin among the C), `learned` bool[C] (codes
    whose probability the network gives), `log_mass` float[C] (log of the fixed masses, or of what
    they leave to the learned ones), `drawn` float[C] (added to the logits to draw: 0, NEVER for
    codes that never are, log of the share of `other` that has a name), `other` and `hidden`
    int64[d] (the code of what is unknown; the one that stands for a cell not shown), `column_of`
    int64[d] (which of the d_t columns each is of).
    """

    start: Tensor
    learned: Tensor
    drawn: Tensor
    log_mass: Tensor
    other: Tensor
    hidden: Tensor
    edges: Tensor
    cell_code: Tensor
    cell_log_density: Tensor
    source: Tensor
    origin: Tensor
    unit: Tensor
    period: Tensor
    column_of: Tensor
    integral: Tensor
    decimals: Tensor
    grid: Tensor
    first: Tensor
    last: Tensor
    rates: Tensor
    missing_code: Tensor

    def __init__(
        self,
        schema: Schema,
        numbers: Sequence[Sequence[Number]],
        categories: Sequence[Category],
        rare: int,
    ) -> None:
        super().__init__()
        self.schema = schema
        self.fitted_numbers = tuple(number for of_column in numbers for number in of_column)
        by_name: dict[str, Sequence[Number] | Sequence[Category]] = {}
        by_name.update(zip((c.name for c in schema.numbers), numbers, strict=True))
        by_name.update(
            zip(
                (c.name for c in schema.categoricals),
                ([category] for category in categories),
                strict=True,
            )
        )
        self.fitted = [by_name[column.name] for column in schema.modelled]
        self.columns = tuple(column for fields in self.fitted for column in fields)
        self.follows = [i > 0 for fields in self.fitted for i in range(len(fields))]
        """Whether each is a later field of the column before it."""
        self.sizes = tuple(column.known + 2 for column in self.columns)
        """Codes of each column: the known ones, `other`, `missing`."""
        self.values = [
            column.values + 2 if isinstance(column, Number) else column.known + 2
            for column in self.columns
        ]
        """The same before rare numbers shared a code: how finely each column is told."""
        self.ordered = [
            column.ordered if isinstance(column, Number) else [] for column in self.columns
        ]
        """Codes of each column whose neighbours are alike, in the order of their values."""
        self.number_at = [i for i, column in enumerate(self.columns) if isinstance(column, Number)]
        self.category_at = [
            i for i, column in enumerate(self.columns) if isinstance(column, Category)
        ]
        self.has_rarer = any(len(column.rarer) for column in categories)
        """Whether the category that `other` stands for is drawn in any column."""
        self._fill_masses(rare)
        self._fill_cells()

    @classmethod
    def fit(cls, schema: Schema, numbers: Floats, codes: Integers, rare: int = 1) -> Self:
        """From encoded training rows: numbers float64[n, …], codes int64[n, …] as nelbo.encoding
        gives them.

        Categories that fewer than `rare` rows hold are never drawn; a column that has no others is
        drawn as missing. Numbers so rare are drawn from ranges that at least `rare` rows hold, or
        all rows if those are fewer.
        """
        return cls(
            schema,
            [
                [fit_number(values, field, rare) for field in fields(column, values)]
                for values, column in zip(numbers.T, schema.numbers, strict=True)
            ],
            [
                _fit_category(values, column, rare)
                for values, column in zip(codes.T, schema.categoricals, strict=True)
            ],
            rare,
        )

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Copies of a model share what is fitted once: a wide table's cells take seconds to
        copy."""
        return self

    def _fill_masses(self, rare: int) -> None:
        masses = [
            _masses(column, rare, follows)
            for column, follows in zip(self.columns, self.follows, strict=True)
        ]
        learned, drawn, log_mass = (np.concatenate(parts) for parts in zip(*masses, strict=True))
        self.register_buffer("start", torch.tensor(np.cumsum([0, *self.sizes[:-1]])))
        self.register_buffer("learned", torch.from_numpy(learned))
        self.register_buffer("drawn", torch.from_numpy(drawn).float())
        self.register_buffer("log_mass", torch.from_numpy(log_mass).float())
        self.register_buffer("other", torch.tensor(self.sizes) - 2)
        self.register_buffer("hidden", torch.tensor(self.sizes))
        self.register_buffer("column_of", torch.tensor(self.follows).logical_not().cumsum(0) - 1)

    def _fill_cells(self) -> None:
        """Flat tables over all number columns: where a cell begins, its code and its
        log-density."""
        numbers, n = self.fitted_numbers, len(self.fitted_numbers)
        width = max((len(number.cells) for number in numbers), default=0) + 2
        edges, code = np.full((n, width - 1), np.inf), np.zeros((n, width), np.int64)
        log_density = np.zeros((n, width))
        for i, number in enumerate(numbers):
            size = len(number.cells)
            other = number.known
            edges[i, : size + 1] = [*(cell.low for cell in number.cells), number.cells[-1].high]
            code[i, : size + 2] = [other, *(cell.code for cell in number.cells), other]
            inside = [
                number.gap_log_density if cell.code == other else cell.log_density
                for cell in number.cells
            ]
            log_density[i, : size + 2] = [
                number.tail_log_density[0],
                *inside,
                number.tail_log_density[1],
            ]
        last = np.array(
            [number.cells[-1].high - (1 if number.field.unit else 0) for number in numbers]
        )
        first = np.array([number.cells[0].low for number in numbers])
        buffers = {
            "edges": edges,
            "cell_code": code,
            "cell_log_density": log_density,
            "source": np.cumsum([not self.follows[at] for at in self.number_at], dtype=np.int64)
            - 1,
            "origin": np.array([number.field.origin for number in numbers]),
            "unit": np.array([number.field.unit or 1.0 for number in numbers]),
            "period": np.array([number.field.period for number in numbers]),
            "integral": np.array([number.field.unit > 0 for number in numbers], dtype=bool),
            "first": first,
            "last": last,
            "rates": np.array([number.tails for number in numbers]).reshape(-1, 2),
            "decimals": np.array([number.decimals for number in numbers], dtype=np.float64),
            "grid": np.array([number.grid for number in numbers], dtype=np.float64),
            "missing_code": np.array([number.known + 1 for number in numbers], dtype=np.int64),
        }
        for name, values in buffers.items():
            self.register_buffer(name, torch.from_numpy(values))

    def cut(self, numbers: Tensor) -> Tensor:
        """The fields of numbers float64[n, …], one after the other, float64[n, fields of all number
        columns]."""
        x = (numbers[:, self.source] - self.origin) / self.unit
        x = torch.where(self.integral, torch.floor(x), x)
        return x - torch.floor(x / self.period) * self.period.nan_to_num(posinf=0.0)

    def encode(self, numbers: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Codes int64[n, d] and log p(x | code) float64[n, d] of encoded rows."""
        n = codes.shape[0]
        if not self.number_at:
            return codes, torch.zeros_like(codes, dtype=torch.float64)
        count = len(self.number_at)
        x = self.cut(numbers)
        missing = torch.isnan(x)
        x = torch.where(missing, self.first, x)
        cell = (
            torch.searchsorted(self.edges, x.T.contiguous(), right=True).T
            + torch.arange(count) * self.cell_code.shape[1]
        )
        number_codes = torch.where(missing, self.missing_code, self.cell_code.reshape(-1)[cell])
        beyond_left, beyond_right = torch.relu(self.first - x), torch.relu(x - self.last)
        one = self.integral.to(torch.float64)
        left = torch.where(beyond_left > 0, beyond_left - one, beyond_left) * self.rates[:, 0]
        right = torch.where(beyond_right > 0, beyond_right - one, beyond_right) * self.rates[:, 1]
        inside = self.cell_log_density.reshape(-1)[cell] - left - right
        log_density = torch.where(missing, torch.zeros_like(x), inside)
        if not self.category_at:
            return number_codes, log_density
        order = torch.tensor(np.argsort(self.number_at + self.category_at))
        return (
            torch.cat([number_codes, codes], 1)[:, order],
            torch.cat(
                [log_density, torch.zeros((n, len(self.category_at)), dtype=torch.float64)], 1
            )[:, order],
        )

    def by_column(self, terms: Tensor) -> Tensor:
        """Terms [n, d] as those of the table's own columns, [n, d_t]: a column's is the sum of its
        fields'."""
        return terms.new_zeros(len(terms), len(self.fitted)).index_add(1, self.column_of, terms)

    def described(self) -> Iterator[tuple[str, str]]:
        """Each modelled column's name and its likelihood in words, for the manifest."""
        for column, fitted in zip(self.schema.modelled, self.fitted, strict=True):
            yield column.name, "; ".join(_in_words(one) for one in fitted)

    @property
    def even(self) -> Tensor:
        """Logits float[C] to start from: equal for the codes to be learned, MASKED for the others;
        no gradient moves those."""
        return torch.where(self.learned, 0.0, MASKED)

    @property
    def draws_missing(self) -> Tensor:
        """Bool[d]: columns that are drawn as missing now and then, not always."""
        by_column = [column > MASKED / 2 for column in self.drawn.split(self.sizes)]
        return torch.stack([column[-1] & column[:-1].any() for column in by_column])

    def log_prob(self, logits: Sequence[Tensor], codes: Tensor) -> Tensor:
        """log p(code | h) float[m, d] for codes int64[m, d] from each column's logits float[m,
        K_j].

        A softmax over the learned codes (the others' logits are MASKED, as in `even`), and fixed
        masses for the rest.
        """
        columns = zip(logits, codes.unbind(1), strict=True)
        learned = torch.stack(
            [-F.cross_entropy(scores, code, reduction="none") for scores, code in columns], 1
        )
        flat = codes + self.start
        return torch.where(self.learned[flat], learned, 0.0) + self.log_mass[flat]


def _in_words(fitted: Number | Category) -> str:
    if isinstance(fitted, Category):
        rarer = f" and {len(fitted.rarer)} rarer ones as one" if len(fitted.rarer) else ""
        return f"categorical over {fitted.known} categories{rarer}"
    bins = len(fitted.bins)
    parts = [_counted(fitted.known - bins, "atom"), _counted(bins, "bin"), "exponential tails"]
    name = f"{fitted.field.name}: " if fitted.field.name else ""
    return name + ", ".join(part for part in parts if part)


def _masses(
    column: Number | Category, rare: int, follows: bool
) -> tuple[NDArray[np.bool_], Floats, Floats]:
    """Which codes are learned, what is added to their logits to draw, and their log-masses, K each.

    A column that `follows` is missing for certain where the one before it is, and never else.
    """
    known = column.known
    others = column.others if isinstance(column, Category) else 0
    single = (column.counts == 1).sum() if isinstance(column, Category) else column.single
    total = int(column.counts.sum()) + column.missing + others + known + 1
    fixed = {} if others else {known: (single + 1) / total}
    if not column.missing and not follows:
        fixed[known + 1] = 1 / total
    if known == 0 and not column.missing:
        fixed[known] = 1.0 - fixed[known + 1]
    of_learned = max(1 - sum(fixed.values()), 1e-12)
    if follows:
        fixed[known + 1] = 1.0
    learned = np.array([code not in fixed for code in range(known + 2)])
    log_mass = np.log([fixed.get(code, of_learned) for code in range(known + 2)])
    return learned, _drawn(column, learned, rare), log_mass


def _drawn(column: Number | Category, learned: NDArray[np.bool_], rare: int) -> Floats:
    """Float64[K]: see Likelihoods."""
    often = np.array([*(column.counts >= rare), False, column.missing >= rare])
    drawn = np.where(learned & often, 0.0, NEVER)
    if isinstance(column, Category) and column.others and column.rarer.any():
        drawn[-2] = np.log(min(1.0, column.rarer.sum() / column.others))
    if (drawn == NEVER).all():
        if isinstance(column, Number) and learned.any():
            return np.where(learned, 0.0, NEVER)
        drawn[-1] = 0.0 if learned[-1] else -MASKED
    return drawn


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count > 1)}" if count else ""


def _fit_category(codes: Integers, column: Column, rare: int) -> Category:
    known = len(column.categories)
    counts = np.bincount(codes, minlength=known + 2).astype(np.int64)
    rarer = np.array([rows if rows >= rare else 0 for _, rows in column.rarer], np.int64)
    return Category(counts[:known], int(counts[known]), int(counts[known + 1]), rarer)

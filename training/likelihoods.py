"""Column likelihoods: p(x_j | h) = p(code | h) · p(x_j | code), fitted to the training rows.

A code is a known category, a single number that stands often in the table (an atom), an interval of numbers (a bin), `other`
(whatever the training rows do not show) or `missing`. The network gives the probabilities of the codes. Inside a code the
density is fixed: 1 for a category or an atom, piecewise uniform between quantiles in a bin; `other` numbers lie uniformly in
the gaps between known values or in exponential tails beyond the seen range. Integers and datetimes count multiples of their
step, so theirs is a mass. Nothing is scaled outside: rescaling a continuous column by c moves -log p by log c.

`other` has the Good-Turing mass (singletons + 1) / (n + K + 1) whatever h says (Good 1953), unless training rows hold it, as
they do where a column has more categories than are known; which of the rarer ones it stands for is then drawn by their shares.
`missing` has 1 / (n + K + 1) unless training rows hold it. Codes stand in the order of the values, `other` and `missing` last.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from nelbo.schema import CATEGORICALS, NUMBERS, Column, Schema

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MAX_ATOMS = 200
ROWS_PER_ATOM = 20
"""A column with at most this many values, each met often, is made of atoms alone."""
SUBBINS = 4
"""Equally probable parts of a bin with a uniform density each."""
THINNEST = 2.0**-20
"""Of a bin's width, the least that a part takes."""
TAIL_ROWS, HEAVY = 8, 0.9
"""Bins of heavy tails have so many rows at least; a tail is heavy if the outermost part takes more of its bin's width."""
MAX_DECIMALS = 6
MASKED = -1e9


@dataclass(frozen=True)
class Cell:
    """A half-open interval [low, high) of numbers with the same code and the same log-density."""

    low: float
    high: float
    code: int
    log_density: float


@dataclass(frozen=True)
class Number:
    """The likelihood of a number column: its cells in order, and for each code the knots of its quantile function.

    `step` is 0 for continuous columns; other columns count multiples of it. Values stand in units of the step.
    A continuous value that is drawn has at most `decimals` digits after the point, as all values of the table do (-1: any), and
    any other value is as many multiples of `grid` steps from the smallest as those of the table are.
    `tails` are the rates of the exponential tails to the left and to the right, `tail_log_density` their log-densities at
    distance 0 (given `other`), `gap_log_density` the one in the gaps.
    """

    step: float
    cells: tuple[Cell, ...]
    knots: Floats
    counts: Integers
    missing: int
    tails: tuple[float, float]
    tail_log_density: tuple[float, float]
    gap_log_density: float
    decimals: int = -1
    grid: int = 1

    @property
    def known(self) -> int:
        return len(self.knots)

    @property
    def bins(self) -> list[int]:
        """The codes that are intervals, not atoms."""
        return [int(code) for code in np.flatnonzero(self.knots[:, 0] < self.knots[:, -1])]


@dataclass(frozen=True)
class Category:
    """The likelihood of a categorical column: how often each known category, `other` and `missing` stand in the table.

    `rarer` are the rows of each category that is drawn in the place of `other`.
    """

    counts: Integers
    others: int
    missing: int
    rarer: Integers

    @property
    def known(self) -> int:
        return len(self.counts)


def bins_for(rows: int) -> int:
    """Bins of a number column: about 32 rows each, 64 at most, 8 at least where that leaves 10 rows to each."""
    return int(np.clip(rows // 32, np.clip(rows // 10, 1, 8), 64))


def fit_number(values: Floats, column: Column) -> Number:
    """The likelihood of a number column from its training values, float64[n] with NaN for missing."""
    step = {"continuous": 0.0, "integer": 1.0, "datetime": float(column.step)}[column.kind]
    seen = values[~np.isnan(values)]
    seen = np.floor(seen / step) if step else seen
    distinct, counts = np.unique(seen, return_counts=True)
    bins = bins_for(len(seen))
    if len(distinct) <= min(MAX_ATOMS, len(seen) / ROWS_PER_ATOM):
        is_atom = np.ones(len(distinct), dtype=bool)
    else:
        is_atom = counts >= max(2.0, 0.5 * len(seen) / bins)
    codes = list(_codes(distinct, counts, is_atom, bins, integral=step > 0))
    fitted = _number(step, codes, distinct, missing=len(values) - len(seen))
    return replace(fitted, grid=_grid(distinct)) if step else replace(fitted, decimals=_decimals(distinct))


def _decimals(distinct: Floats) -> int:
    """Fewest digits after the point (MAX_DECIMALS at most) that write every value exactly, else -1."""
    with np.errstate(over="ignore"):  # numbers near the largest float have no digits after the point
        for digits in range(MAX_DECIMALS + 1):
            if np.array_equal(np.round(distinct, digits), distinct):
                return digits
    return -1


def _grid(distinct: Floats) -> int:
    """The largest whole number by multiples of which all values differ."""
    return max(1, int(np.gcd.reduce((distinct - distinct[:1]).astype(np.int64))))


@dataclass(frozen=True)
class _Code:
    """A code before it has a number: its knots (quantile function), its cells' edges and how many rows it holds."""

    knots: Floats
    edges: Floats
    rows: int


def _codes(distinct: Floats, counts: Integers, is_atom: NDArray[np.bool_], bins: int, integral: bool) -> Iterator[_Code]:
    """Codes in the order of their values: each atom alone, each run of values between two atoms cut into bins."""
    bounds = np.flatnonzero(is_atom)
    start, total = 0, max(1, int(counts[~is_atom].sum()))
    for atom in [*bounds.tolist(), len(distinct)]:
        if atom > start:
            rows = int(counts[start:atom].sum())
            yield from _bins(distinct[start:atom], counts[start:atom], max(1, round(bins * rows / total)), integral)
        if atom < len(distinct):
            value = distinct[atom]
            yield _Code(np.full(SUBBINS + 1, value), np.array([value, _after(value, integral)]), int(counts[atom]))
        start = atom + 1


def _bins(distinct: Floats, counts: Integers, bins: int, integral: bool) -> Iterator[_Code]:
    """Bins with about equally many rows over sorted values, fewer in heavy tails, each with SUBBINS parts."""
    upto, last = np.cumsum(counts), len(distinct) - 1
    total, each = int(upto[-1]), int(upto[-1]) / bins
    left = _tail_cuts(lambda rows: float(distinct[min(last, int(np.searchsorted(upto, rows, "right")))]), each)
    right = _tail_cuts(lambda rows: float(distinct[int(np.searchsorted(upto, total - rows))]), each)
    cuts = [*each * np.arange(1, bins + 1), *left, *(total - rows for rows in right)]
    ends = np.unique(np.searchsorted(upto, cuts).clip(max=last))
    start = 0
    for i, end in enumerate(ends.tolist()):
        low = distinct[start]
        high = distinct[end + 1] if i + 1 < len(ends) else _after(distinct[end], integral)
        rows = int(counts[start : end + 1].sum())
        inner = np.repeat(distinct[start : end + 1], np.minimum(counts[start : end + 1], 1_000))
        parted = np.interp(np.arange(1, SUBBINS) * (len(inner) - 1) / SUBBINS, np.arange(len(inner)), inner)
        knots = np.array([low, *parted, high])
        if integral:
            knots = np.round(knots)
        if not _usable(knots):
            knots = np.linspace(low, high, SUBBINS + 1)
            yield _Code(knots, np.array([low, high]), rows)
        else:
            yield _Code(knots, knots, rows)
        start = end + 1


def _usable(knots: Floats) -> bool:
    """Whether the parts are wide enough for a density: none empty, none of a width that rounding gives."""
    widths = np.diff(knots)
    return bool((widths > (knots[-1] - knots[0]) * THINNEST).all())


def _tail_cuts(at: Callable[[float], float], rows: float) -> Iterator[float]:
    """Rows outside each further cut in an end bin of so many rows; `at` gives the value that so many rows lie outside of.

    Where the outermost part takes nearly all of the width, a uniform density there would lie far from most of its rows: the bin
    is halved, and its outer half again.
    """
    while rows >= 2 * TAIL_ROWS and abs(at(0) - at(rows / SUBBINS)) > HEAVY * abs(at(0) - at(rows)):
        rows /= 2
        yield rows


def _after(value: float, integral: bool) -> float:
    return float(value + 1 if integral else np.nextafter(value, np.inf))


def _number(step: float, codes: list[_Code], distinct: Floats, missing: int) -> Number:
    integral = step > 0
    other = len(codes)
    low, high = (codes[0].edges[0], codes[-1].edges[-1]) if codes else (0.0, 0.0)
    cells: list[Cell] = []
    for i, code in enumerate(codes):
        if cells and cells[-1].high < code.edges[0]:
            cells.append(Cell(cells[-1].high, code.edges[0], other, 0.0))
        parts = len(code.edges) - 1
        is_atom = code.knots[0] == code.knots[-1]
        for left, right in zip(code.edges[:-1], code.edges[1:], strict=True):
            cells.append(Cell(left, right, i, 0.0 if is_atom else -np.log(parts * (right - left))))
    gaps = sum(cell.high - cell.low for cell in cells if cell.code == other)
    pieces = 2 + (gaps > 0)
    scales = _tail_scales(distinct)
    at_zero = [-np.log(pieces) + np.log(-np.expm1(-1.0 / scale) if integral else 1.0 / scale) for scale in scales]
    return Number(
        step=step,
        cells=tuple(cells) or (Cell(low, high, other, 0.0),),
        knots=np.array([code.knots for code in codes]).reshape(-1, SUBBINS + 1),
        counts=np.array([code.rows for code in codes], dtype=np.int64),
        missing=missing,
        tails=(1.0 / scales[0], 1.0 / scales[1]),
        tail_log_density=(at_zero[0], at_zero[1]),
        gap_log_density=-np.log(pieces * gaps) if gaps else 0.0,
    )


def _tail_scales(distinct: Floats) -> tuple[float, float]:
    """Mean excess of the outermost eighth of the distinct values, the exponential fit to a tail (Pickands 1975 at shape 0)."""
    if len(distinct) < 2:
        scale = float(abs(distinct[0])) if len(distinct) and distinct[0] else 1.0
        return scale, scale
    outer = max(1, len(distinct) // 8)
    return float(distinct[outer] - distinct[:outer].mean()), float(distinct[-outer:].mean() - distinct[-outer - 1])


class Likelihoods(nn.Module):
    """All columns' likelihoods as tables; d columns in the schema's order, C codes of all columns in one row.

    Buffers `start` int64[d] (where a column's codes begin among the C), `learned` bool[C] (codes whose probability the network
    gives), `log_mass` float[C] (log of the fixed masses, or of what they leave to the learned ones), `drawn` float[C] (added to
    the logits to draw: 0, MASKED for codes that never are, log of the share of `other` that has a name), `other` and `hidden`
    int64[d] (the code of what is unknown; the one that stands for a cell not shown).
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
    step: Tensor
    integral: Tensor
    decimals: Tensor
    grid: Tensor
    first: Tensor
    last: Tensor
    rates: Tensor
    missing_code: Tensor

    def __init__(self, schema: Schema, numbers: Sequence[Number], categories: Sequence[Category], rare: int) -> None:
        super().__init__()
        self.schema, self.fitted_numbers = schema, tuple(numbers)
        by_name: dict[str, Number | Category] = {}
        by_name.update(zip((c.name for c in schema.numbers), numbers, strict=True))
        by_name.update(zip((c.name for c in schema.categoricals), categories, strict=True))
        self.columns = tuple(by_name[column.name] for column in schema.modelled)
        self.sizes = tuple(column.known + 2 for column in self.columns)
        """Codes of each column: the known ones, `other`, `missing`."""
        self.bins = [column.bins if isinstance(column, Number) else [] for column in self.columns]
        """Which codes of each column are bins, in the order of their values."""
        self.number_at = [i for i, column in enumerate(schema.modelled) if column.kind in NUMBERS]
        self.category_at = [i for i, column in enumerate(schema.modelled) if column.kind in CATEGORICALS]
        self.has_rarer = any(len(column.rarer) for column in categories)
        """Whether the category that `other` stands for is drawn in any column."""
        self._fill_masses(rare)
        self._fill_cells()

    @classmethod
    def fit(cls, schema: Schema, numbers: Floats, codes: Integers, rare: int = 1) -> Self:
        """From encoded training rows: numbers float64[n, …], codes int64[n, …] as nelbo.encoding gives them.

        Codes that fewer than `rare` rows hold are never drawn. Where a column has no others, it is drawn as missing; ranges of
        numbers are drawn all the same.
        """
        return cls(
            schema,
            [fit_number(values, column) for values, column in zip(numbers.T, schema.numbers, strict=True)],
            [_fit_category(values, column) for values, column in zip(codes.T, schema.categoricals, strict=True)],
            rare,
        )

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Copies of a model share what is fitted once: a wide table's cells take seconds to copy."""
        return self

    def _fill_masses(self, rare: int) -> None:
        masses = [_masses(column, rare) for column in self.columns]
        learned, drawn, log_mass = (np.concatenate(parts) for parts in zip(*masses, strict=True))
        self.register_buffer("start", torch.tensor(np.cumsum([0, *self.sizes[:-1]])))
        self.register_buffer("learned", torch.from_numpy(learned))
        self.register_buffer("drawn", torch.from_numpy(drawn).float())
        self.register_buffer("log_mass", torch.from_numpy(log_mass).float())
        self.register_buffer("other", torch.tensor(self.sizes) - 2)
        self.register_buffer("hidden", torch.tensor(self.sizes))

    def _fill_cells(self) -> None:
        """Flat tables over all number columns: where a cell begins, its code and its log-density."""
        numbers, n = self.fitted_numbers, len(self.fitted_numbers)
        width = max((len(number.cells) for number in numbers), default=0) + 2
        edges, code = np.full((n, width - 1), np.inf), np.zeros((n, width), np.int64)
        log_density = np.zeros((n, width))
        for i, number in enumerate(numbers):
            size = len(number.cells)
            other = number.known
            edges[i, : size + 1] = [*(cell.low for cell in number.cells), number.cells[-1].high]
            code[i, : size + 2] = [other, *(cell.code for cell in number.cells), other]
            inside = [number.gap_log_density if cell.code == other else cell.log_density for cell in number.cells]
            log_density[i, : size + 2] = [number.tail_log_density[0], *inside, number.tail_log_density[1]]
        last = np.array([number.cells[-1].high - (1 if number.step else 0) for number in numbers])
        first = np.array([number.cells[0].low for number in numbers])
        buffers = {
            "edges": edges,
            "cell_code": code,
            "cell_log_density": log_density,
            "step": np.array([number.step or 1.0 for number in numbers]),
            "integral": np.array([number.step > 0 for number in numbers], dtype=bool),
            "first": first,
            "last": last,
            "rates": np.array([number.tails for number in numbers]).reshape(-1, 2),
            "decimals": np.array([number.decimals for number in numbers], dtype=np.float64),
            "grid": np.array([number.grid for number in numbers], dtype=np.float64),
            "missing_code": np.array([number.known + 1 for number in numbers], dtype=np.int64),
        }
        for name, values in buffers.items():
            self.register_buffer(name, torch.from_numpy(values))

    def encode(self, numbers: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Codes int64[n, d] and log p(x | code) float64[n, d] of rows, both in the schema's order of modelled columns."""
        n = codes.shape[0]
        if not self.number_at:
            return codes, torch.zeros_like(codes, dtype=torch.float64)
        count = len(self.number_at)
        x = numbers / self.step
        x = torch.where(self.integral, torch.floor(x), x)
        missing = torch.isnan(x)
        x = torch.where(missing, self.first, x)
        cell = torch.searchsorted(self.edges, x.T.contiguous(), right=True).T + torch.arange(count) * self.cell_code.shape[1]
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
            torch.cat([log_density, torch.zeros((n, len(self.category_at)), dtype=torch.float64)], 1)[:, order],
        )

    def described(self) -> Iterator[tuple[str, str]]:
        """Each modelled column's name and its likelihood in words, for the manifest."""
        for column, fitted in zip(self.schema.modelled, self.columns, strict=True):
            if isinstance(fitted, Category):
                rarer = f" and {len(fitted.rarer)} rarer ones as one" if len(fitted.rarer) else ""
                yield column.name, f"categorical over {fitted.known} categories{rarer}"
            else:
                bins = len(fitted.bins)
                parts = [_counted(fitted.known - bins, "atom"), _counted(bins, "bin"), "exponential tails"]
                yield column.name, ", ".join(part for part in parts if part)

    @property
    def even(self) -> Tensor:
        """Logits float[C] to start from: equal for the codes to be learned, MASKED for the others; no gradient moves those."""
        return torch.where(self.learned, 0.0, MASKED)

    @property
    def draws_missing(self) -> Tensor:
        """Bool[d]: columns that are drawn as missing now and then, not always."""
        by_column = [column > MASKED / 2 for column in self.drawn.split(self.sizes)]
        return torch.stack([column[-1] & column[:-1].any() for column in by_column])

    def log_prob(self, logits: Sequence[Tensor], codes: Tensor) -> Tensor:
        """log p(code | h) float[m, d] for codes int64[m, d] from each column's logits float[m, K_j].

        A softmax over the learned codes (the others' logits are MASKED, as in `even`), and fixed masses for the rest.
        """
        columns = zip(logits, codes.unbind(1), strict=True)
        learned = torch.stack([-F.cross_entropy(scores, code, reduction="none") for scores, code in columns], 1)
        flat = codes + self.start
        return torch.where(self.learned[flat], learned, 0.0) + self.log_mass[flat]


def _masses(column: Number | Category, rare: int) -> tuple[NDArray[np.bool_], Floats, Floats]:
    """Which codes are learned, what is added to their logits to draw, and their log-masses, K each."""
    known = column.known
    others = column.others if isinstance(column, Category) else 0
    total = int(column.counts.sum()) + column.missing + others + known + 1
    fixed = {} if others else {known: ((column.counts == 1).sum() + 1) / total}
    if not column.missing:
        fixed[known + 1] = 1 / total
    if known == 0 and not column.missing:
        fixed[known] = 1.0 - fixed[known + 1]
    learned = np.array([code not in fixed for code in range(known + 2)])
    log_mass = np.log([fixed.get(code, max(1 - sum(fixed.values()), 1e-12)) for code in range(known + 2)])
    return learned, _drawn(column, learned, rare), log_mass


def _drawn(column: Number | Category, learned: NDArray[np.bool_], rare: int) -> Floats:
    """Float64[K]: see Likelihoods."""
    often = np.array([*(column.counts >= rare), False, column.missing >= rare])
    drawn = np.where(learned & often, 0.0, MASKED)
    if isinstance(column, Category) and len(column.rarer):
        drawn[-2] = np.log(column.rarer.sum() / column.others)
    if (drawn == MASKED).all():
        if isinstance(column, Number) and learned.any():
            return np.where(learned, 0.0, MASKED)
        drawn[-1] = 0.0 if learned[-1] else -MASKED
    return drawn


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count > 1)}" if count else ""


def _fit_category(codes: Integers, column: Column) -> Category:
    known = len(column.categories)
    counts = np.bincount(codes, minlength=known + 2).astype(np.int64)
    return Category(
        counts[:known], int(counts[known]), int(counts[known + 1]), np.array([n for _, n in column.rarer], np.int64)
    )

"""Column likelihoods: p(x_j | h) = p(code | h) · p(x_j | code), fitted to the training rows.

A code is a known category, a single number that stands often in the table (an atom), an interval of numbers (a bin), `other`
(whatever the training rows do not show) or `missing`. The network gives the probabilities of the codes. Inside a code the
density is fixed: 1 for a category or an atom, piecewise uniform between quantiles in a bin; `other` numbers lie uniformly in
the gaps between known values or in exponential tails beyond the seen range. Integers and datetimes count multiples of their
step, so theirs is a mass. Nothing is scaled outside: rescaling a continuous column by c moves -log p by log c.

`other` has the Good-Turing mass (singletons + 1) / (n + K + 1) whatever h says (Good 1953), `missing` the same if the
training rows have none. Codes stand in the order of the values, then `other`, then `missing`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nelbo.schema import Column, Schema

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MAX_ATOMS = 200
ROWS_PER_ATOM = 20
"""A column with at most this many values, each met often, is made of atoms alone."""
SUBBINS = 4
"""Equally probable parts of a bin with a uniform density each."""
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

    @property
    def known(self) -> int:
        return len(self.knots)


@dataclass(frozen=True)
class Category:
    """The likelihood of a categorical column: how often each known category, `other` and `missing` stand in the table."""

    counts: Integers
    others: int
    missing: int

    @property
    def known(self) -> int:
        return len(self.counts)


def bins_for(rows: int) -> int:
    """Bins of a number column: about 32 rows each, 8 at least, 64 at most."""
    return int(np.clip(rows // 32, 8, 64))


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
    return _number(step, codes, distinct, missing=len(values) - len(seen))


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
    """Bins with about equally many rows over sorted values, each with SUBBINS parts."""
    upto = np.cumsum(counts)
    ends = np.unique(np.searchsorted(upto, upto[-1] * np.arange(1, bins + 1) / bins).clip(max=len(distinct) - 1))
    start = 0
    for i, end in enumerate(ends.tolist()):
        low = distinct[start]
        high = distinct[end + 1] if i + 1 < len(ends) else _after(distinct[end], integral)
        rows = int(counts[start : end + 1].sum())
        inner = np.repeat(distinct[start : end + 1], np.minimum(counts[start : end + 1], 1_000))
        knots = np.array([low, *np.quantile(inner, np.arange(1, SUBBINS) / SUBBINS), high])
        if integral:
            knots = np.round(knots)
        if not _usable(knots):
            knots = np.linspace(low, high, SUBBINS + 1)
            yield _Code(knots, np.array([low, high]), rows)
        else:
            yield _Code(knots, knots, rows)
        start = end + 1


def _usable(knots: Floats) -> bool:
    """Whether the parts are wide enough for a density: none empty, none thinner than a 64th of the even width."""
    widths = np.diff(knots)
    return bool((widths > (knots[-1] - knots[0]) / (64 * SUBBINS)).all())


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
    """All columns' likelihoods as tables, padded to the largest number of codes K; d columns in the schema's order.

    Buffers `learned` bool[d, K] (codes whose probability the network gives), `log_mass` float[d, K] (log of the fixed masses,
    or of what they leave to the learned ones), `generated` bool[d, K] (codes that may be drawn).
    """

    learned: Tensor
    generated: Tensor
    log_mass: Tensor
    other: Tensor
    edges: Tensor
    cell_code: Tensor
    cell_log_density: Tensor
    step: Tensor
    integral: Tensor
    first: Tensor
    last: Tensor
    rates: Tensor
    missing_code: Tensor

    def __init__(self, schema: Schema, numbers: Sequence[Number], categories: Sequence[Category]) -> None:
        super().__init__()
        self.schema, self.fitted_numbers = schema, tuple(numbers)
        by_name: dict[str, Number | Category] = {}
        by_name.update(zip((c.name for c in schema.numbers), numbers, strict=True))
        by_name.update(zip((c.name for c in schema.categoricals), categories, strict=True))
        self.columns = tuple(by_name[column.name] for column in schema.modelled)
        self.known = tuple(column.known for column in self.columns)
        self.codes = max(self.known, default=0) + 2
        self.number_at = [i for i, c in enumerate(schema.modelled) if c in schema.numbers]
        self.category_at = [i for i, c in enumerate(schema.modelled) if c in schema.categoricals]
        self._fill_masses()
        self._fill_cells()

    @classmethod
    def fit(cls, schema: Schema, numbers: Floats, codes: Integers) -> Self:
        """From encoded training rows: numbers float64[n, …], codes int64[n, …] as nelbo.encoding gives them."""
        return cls(
            schema,
            [fit_number(values, column) for values, column in zip(numbers.T, schema.numbers, strict=True)],
            [
                _fit_category(values, len(column.categories))
                for values, column in zip(codes.T, schema.categoricals, strict=True)
            ],
        )

    def _fill_masses(self) -> None:
        d = len(self.columns)
        learned, generated = np.zeros((d, self.codes), bool), np.zeros((d, self.codes), bool)
        log_mass = np.zeros((d, self.codes))
        for j, column in enumerate(self.columns):
            known, n = column.known, int(column.counts.sum()) + column.missing + getattr(column, "others", 0)
            total = n + known + 1
            other = ((column.counts == 1).sum() + 1 + getattr(column, "others", 0)) / total
            fixed = {known: other} if column.missing else {known: other, known + 1: 1 / total}
            if known == 0 and not column.missing:
                fixed = {known: 1.0 - fixed[known + 1], known + 1: fixed[known + 1]}
            learned[j, [k for k in range(known + 2) if k not in fixed]] = True
            log_mass[j, learned[j]] = np.log(max(1 - sum(fixed.values()), 1e-12))
            for code, mass in fixed.items():
                log_mass[j, code] = np.log(mass)
            generated[j] = learned[j]
            if not learned[j].any():
                generated[j, known + 1] = True
        self.register_buffer("learned", torch.from_numpy(learned))
        self.register_buffer("generated", torch.from_numpy(generated))
        self.register_buffer("log_mass", torch.from_numpy(log_mass).float())
        self.register_buffer("other", torch.tensor(self.known))

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
        cell = (x[:, :, None] >= self.edges).sum(-1) + torch.arange(count) * self.cell_code.shape[1]
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
                yield column.name, f"categorical over {fitted.known} categories"
            else:
                atoms = int((fitted.knots[:, 0] == fitted.knots[:, -1]).sum())
                parts = [_counted(atoms, "atom"), _counted(fitted.known - atoms, "bin"), "exponential tails"]
                yield column.name, ", ".join(part for part in parts if part)

    def log_prob(self, logits: Tensor) -> Tensor:
        """log p(code | h) from logits [d, n, K]: softmax over the learned codes, fixed masses for the rest."""
        masked = torch.where(self.learned[:, None, :], logits, MASKED)
        return torch.where(self.learned[:, None, :], torch.log_softmax(masked, -1), 0.0) + self.log_mass[:, None, :]


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count > 1)}" if count else ""


def _fit_category(codes: Integers, known: int) -> Category:
    counts = np.bincount(codes, minlength=known + 2)
    return Category(counts[:known].astype(np.int64), int(counts[known]), int(counts[known + 1]))

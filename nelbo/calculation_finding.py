"""Rules found: columns that are calculated from others, as sums, products, times between datetimes
and parts of datetimes, or nearly so, as smooth functions."""

from collections.abc import Iterator, Sequence
from itertools import combinations, permutations

import numpy as np
from numpy.typing import NDArray

from nelbo.datetime_parts import DAY, part_of
from nelbo.polynomials import polynomial_terms, standards_of, weights_of
from nelbo.rule_evidence import (
    ENOUGH,
    FEW,
    MOST_IN_PAIRS,
    MOST_NUMBERS,
    NUMBERS,
    SAMPLE,
    SearchedTable,
    holds,
)
from nelbo.rules import (
    MAX_SOURCES,
    PARTS,
    UNITS,
    Elapsed,
    Nearly,
    Order,
    Part,
    Product,
    Rule,
    Sum,
    read_rule,
)

Floats = NDArray[np.float64]

ACTIVE = 20
"""Rows, at least, in which each part of a sum or a product changes the result."""
MOST_TERMS = 8
"""Columns that a sum has at most."""
NEARLY = 0.05
"""A number is nearly a function of others if nine in ten of its rows are at most this share of its
standard deviation off."""
BLURRED, RESOLVED = 0.2, 128
"""Of such columns, the one is made from the others that least depends on their exact values."""
DIVERSE = 0.95
"""The probability that two rows differ in a column of such numbers, at least."""
ROWS_PER_VALUE = 20
"""Mean rows of a value, at most, in such a column: others hold certain values alone."""


def calculations(table: SearchedTable, copies: set[str]) -> Iterator[Sum | Product | Elapsed]:
    """Columns of numbers that others add up to, multiply to, or are the time between. Of the same
    columns, there is one statement."""
    numbers = [j for j in table.of(*NUMBERS) if table.names[j] not in copies]
    numbers = [j for j in numbers if table.distinct[j] > 2][:MOST_NUMBERS]
    targets: set[str] = set()
    together: list[set[str]] = []
    for statement in (*_of_two(table, numbers), *_elapsed(table, numbers)):
        columns = set(statement.columns)
        if columns not in together and statement.target not in targets:
            together.append(columns)
            targets.add(statement.target)
            yield statement
    yield from _of_many(table, [j for j in numbers if table.names[j] not in targets])


def _of_two(table: SearchedTable, numbers: Sequence[int]) -> Iterator[Sum | Product]:
    few = _few(table, numbers)
    names = table.names
    for i, j in combinations(numbers, 2):
        first, second = few[:, i], few[:, j]
        for k in _near(few, first + second, table, numbers, (i, j)):
            yield from _proved(Sum(names[k], ((1, names[i]), (1, names[j]))), table)
        for k in _near(few, first * second, table, numbers, (i, j)):
            yield from _proved(Product(names[k], names[i], names[j]), table)
        for a, b in ((i, j), (j, i)):
            ratio = few[:, a] / np.where(few[:, b] == 0, np.nan, few[:, b])
            for k in _near(few, ratio, table, numbers, (i, j)):
                yield from _proved(Product(names[k], names[a], names[b], divided=True), table)


def _few(table: SearchedTable, numbers: Sequence[int]) -> Floats:
    """Rows that hold the most of these columns."""
    held = (~np.isnan(table.x[:, numbers])).sum(1)
    return table.x[np.sort(np.argsort(-held, kind="stable")[:FEW])]


def _near(
    few: Floats, values: Floats, table: SearchedTable, numbers: Sequence[int], but: Sequence[int]
) -> list[int]:
    """The columns that have these values in all of a few rows."""
    candidates = few[:, numbers]
    off = np.abs(candidates - values[:, None])
    allowed = table.digits[numbers] + 1e-9 * np.abs(candidates)
    agrees = (off <= allowed).sum(0)
    near = (agrees >= ACTIVE) & (agrees == (~np.isnan(off)).sum(0))
    return [j for j in np.array(numbers)[near].tolist() if j not in but]


def _proved(statement: Sum | Product, table: SearchedTable) -> Iterator[Sum | Product]:
    """The statement, if it holds in all rows and each of its parts matters in some."""
    at = table.names.index
    target = table.x[:, at(statement.target)]
    digit = table.digits[at(statement.target)]
    if isinstance(statement, Sum):
        parts = [np.abs(table.x[:, at(name)]) > digit for name in statement.sources]
    else:
        parts = [np.abs(table.x[:, at(name)] - target) > digit for name in statement.sources]
    is_active = np.logical_and.reduce(parts) & ~np.isnan(target) & (np.abs(target) > digit)
    if is_active.sum() >= ACTIVE and holds(statement, table, share=0.3):
        yield statement


def _of_many(table: SearchedTable, numbers: Sequence[int]) -> Iterator[Sum]:
    """Sums of three columns or more, by least squares whose factors come out as 1 and -1."""
    complete = table.x[~np.isnan(table.x[:, numbers]).any(1)][:FEW]
    numbers = [j for j in numbers if np.ptp(complete[:, j]) > 0] if len(complete) else []
    if len(numbers) < 4 or len(complete) < 2 * len(numbers):
        return
    together: list[set[int]] = []
    for k in reversed(numbers):  # a total comes after its parts
        others = np.array([j for j in numbers if j != k])
        scale = np.abs(complete[:, others]).max(0)
        factors = (
            np.linalg.lstsq(complete[:, others] / scale, complete[:, k], rcond=None)[0] / scale
        )
        signs = np.rint(factors).astype(np.int64)
        terms = np.flatnonzero(signs)
        columns = {k, *others[terms].tolist()}
        is_sum = 3 <= len(terms) <= MOST_TERMS and (np.abs(signs) <= 1).all()
        if not is_sum or columns in together or (signs < 0).sum() > (signs > 0).sum():
            continue
        values = complete[:, others] @ signs
        if (np.abs(values - complete[:, k]) > table.digits[k] + 1e-9 * np.abs(values)).any():
            continue
        together.append(columns)
        terms = terms[np.argsort(-signs[terms], kind="stable")]
        named = tuple((int(signs[t]), table.names[others[t]]) for t in terms)
        yield from (
            sum_ for sum_ in _proved(Sum(table.names[k], named), table) if isinstance(sum_, Sum)
        )


def _elapsed(table: SearchedTable, numbers: Sequence[int]) -> Iterator[Elapsed]:
    few = _few(table, numbers) if numbers else table.x[:0]
    for start, end in permutations(table.of("datetime"), 2):
        for unit, micros in UNITS.items():
            values = (few[:, end] - few[:, start]) / micros
            for k in _near(few, values, table, numbers, ()):
                statement = Elapsed(table.names[k], unit, table.names[end], table.names[start])
                if holds(statement, table, share=0.3):
                    yield statement


def parts_of_datetimes(table: SearchedTable, copies: set[str]) -> Iterator[Part]:
    """Columns of whole numbers that are a part of a datetime."""
    whole = [j for j in table.of("integer") if table.names[j] not in copies]
    targets: set[int] = set()
    for source in table.of("datetime"):
        for part in PARTS:
            for target in whole:
                statement = Part(table.names[target], part, table.names[source])
                may_be = target not in targets and _is_part(table, part, source, target)
                if may_be and holds(statement, table):
                    targets.add(target)
                    yield statement


def _is_part(table: SearchedTable, part: str, source: int, target: int) -> bool:
    """Whether it is so in a few rows, whatever the time zone."""
    times, values = table.x[:FEW, source], table.x[:FEW, target]
    far = DAY if table.columns[source].zone else 0
    if part in ("hour", "minute"):
        low, high = 0, 23 if part == "hour" else 59
        return bool(((values >= low) & (values <= high) | np.isnan(values)).all()) and (
            far > 0 or bool((part_of(times, part) == values)[~np.isnan(times + values)].all())
        )
    around = [part_of(times + shift, part) for shift in (-far, 0, far)]
    is_near = np.logical_or.reduce([values == one for one in around])
    return bool(is_near[~np.isnan(times + values)].all())


def nearly_functions(table: SearchedTable, rules: Sequence[Rule]) -> Iterator[Nearly]:
    """Columns of numbers that no rule fixes and that are nearly smooth functions of others, the
    closest first; each column is in one such statement at most."""
    statements = [read_rule(rule.text, table.names) for rule in rules]
    fixed = {one.target for one in statements if not isinstance(one, Order)}
    numbers = [j for j in table.of(*NUMBERS) if table.names[j] not in fixed]
    numbers = [j for j in numbers if table.diverse[j] >= DIVERSE][:MOST_IN_PAIRS]
    close = []
    for target in numbers:
        if table.distinct[target] * ROWS_PER_VALUE < len(table.x):
            continue
        error, sources = _closest(table, target, numbers)
        if error <= NEARLY:
            blur = _blur(table.x[:, [*sources, target]])
            close.append((max(error, blur), target, sources))
    taken: set[int] = set()
    for off, target, sources in sorted(close):
        if off <= BLURRED and not taken & {target, *sources}:
            taken |= {target, *sources}
            yield Nearly(table.names[target], tuple(table.names[j] for j in sources))


def _closest(table: SearchedTable, target: int, numbers: Sequence[int]) -> tuple[float, list[int]]:
    """The columns whose polynomial is closest to a target, and how close: the quantile 0.9 of its
    errors by the target's standard deviation. A further column must halve the error."""
    sources: list[int] = []
    least = np.inf
    for _ in range(MAX_SOURCES):
        errors = [
            (_error(table.x[:, [*sources, j, target]]), j)
            for j in numbers
            if j != target and j not in sources
        ]
        error, best = min(errors, default=(np.inf, -1))
        if error > least / 2:
            break
        least, sources = error, [*sources, best]
    return least, sources


def _error(cells: Floats) -> float:
    """How far a polynomial that was fitted to half of the rows is from the last column in the other
    half."""
    cells = cells[~np.isnan(cells).any(1)][: 2 * FEW]
    spread = float(cells[:, -1].std()) if len(cells) else 0.0
    if len(cells) < 2 * ENOUGH or spread == 0:
        return np.inf
    centre, scale = standards_of(cells[:, :-1])
    x = polynomial_terms(cells[:, :-1], centre, scale)
    off = x[1::2] @ weights_of(x[::2], cells[::2, -1]) - cells[1::2, -1]
    return float(np.quantile(np.abs(off), 0.9)) / spread


def _blur(cells: Floats) -> float:
    """How far the polynomial for the last column moves, by its standard deviation, if each of the
    others moves as far as a made number may be from where the model puts it: by a RESOLVED-th of
    the column's rows."""
    cells = cells[~np.isnan(cells).any(1)][:SAMPLE]
    sources = cells[:, :-1]
    centre, scale = standards_of(sources)
    x = polynomial_terms(sources, centre, scale)
    weights = weights_of(x, cells[:, -1])
    rank = np.argsort(np.argsort(sources, axis=0), axis=0)
    shift = np.random.default_rng(0).integers(-1, 2, sources.shape) * (len(cells) // RESOLVED)
    moved = np.take_along_axis(
        np.sort(sources, axis=0), np.clip(rank + shift, 0, len(cells) - 1), axis=0
    )
    off = np.abs((polynomial_terms(moved, centre, scale) - x) @ weights)
    return float(np.quantile(off, 0.9)) / float(cells[:, -1].std())

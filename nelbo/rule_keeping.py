"""The rules of a schema applied to rows: which rows break them, and made rows that keep them.

What a rule of each kind does to rows is in nelbo.applied_rules and nelbo.applied_calculations.

Shapes: n rows, d modelled columns in the schema's order, R rules. Rows are a matrix x of
float64[n, d]: numbers as they are, datetimes in microseconds since the epoch, categories as their
codes; NaN where a cell is missing.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nelbo.applied_calculations import (
    AppliedElapsed,
    AppliedNearly,
    AppliedPart,
    AppliedProduct,
    AppliedSum,
)
from nelbo.applied_rules import (
    AppliedDependency,
    AppliedEqual,
    AppliedImplication,
    AppliedLimit,
    AppliedOrder,
    AppliedRule,
    Spans,
)
from nelbo.encoding import absolute, relative
from nelbo.errors import InvalidInput
from nelbo.rules import (
    UNITS,
    Cell,
    Dependency,
    Elapsed,
    Equal,
    Implication,
    Limit,
    Nearly,
    Order,
    Part,
    Product,
    Rule,
    Sum,
    number_of,
    read_rule,
)
from nelbo.schema import CATEGORICALS, Column, Schema

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
Redraw = Callable[[Floats, Booleans, Integers, int], Floats]
"""Called with rows float64[m, d], the cells to hide bool[m, d], the rows' indices int64[m] and the
number of the attempt: the rows with these cells drawn given the others."""
Uniforms = Callable[[Integers], Floats]
"""Called with the indices of rows int64[m]: a uniform number for each, float64[m]."""

ATTEMPTS = 8
"""Draws of the cells that break a rule, before they are given values that keep it."""
UNUSUAL_NUMBERS = np.errstate(over="ignore", invalid="ignore")
"""Sums and products of the largest numbers are infinite, which keeps no rule."""


# Rules of a schema


def applied(schema: Schema) -> list[AppliedRule]:
    """The rules of a schema, ready to apply. Raises InvalidInput where one cannot be read."""
    return [apply(rule, schema) for rule in schema.rules or ()]


def apply(rule: Rule, schema: Schema) -> AppliedRule:
    """A rule ready to apply to the columns of a schema. Raises InvalidInput where its text cannot
    be read."""
    columns = {column.name: column for column in schema.modelled}
    at = {name: i for i, name in enumerate(columns)}
    statement = read_rule(rule.text, list(columns))
    target = at[statement.target]
    sources = [at[name] for name in statement.sources]
    match statement:
        case Equal():
            both = columns[statement.source], columns[statement.target]
            return AppliedEqual(rule, target, sources[0], _translations(*both))
        case Order():
            step = _step(columns[statement.target], rule)
            return AppliedOrder(rule, statement, target, sources[0], step)
        case Sum():
            return AppliedSum(rule, target, sources, [sign for sign, _ in statement.terms])
        case Elapsed():
            return AppliedElapsed(rule, target, sources, UNITS[statement.unit])
        case Product():
            return AppliedProduct(rule, target, sources, statement.divided)
        case Part():
            return AppliedPart(rule, target, sources[0], statement.part)
        case Implication():
            limits = [_limited(limit, columns[limit.column], rule) for limit in statement.limits]
            return AppliedImplication(rule, target, sources, limits)
        case Nearly():
            return AppliedNearly(rule, target, sources)
        case Dependency():
            return _dependency(rule, statement, columns, at)


def _limited(limit: Limit, column: Column, rule: Rule) -> AppliedLimit:
    """A limit ready to apply. Raises InvalidInput for a category that the column does not have."""
    if column.kind not in CATEGORICALS:
        numbers = [number_of(value, column.kind) for value in limit.values]
        return AppliedLimit(limit, np.array(numbers, dtype=np.float64), _step(column, rule))
    codes = codes_by_name(column)
    for value in limit.values:
        if column.categories and value not in codes:
            raise InvalidInput(
                f"the rule {rule.text!r} names {value!r}, which column {column.name!r} does not"
                " have; correct the rule"
            )
    cells = [codes.get(value, np.nan) for value in limit.values]
    return AppliedLimit(limit, np.array(cells, dtype=np.float64), 1.0)


def _dependency(
    rule: Rule, statement: Dependency, columns: dict[str, Column], at: dict[str, int]
) -> AppliedDependency:
    sources = [columns[name] for name in statement.sources]
    keys = [_as_cells(cells, column) for cells, column in zip(rule.keys, sources, strict=True)]
    values = _as_cells(rule.values, columns[statement.target])
    return AppliedDependency(
        rule,
        at[statement.target],
        [at[column.name] for column in sources],
        np.column_stack(keys),
        values,
        [column.kind not in CATEGORICALS for column in sources],
        columns[statement.target].kind in CATEGORICALS,
    )


def _as_cells(cells: Sequence[Cell], column: Column) -> Floats:
    """Values of a rule as the matrix has them; NaN for an unknown category."""
    if column.kind not in CATEGORICALS:
        return np.array(cells, dtype=np.float64)
    codes = codes_by_name(column)
    return np.array([codes.get(str(cell), np.nan) for cell in cells], dtype=np.float64)


def codes_by_name(column: Column) -> dict[str, int]:
    """The code of each category, the rarer ones included."""
    rarer = [name for name, _ in column.rarer]
    after = len(column.categories) + 2
    codes = {name: after + i for i, name in enumerate(rarer)}
    return codes | {name: code for code, name in enumerate(column.categories)}


def _translations(source: Column, target: Column) -> tuple[Floats, Floats] | None:
    """The code of each category of one column in the other, forth and back."""
    if source.kind not in CATEGORICALS:
        return None
    return _translation(source, target), _translation(target, source)


def _translation(source: Column, target: Column) -> Floats:
    """float64: of each code of the source, that of the target; NaN, also at the end, where there is
    none."""
    of_target = codes_by_name(target)
    translation = np.full(len(source.categories) + len(source.rarer) + 3, np.nan)
    for name, code in codes_by_name(source).items():
        translation[code] = of_target.get(name, np.nan)
    return translation


def _step(column: Column, rule: Rule) -> float:
    """The smallest difference of two values of a column."""
    if column.kind == "datetime":
        return float(column.step)
    return 10.0 ** -(rule.decimals or 0)


@UNUSUAL_NUMBERS
def unkept(schema: Schema, spans: Mapping[str, Spans]) -> Rule | None:
    """A rule that no row with these cells in some columns keeps. It may overlook one: a rule is
    tried alone, and if all its columns are there. A row with a missing cell keeps its rules, so
    that columns which may be missing are left out of `spans`."""
    columns = schema.modelled
    for rule in schema.rules or ():
        statement = read_rule(rule.text, [column.name for column in columns])
        if not {statement.target, *statement.sources} <= spans.keys():
            continue
        applied_rule = apply(rule, schema)
        sources = [spans[name] for name in statement.sources]
        if not applied_rule.may_hold(sources, spans[statement.target]):
            return rule
    return None


# Rows that keep the rules


def matrix_of(numbers: Floats, codes: Integers, schema: Schema) -> Floats:
    """The matrix of rows as nelbo.encoding.encode gives them."""
    columns = dict(zip((c.name for c in schema.numbers), absolute(numbers, schema).T, strict=True))
    for column, of_column in zip(schema.categoricals, codes.T, strict=True):
        missing = of_column == len(column.categories) + 1
        columns[column.name] = np.where(missing, np.nan, of_column)
    return np.stack([columns[column.name] for column in schema.modelled], axis=1)


def without_unknown(x: Floats, schema: Schema) -> Floats:
    """The matrix without categories that the schema has no name for: rules say nothing of them."""
    x = x.copy()
    for j, column in enumerate(schema.modelled):
        if column.kind in CATEGORICALS:
            x[x[:, j] == len(column.categories), j] = np.nan
    return x


def encoded_rows(x: Floats, schema: Schema) -> tuple[Floats, Integers]:
    """The numbers and codes of a matrix, as nelbo.encoding.decode takes them."""
    at = {column.name: i for i, column in enumerate(schema.modelled)}
    numbers = x[:, [at[column.name] for column in schema.numbers]]
    codes = x[:, [at[column.name] for column in schema.categoricals]]
    missing = np.array([len(column.categories) + 1 for column in schema.categoricals], np.float64)
    return relative(numbers, schema), np.where(np.isnan(codes), missing, codes).astype(np.int64)


class RuleKeeper:
    """The rules of a schema, in the order in which a row can follow them."""

    def __init__(self, schema: Schema) -> None:
        self.rules = applied(schema)
        self._followed = _in_order([rule for rule in self.rules if rule.determines])
        self._has_rests = any(isinstance(rule, AppliedNearly) for rule in self.rules)

    @UNUSUAL_NUMBERS
    def broken(self, x: Floats) -> Booleans:
        """bool[n, R]: the rules that each row breaks."""
        none = np.empty((len(x), 0), dtype=np.bool_)
        return np.column_stack([none, *(rule.broken(x) for rule in self.rules)])

    @UNUSUAL_NUMBERS
    def kept(self, x: Floats, fixed: Booleans, redraw: Redraw, uniforms: Uniforms) -> Floats:
        """The rows with other values in cells that are not `fixed` bool[n, d], so that they keep
        all rules.

        Columns that others determine follow them. Where a rule is still broken, the cells that it
        is about are drawn again given the others, at most ATTEMPTS times. The few rows that
        then still break a rule get the nearest value that keeps it. Only rules whose cells are
        fixed stay broken.
        """
        u = uniforms(np.arange(len(x))) if self._has_rests else np.zeros(len(x))
        x = self._follow(x, fixed, u)
        for attempt in range(ATTEMPTS):
            hidden = self._to_hide(x, fixed)
            rows = np.flatnonzero(hidden.any(1))
            if not len(rows):
                return x
            drawn = redraw(x[rows], hidden[rows], rows, attempt)
            x[rows] = self._follow(drawn, fixed[rows], u[rows])
        rows = np.flatnonzero(self._to_hide(x, fixed).any(1))
        if len(rows):
            x[rows] = self._settle(x[rows], fixed[rows], uniforms(rows))
        return x

    def _follow(self, x: Floats, fixed: Booleans, u: Floats) -> Floats:
        x = x.copy()
        for rule in self._followed:
            # Or the target would lose a category whose sources are all too rare to be made.
            source = rule.sources[0]
            x[rule.unreached(x) & ~fixed[:, source], source] = np.nan
            values = rule.with_rest(rule.follow(x), u)
            own = x[:, rule.target]
            stays = fixed[:, rule.target] | np.isnan(own) | np.isnan(values)
            x[:, rule.target] = np.where(stays, own, values)
        return x

    def _to_hide(self, x: Floats, fixed: Booleans) -> Booleans:
        """bool[n, d]: the cells of broken rules that are not fixed."""
        hidden = np.zeros(x.shape, dtype=np.bool_)
        for rule in self.rules:
            hidden[np.ix_(rule.unusable(x), rule.columns)] = True
        return hidden & ~fixed

    def _settle(self, x: Floats, fixed: Booleans, u: Floats) -> Floats:
        """Rule after rule, and once more where one broke another."""
        for _ in self.rules:
            for rule in self.rules:
                x = self._follow(rule.settle(x, ~fixed, u), fixed, u)
            if not self._to_hide(x, fixed).any():
                break
        return x


def _in_order(rules: Sequence[AppliedRule]) -> list[AppliedRule]:
    """One rule for each target, after those that determine its sources; a rule that can have no
    such place, because its columns determine each other, is left out."""
    first: dict[int, AppliedRule] = {}
    for rule in rules:
        first.setdefault(rule.target, rule)
    ordered: list[AppliedRule] = []
    while first:
        ready = [rule for rule in first.values() if not first.keys() & set(rule.sources)]
        if not ready:
            first.pop(next(iter(first)))
            continue
        ordered += ready
        for rule in ready:
            del first[rule.target]
    return ordered

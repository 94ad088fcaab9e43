"""Rules, found: what holds in every row of a table, and not by chance.

A candidate is tested on a sample first, then on all rows. It must hold in each row that it says
something about, and if its target had nothing to do with its sources, at least ENOUGH rows would
break it. See nelbo.rules for what rules say, nelbo.rule_evidence for the tests.

Shapes: n rows, d modelled columns; rows are a matrix x float64[n, d], see nelbo.rule_keeping.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nelbo.calculation_finding import calculations, nearly_functions, parts_of_datetimes
from nelbo.cells import texts
from nelbo.dependency_finding import dependencies
from nelbo.encoding import encode, missing_in
from nelbo.errors import InvalidInput
from nelbo.rule_evidence import FEW, MOST_NUMBERS, NUMBERS, SAMPLE, SearchedTable, completed, holds
from nelbo.rule_keeping import UNUSUAL_NUMBERS, codes_by_name, matrix_of, without_unknown
from nelbo.rules import (
    MAX_ENTRIES,
    MAX_RULES,
    Equal,
    Order,
    Rule,
    Statement,
    check_kinds,
    read_rule,
)
from nelbo.schema import CATEGORICALS, MAX_CATEGORIES, Column, Schema

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

AT_RISK = 0.05
"""All found rules together are broken by at most this share of future rows, if each is broken by
one row more than in training."""
MOST_ROWS = 200_000
"""Rows in which candidates are looked for."""
MOST_FOUND = 50
"""Rules of a table that are found."""


@UNUSUAL_NUMBERS
def find_rules(x: Floats, schema: Schema, rare: int) -> tuple[Rule, ...]:
    """The rules that all rows keep, those with the most support first. Values that fewer than
    `rare` rows hold are in none."""
    x = without_unknown(x, schema)
    table = SearchedTable(x[:: max(1, -(-len(x) // MOST_ROWS))], schema)
    rules = []
    for statement in _candidates(table):
        rule = completed(statement, x, schema, rare)
        if rule is not None and rule.rows and not rule.broken:
            rules.append(rule)
    rules.sort(key=lambda rule: -rule.rows)
    at_risk = np.cumsum([1 / (rule.rows + 1) for rule in rules])
    rules = rules[: min(MOST_FOUND, int((at_risk <= AT_RISK).sum()))]
    nearly = [completed(statement, x, schema, rare) for statement in nearly_functions(table, rules)]
    return tuple([*rules, *(rule for rule in nearly if rule is not None)][:MAX_RULES])


def candidate_rules(table: pa.Table, schema: Schema, rare: int = 5) -> tuple[Rule, ...]:
    """The rules of a table whose schema does not name its categories yet, as find_rules finds
    them. Rows that cannot be encoded are left out."""
    if not len(table) or not schema.modelled:
        return ()
    (batch,) = table.combine_chunks().to_batches()
    columns = [_with_all_categories(column, batch, schema) for column in schema.columns]
    schema = schema.model_copy(update={"columns": tuple(columns)})
    encoded = encode(batch, schema)
    return find_rules(matrix_of(encoded.numbers, encoded.codes, schema), schema, rare)


def _with_all_categories(column: Column, batch: pa.RecordBatch, schema: Schema) -> Column:
    if column.kind != "categorical" or column.categories:
        return column
    held = texts(batch.column(column.name), missing_in(column, schema)).drop_null()
    counts = Counter(held.to_pylist())
    names = tuple(str(name) for name, _ in counts.most_common(MAX_CATEGORIES))
    return column.model_copy(update={"categories": names})


@UNUSUAL_NUMBERS
def declared_rule(text: str, x: Floats, schema: Schema, rare: int) -> Rule:
    """A rule that a user declares, with what the rows say of it. Raises InvalidInput."""
    x = without_unknown(x, schema)
    kinds = {column.name: column.kind for column in schema.modelled}
    statement = read_rule(text, list(kinds))
    check_kinds(text, statement, kinds)
    rule = completed(statement, x, schema, rare)
    if rule is None:
        raise InvalidInput(
            f"the rule {text!r} would fix more than {MAX_ENTRIES:,} values, which an artifact does"
            " not hold; leave it out"
        )
    return rule


def _candidates(table: SearchedTable) -> Iterator[Statement]:
    """Statements that hold in all rows of the table."""
    equal = list(_equal(table))
    copies = {statement.target for statement in equal}
    calculated = [*calculations(table, copies), *parts_of_datetimes(table, copies)]
    yield from equal
    yield from calculated
    yield from dependencies(table, copies | {statement.target for statement in calculated})
    together = [set(statement.columns) for statement in calculated]
    for order in _orders(table, copies):
        if not any(set(order.columns) <= columns for columns in together):
            yield order


# Equal columns


def _equal(table: SearchedTable) -> Iterator[Equal]:
    """Each column that equals an earlier one, in the same rows."""
    first: dict[object, int] = {}
    for j, column in enumerate(table.columns):
        i = first.setdefault(_beginning(table, j), j)
        if i != j and _are_alike(table.columns[i], column):
            statement = Equal(column.name, table.columns[i].name)
            if holds(statement, table):
                yield statement


def _beginning(table: SearchedTable, j: int) -> object:
    """The first values of a column, so that only columns which begin alike are compared."""
    values = table.x[:FEW, j]
    if table.columns[j].kind not in CATEGORICALS:
        return values.tobytes()
    names = {code: name for name, code in codes_by_name(table.columns[j]).items()}
    return tuple(names.get(code) for code in values.tolist())


def _are_alike(first: Column, second: Column) -> bool:
    """Whether values of the two columns can be equal."""
    if first.kind in CATEGORICALS and second.kind in CATEGORICALS:
        return bool(codes_by_name(first).keys() & codes_by_name(second).keys())
    return first.kind == second.kind or (first.kind in NUMBERS and second.kind in NUMBERS)


# Orders


def _orders(table: SearchedTable, copies: set[str]) -> Iterator[Order]:
    """Pairs of numbers, or of datetimes, of which one is never below the other; without those that
    follow from others."""
    for columns in (table.of(*NUMBERS), table.of("datetime")):
        columns = [j for j in columns if table.names[j] not in copies][:MOST_NUMBERS]
        if len(columns) < 2:
            continue
        above = _never_below(table, columns)
        implied = (above.astype(np.int64) @ above.astype(np.int64)) > 0
        for i, j in np.argwhere(above & ~implied).tolist():
            yield Order(table.names[columns[j]], table.names[columns[i]])


def _never_below(table: SearchedTable, columns: Sequence[int]) -> Booleans:
    """bool[c, c]: whether column j is never below column i, in all rows and not by chance."""
    few = table.x[:SAMPLE, columns]
    above = np.stack([~(few < few[:, [i]]).any(0) for i in range(len(columns))])
    np.fill_diagonal(above, False)
    for i, j in np.argwhere(above).tolist():
        if above[j, i]:
            above[i, j] = above[j, i] = False
            continue
        order = Order(table.names[columns[j]], table.names[columns[i]])
        above[i, j] = holds(order, table)
    return above

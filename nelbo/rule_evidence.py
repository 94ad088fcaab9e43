"""Rows in which rules are looked for, and what they say of a rule: whether it holds, in how many
rows, and which values it fixes.

Rows are a matrix x float64[n, d], see nelbo.rule_keeping.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nelbo.applied_rules import AppliedRule
from nelbo.datetime_parts import offsets_of
from nelbo.polynomials import curve_of
from nelbo.rule_keeping import apply, codes_by_name
from nelbo.rules import (
    MAX_ENTRIES,
    Cell,
    Dependency,
    Elapsed,
    Equal,
    Implication,
    Nearly,
    Order,
    Part,
    Product,
    Rule,
    Statement,
    Sum,
)
from nelbo.schema import CATEGORICALS, Column, Kind, Schema
from nelbo.spelling.numbers import decimals_of

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

ENOUGH = 100
"""Rows that would break a rule if its target had nothing to do with its sources, at least."""
SHARE = 0.005
"""The same as a share of the rows."""
SAMPLE, FEW = 2_000, 256
"""Rows that a candidate is tested on first."""
MOST_NUMBERS = 60
"""Columns of numbers among which sums, products and orders are looked for, the first ones."""
MOST_IN_PAIRS = 24
"""Columns of which two together may fix a third."""
NUMBERS: tuple[Kind, ...] = ("continuous", "integer")


class SearchedTable:
    """Rows in which rules are looked for: their matrix `x`, and for each column the `ids` int64[n]
    of its values, -1 where a cell is missing."""

    def __init__(self, x: Floats, schema: Schema) -> None:
        self.x = x.copy()
        self.schema = schema
        self.columns = schema.modelled
        self.names = [column.name for column in schema.modelled]
        self.ids = np.column_stack([_ids(values) for values in x.T])
        self.distinct = self.ids.max(axis=0, initial=-1) + 1
        self.diverse = np.array([_diversity(of_column) for of_column in self.ids.T])
        self._shuffled = np.random.default_rng(0).permutation(len(x))

    def of(self, *kinds: Kind) -> list[int]:
        """The columns of these kinds that have more than one value."""
        columns = enumerate(self.columns)
        return [j for j, column in columns if column.kind in kinds and self.distinct[j] > 1]

    @cached_property
    def digits(self) -> Floats:
        """float64[d]: half of the last digit of each column."""
        decimals = [decimals_in(values) for values in self.x.T]
        return np.array([0.5 * 10.0**-digits if digits is not None else 0.0 for digits in decimals])

    def would_break(self, rule: AppliedRule) -> int:
        """The rows that would break a rule if its target had nothing to do with its sources."""
        target = self.x[:, rule.target].copy()
        self.x[:, rule.target] = target[self._shuffled]
        count = int(rule.broken(self.x).sum())
        self.x[:, rule.target] = target
        return count


def _ids(values: Floats) -> Integers:
    _, ids = np.unique(values, return_inverse=True)
    return np.where(np.isnan(values), -1, ids.ravel())


def _diversity(ids: Integers) -> float:
    """The probability that two rows differ."""
    counts = np.bincount(ids[ids >= 0])
    return 1 - float(((counts / max(1, counts.sum())) ** 2).sum())


def holds(statement: Statement, table: SearchedTable, share: float = SHARE) -> bool:
    """Whether no row breaks it although, by chance, many would."""
    rule = completed(statement, table.x, table.schema, 1)
    if rule is None or rule.broken:
        return False
    would_break = table.would_break(apply(rule, table.schema))
    return would_break >= max(ENOUGH, share * rule.rows)


def completed(statement: Statement, x: Floats, schema: Schema, rare: int) -> Rule | None:
    """The rule with what the rows say of it; None where it would fix too many values."""
    at = {column.name: j for j, column in enumerate(schema.modelled)}
    columns = [at[name] for name in statement.columns]
    draft = Rule(text=str(statement))
    match statement:
        case Dependency():
            return _with_values(draft, x[:, columns], [schema.modelled[j] for j in columns], rare)
        case Sum() | Product() | Elapsed():
            decimals = decimals_in(x[:, columns[-1]])
            within = 0.0 if decimals is None else 0.5 * 10.0**-decimals
            draft = draft.model_copy(update={"decimals": decimals, "within": within})
        case Order() | Implication():
            digits = decimals_in(x[:, columns])
            draft = draft.model_copy(update={"decimals": digits})
        case Part():
            zone = schema.modelled[columns[0]].zone
            offsets = offsets_of(statement.part, *x[:, columns].T) if zone else ()
            draft = draft.model_copy(update={"offsets": offsets})
        case Nearly():
            decimals = decimals_in(x[:, columns[-1]])
            draft = draft.model_copy(
                update={"decimals": decimals, "curve": curve_of(x[:, columns])}
            )
        case Equal():
            pass
    rows = int((~np.isnan(x[:, columns]).any(1)).sum())
    broken = int(apply(draft, schema).broken(x).sum())
    return draft.model_copy(update={"rows": rows, "broken": broken})


def decimals_in(values: Floats) -> int | None:
    """The digits after the point that write all values; None where those are too many."""
    digits = decimals_of(np.unique(values[~np.isnan(values)]))
    return None if digits < 0 else digits


def _with_values(draft: Rule, cells: Floats, columns: Sequence[Column], rare: int) -> Rule | None:
    """A dependency with the values of its sources, which come first, and what they fix. Values that
    fewer than `rare` rows hold are left out; the most frequent target of the others counts."""
    present = cells[~np.isnan(cells).any(1)]
    lines, counts = np.unique(present, axis=0, return_counts=True)
    lines = lines[np.argsort(-counts, kind="stable")]
    counts = np.sort(counts)[::-1]
    keys, first, group = np.unique(lines[:, :-1], axis=0, return_index=True, return_inverse=True)
    rows = np.bincount(group.ravel(), weights=counts, minlength=len(keys)).astype(np.int64)
    broken = int(rows.sum() - counts[first].sum())
    may = rows >= rare
    if may.sum() > MAX_ENTRIES:
        return None
    fixed = lines[first][may]
    named = [_named(values, column) for values, column in zip(fixed.T, columns, strict=True)]
    update = {
        "keys": tuple(named[:-1]),
        "values": named[-1],
        "counts": tuple(rows[may].tolist()),
        "rows": len(present) - len(keys),
        "broken": broken,
    }
    return draft.model_copy(update=update)


def _named(values: Floats, column: Column) -> tuple[Cell, ...]:
    """Cells of the matrix as a rule has them."""
    if column.kind not in CATEGORICALS:
        return tuple(values.tolist())
    names = {code: name for name, code in codes_by_name(column).items()}
    return tuple(names[int(code)] for code in values.tolist())

"""Rules found: columns whose value one other column, or two others, fix."""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from nelbo.rule_evidence import ENOUGH, MOST_IN_PAIRS, SAMPLE, SearchedTable
from nelbo.rules import MAX_ENTRIES, Dependency
from nelbo.schema import CATEGORICALS

Integers = NDArray[np.int64]

MOST_SOURCES = 200
"""Columns that are looked at for whether they fix others, the first ones."""
ROWS_PER_NUMBER = 3
"""Mean rows of each value of a number that fixes another column."""


def dependencies(table: SearchedTable, fixed: set[str]) -> Iterator[Dependency]:
    """Columns that one other, or two others, fix; but not those that are fixed already."""
    targets = [j for j in range(len(table.columns)) if table.names[j] not in fixed]
    targets = [j for j in targets if table.distinct[j] > 1 and table.columns[j].kind != "datetime"]
    sources = [j for j in targets if _may_fix(table, j)][:MOST_SOURCES]
    direct: dict[int, set[int]] = {j: set() for j in range(len(table.columns))}
    for source in sources:
        for target in _fixed_by(table, [source], targets):
            direct[target].add(source)

    representative: dict[int, int] = {}
    for j in sources:
        alike = [i for i in direct[j] if j in direct[i] and i < j]
        representative[j] = min([j, *alike])
    for target in targets:
        own = representative.get(target, target)
        through = {representative[source] for source in direct[target]}
        if own != target:
            yield Dependency(table.names[target], (table.names[own],))
            continue
        through.discard(target)
        nearest = [s for s in through if not any(s in direct[t] for t in through - {s})]
        for source in sorted(nearest):
            yield Dependency(table.names[target], (table.names[source],))

    free = [j for j in sources if representative[j] == j and table.distinct[j] <= 1_000]
    open_targets = [j for j in targets if not direct[j]]
    together: list[set[int]] = []
    for pair in combinations(free[:MOST_IN_PAIRS], 2):
        if pair[0] in direct[pair[1]] or pair[1] in direct[pair[0]]:
            continue
        for target in _fixed_by(table, pair, [j for j in open_targets if j not in pair]):
            columns = {*pair, target}
            if columns not in together and not set(pair) & direct[target]:
                together.append(columns)
                yield Dependency(table.names[target], tuple(table.names[j] for j in pair))


def _may_fix(table: SearchedTable, j: int) -> bool:
    """Whether the values of a column are in so many rows that they can fix another column."""
    held = int((table.ids[:, j] >= 0).sum())
    most = held / (1 if table.columns[j].kind in CATEGORICALS else ROWS_PER_NUMBER)
    return table.columns[j].kind != "continuous" and table.distinct[j] <= min(MAX_ENTRIES, most)


def _fixed_by(table: SearchedTable, sources: Sequence[int], targets: Sequence[int]) -> list[int]:
    """The columns among `targets` whose value the sources together fix, and not by chance."""
    others = [j for j in targets if j not in sources]
    if not others:
        return []
    for rows in (SAMPLE, len(table.x)):
        lines = _groups(table.ids[:rows, list(sources)])
        ids = table.ids[:rows, others]
        tests = _tests(lines, ids)
        others = [j for j, count in zip(others, tests.tolist(), strict=True) if count >= 0]
        if not others:
            return []
    tests = tests[tests >= 0]
    return [
        j
        for j, count in zip(others, tests.tolist(), strict=True)
        if count * table.diverse[j] >= ENOUGH
    ]


def _groups(ids: Integers) -> Integers:
    """int64[n]: one number for each combination of values; -1 where one is missing."""
    if ids.shape[1] == 1:
        return ids[:, 0]
    width = ids.max(axis=0, initial=0) + 1
    combined = ids[:, 0] * width[1] + ids[:, 1]
    return np.where((ids < 0).any(1), -1, combined)


def _tests(groups: Integers, ids: Integers) -> Integers:
    """int64[t]: of each column of ids [n, t], the rows beyond the first of their group that have
    the value of their group; -1 where one has another value."""
    order = np.argsort(groups, kind="stable")
    order = order[groups[order] >= 0]
    if not len(order):
        return np.zeros(ids.shape[1], dtype=np.int64)
    own = ids[order]
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    highest = np.maximum.reduceat(own, starts, axis=0)
    present = own >= 0
    lowest = np.minimum.reduceat(np.where(present, own, np.iinfo(np.int64).max), starts, axis=0)
    rows = present.sum(0) - (highest >= 0).sum(0)
    return np.where(((highest == lowest) | (highest < 0)).all(0), rows, -1)

"""Rules, found: what holds in every row of a table, and not by chance.

A candidate is tested on a sample first, then on all rows. It must hold in each row that it says
something about, and if its target had nothing to do with its sources, at least ENOUGH rows would
break it. See nelbo.rules for what rules say.

Shapes: n rows, d modelled columns; rows are a matrix x float64[n, d], see nelbo.rule_keeping.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import combinations, pairwise, permutations
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nelbo.applied_rules import AppliedRule
from nelbo.cells import texts
from nelbo.datetime_parts import DAY, local, part_of
from nelbo.encoding import encode, missing_in
from nelbo.errors import InvalidInput
from nelbo.polynomials import polynomial_terms
from nelbo.rule_keeping import (
    UNUSUAL_NUMBERS,
    apply,
    codes_by_name,
    matrix_of,
    without_unknown,
)
from nelbo.rules import (
    MAX_ENTRIES,
    MAX_FIGURES,
    MAX_RULES,
    MAX_SOURCES,
    PARTS,
    UNITS,
    Cell,
    Dependency,
    Elapsed,
    Equal,
    Implication,
    Nearly,
    Order,
    Part,
    Polynomial,
    Product,
    Rule,
    Statement,
    Sum,
    check_kinds,
    read_rule,
)
from nelbo.schema import CATEGORICALS, MAX_CATEGORIES, Column, Kind, Schema
from nelbo.spelling.numbers import decimals_of

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

ENOUGH = 100
"""Rows that would break a rule if its target had nothing to do with its sources, at least."""
SHARE = 0.005
"""The same as a share of the rows."""
AT_RISK = 0.05
"""All found rules together are broken by at most this share of future rows, if each is broken by
one row more than in training."""
ACTIVE = 20
"""Rows, at least, in which each part of a sum or a product changes the result."""
SAMPLE, FEW = 2_000, 256
"""Rows that a candidate is tested on first."""
MOST_ROWS = 200_000
"""Rows in which candidates are looked for."""
MOST_NUMBERS = 60
"""Columns of numbers among which sums, products and orders are looked for, the first ones."""
MOST_SOURCES = 200
"""Columns that are looked at for whether they fix others, the first ones."""
MOST_FOUND = 50
"""Rules of a table that are found."""
MOST_IN_PAIRS = 24
"""Columns of which two together may fix a third."""
ROWS_PER_NUMBER = 3
"""Mean rows of each value of a number that fixes another column."""
NEARLY = 0.05
"""A number is nearly a function of others if nine in ten of its rows are at most this share of its
standard deviation off."""
BLURRED, RESOLVED = 0.2, 128
"""Of such columns, the one is made from the others that least depends on their exact values."""
DIVERSE = 0.95
"""The probability that two rows differ in a column of such numbers, at least."""
ROWS_PER_VALUE = 20
"""Mean rows of a value, at most, in such a column: others hold certain values alone."""
MOST_TERMS = 8
"""Columns that a sum has at most."""
NUMBERS: tuple[Kind, ...] = ("continuous", "integer")


class _Table:
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
        decimals = [_decimals(values) for values in self.x.T]
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


@UNUSUAL_NUMBERS
def find_rules(x: Floats, schema: Schema, rare: int) -> tuple[Rule, ...]:
    """The rules that all rows keep, those with the most support first. Values that fewer than
    `rare` rows hold are in none."""
    x = without_unknown(x, schema)
    table = _Table(x[:: max(1, -(-len(x) // MOST_ROWS))], schema)
    rules = []
    for statement in _candidates(table):
        rule = completed(statement, x, schema, rare)
        if rule is not None and rule.rows and not rule.broken:
            rules.append(rule)
    rules.sort(key=lambda rule: -rule.rows)
    at_risk = np.cumsum([1 / (rule.rows + 1) for rule in rules])
    rules = rules[: min(MOST_FOUND, int((at_risk <= AT_RISK).sum()))]
    nearly = [completed(statement, x, schema, rare) for statement in _nearly(table, rules)]
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


def completed(statement: Statement, x: Floats, schema: Schema, rare: int) -> Rule | None:
    """The rule with what the rows say of it; None where it would fix too many values."""
    at = {column.name: j for j, column in enumerate(schema.modelled)}
    columns = [at[name] for name in statement.columns]
    draft = Rule(text=str(statement))
    match statement:
        case Dependency():
            return _fixing(draft, x[:, columns], [schema.modelled[j] for j in columns], rare)
        case Sum() | Product() | Elapsed():
            decimals = _decimals(x[:, columns[-1]])
            within = 0.0 if decimals is None else 0.5 * 10.0**-decimals
            draft = draft.model_copy(update={"decimals": decimals, "within": within})
        case Order() | Implication():
            digits = _decimals(x[:, columns])
            draft = draft.model_copy(update={"decimals": digits})
        case Part():
            zone = schema.modelled[columns[0]].zone
            offsets = _offsets(statement.part, *x[:, columns].T) if zone else ()
            draft = draft.model_copy(update={"offsets": offsets})
        case Nearly():
            decimals = _decimals(x[:, columns[-1]])
            draft = draft.model_copy(
                update={"decimals": decimals, "curve": curve_of(x[:, columns])}
            )
        case Equal():
            pass
    rows = int((~np.isnan(x[:, columns]).any(1)).sum())
    broken = int(apply(draft, schema).broken(x).sum())
    return draft.model_copy(update={"rows": rows, "broken": broken})


def _decimals(values: Floats) -> int | None:
    """The digits after the point that write all values; None where those are too many."""
    digits = decimals_of(np.unique(values[~np.isnan(values)]))
    return None if digits < 0 else digits


def _candidates(table: _Table) -> Iterator[Statement]:
    """Statements that hold in all rows of the table."""
    equal = list(_equal(table))
    copies = {statement.target for statement in equal}
    calculated = [*_calculated(table, copies), *_parts(table, copies)]
    yield from equal
    yield from calculated
    yield from _dependencies(table, copies | {statement.target for statement in calculated})
    together = [set(statement.columns) for statement in calculated]
    for order in _orders(table, copies):
        if not any(set(order.columns) <= columns for columns in together):
            yield order


def _holds(statement: Statement, table: _Table, share: float = SHARE) -> bool:
    """Whether no row breaks it although, by chance, many would."""
    rule = completed(statement, table.x, table.schema, 1)
    if rule is None or rule.broken:
        return False
    would_break = table.would_break(apply(rule, table.schema))
    return would_break >= max(ENOUGH, share * rule.rows)


# Equal columns


def _equal(table: _Table) -> Iterator[Equal]:
    """Each column that equals an earlier one, in the same rows."""
    first: dict[object, int] = {}
    for j, column in enumerate(table.columns):
        i = first.setdefault(_beginning(table, j), j)
        if i != j and _are_alike(table.columns[i], column):
            statement = Equal(column.name, table.columns[i].name)
            if _holds(statement, table):
                yield statement


def _beginning(table: _Table, j: int) -> object:
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


# Sums, products, times and their parts


def _calculated(table: _Table, copies: set[str]) -> Iterator[Sum | Product | Elapsed]:
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


def _of_two(table: _Table, numbers: Sequence[int]) -> Iterator[Sum | Product]:
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


def _few(table: _Table, numbers: Sequence[int]) -> Floats:
    """Rows that hold the most of these columns."""
    held = (~np.isnan(table.x[:, numbers])).sum(1)
    return table.x[np.sort(np.argsort(-held, kind="stable")[:FEW])]


def _near(
    few: Floats, values: Floats, table: _Table, numbers: Sequence[int], but: Sequence[int]
) -> list[int]:
    """The columns that have these values in all of a few rows."""
    candidates = few[:, numbers]
    off = np.abs(candidates - values[:, None])
    allowed = table.digits[numbers] + 1e-9 * np.abs(candidates)
    agrees = (off <= allowed).sum(0)
    near = (agrees >= ACTIVE) & (agrees == (~np.isnan(off)).sum(0))
    return [j for j in np.array(numbers)[near].tolist() if j not in but]


def _proved(statement: Sum | Product, table: _Table) -> Iterator[Sum | Product]:
    """The statement, if it holds in all rows and each of its parts matters in some."""
    at = table.names.index
    target = table.x[:, at(statement.target)]
    digit = table.digits[at(statement.target)]
    if isinstance(statement, Sum):
        parts = [np.abs(table.x[:, at(name)]) > digit for name in statement.sources]
    else:
        parts = [np.abs(table.x[:, at(name)] - target) > digit for name in statement.sources]
    is_active = np.logical_and.reduce(parts) & ~np.isnan(target) & (np.abs(target) > digit)
    if is_active.sum() >= ACTIVE and _holds(statement, table, share=0.3):
        yield statement


def _of_many(table: _Table, numbers: Sequence[int]) -> Iterator[Sum]:
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


def _elapsed(table: _Table, numbers: Sequence[int]) -> Iterator[Elapsed]:
    few = _few(table, numbers) if numbers else table.x[:0]
    for start, end in permutations(table.of("datetime"), 2):
        for unit, micros in UNITS.items():
            values = (few[:, end] - few[:, start]) / micros
            for k in _near(few, values, table, numbers, ()):
                statement = Elapsed(table.names[k], unit, table.names[end], table.names[start])
                if _holds(statement, table, share=0.3):
                    yield statement


def _parts(table: _Table, copies: set[str]) -> Iterator[Part]:
    """Columns of whole numbers that are a part of a datetime."""
    whole = [j for j in table.of("integer") if table.names[j] not in copies]
    targets: set[int] = set()
    for source in table.of("datetime"):
        for part in PARTS:
            for target in whole:
                statement = Part(table.names[target], part, table.names[source])
                may_be = target not in targets and _is_part(table, part, source, target)
                if may_be and _holds(statement, table):
                    targets.add(target)
                    yield statement


def _is_part(table: _Table, part: str, source: int, target: int) -> bool:
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


def _offsets(part: str, times: Floats, values: Floats) -> tuple[tuple[float, float], ...]:
    """How far local time is from times in UTC, if in some time zone the values are a part of it:
    pairs (from when, by how much)."""
    present = np.flatnonzero(~np.isnan(times + values))
    differ = present[part_of(times[present], part) != values[present]]
    if not len(differ):
        return ()
    few = np.concatenate([some[:: -(-len(some) // FEW)] for some in (differ, present)])
    first, last = float(times[present].min()), float(times[present].max())
    for zone in _zones():
        by = np.array([_offset(zone, time) for time in times[few].tolist()])
        if (part_of(times[few] + by, part) != values[few]).any():
            continue
        offsets = tuple(_changes(zone, first, last))
        if (part_of(local(times[present], offsets), part) == values[present]).all():
            return offsets
    return ()


def _zones() -> Iterator[ZoneInfo]:
    """All time zones that this machine knows, those of continents and cities first."""
    for name in sorted(available_timezones(), key=lambda name: ("/" not in name, name)):
        try:
            yield ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError):
            continue


def _offset(zone: ZoneInfo, micros: float) -> float:
    moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=micros)
    offset = moment.astimezone(zone).utcoffset()
    return 0.0 if offset is None else offset / timedelta(microseconds=1)


def _changes(zone: ZoneInfo, first: float, last: float) -> Iterator[tuple[float, float]]:
    """When a zone's offset changes, to the second, and to what."""
    days = np.append(np.arange(first, last, DAY), last).tolist()
    offset = _offset(zone, first)
    yield first, offset
    for low, high in pairwise(days):
        after = _offset(zone, high)
        if after != offset:
            while high - low > 1e6:
                middle = np.floor((low + high) / 2e6) * 1e6
                low, high = (middle, high) if _offset(zone, middle) == offset else (low, middle)
            yield high, after
            offset = after


# Numbers that are nearly functions of others


def _nearly(table: _Table, rules: Sequence[Rule]) -> Iterator[Nearly]:
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


def _blur(cells: Floats) -> float:
    """How far the polynomial for the last column moves, by its standard deviation, if each of the
    others moves as far as a made number may be from where the model puts it: by a RESOLVED-th of
    the column's rows."""
    cells = cells[~np.isnan(cells).any(1)][:SAMPLE]
    sources = cells[:, :-1]
    centre, scale = _standards(sources)
    x = polynomial_terms(sources, centre, scale)
    weights = _weights(x, cells[:, -1])
    rank = np.argsort(np.argsort(sources, axis=0), axis=0)
    shift = np.random.default_rng(0).integers(-1, 2, sources.shape) * (len(cells) // RESOLVED)
    moved = np.take_along_axis(
        np.sort(sources, axis=0), np.clip(rank + shift, 0, len(cells) - 1), axis=0
    )
    off = np.abs((polynomial_terms(moved, centre, scale) - x) @ weights)
    return float(np.quantile(off, 0.9)) / float(cells[:, -1].std())


def _closest(table: _Table, target: int, numbers: Sequence[int]) -> tuple[float, list[int]]:
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
    centre, scale = _standards(cells[:, :-1])
    x = polynomial_terms(cells[:, :-1], centre, scale)
    off = x[1::2] @ _weights(x[::2], cells[::2, -1]) - cells[1::2, -1]
    return float(np.quantile(np.abs(off), 0.9)) / spread


def _standards(sources: Floats) -> tuple[Floats, Floats]:
    """The centre and the scale of each column."""
    scale = sources.std(axis=0)
    return np.median(sources, axis=0), np.where(scale > 0, scale, 1.0)


def _weights(x: Floats, target: Floats) -> Floats:
    """The weights of terms x float64[n, T] by least squares; the twentieth of the rows that is
    farthest off does not count."""
    off = np.abs(target - x @ np.linalg.lstsq(x, target, rcond=None)[0])
    near = off <= np.quantile(off, 0.95)
    return np.asarray(np.linalg.lstsq(x[near], target[near], rcond=None)[0])


def curve_of(cells: Floats) -> Polynomial:
    """The polynomial of all columns of cells but the last, which is nearest to that."""
    cells = cells[~np.isnan(cells).any(1)]
    target = cells[:, -1]
    centre, scale = _standards(cells[:, :-1])
    x = polynomial_terms(cells[:, :-1], centre, scale)
    weights = _weights(x, target)
    left = np.quantile(target - x @ weights, np.linspace(0, 1, MAX_FIGURES))
    return Polynomial(
        centre=tuple(centre.tolist()),
        scale=tuple(scale.tolist()),
        weights=tuple(weights.tolist()),
        left=tuple(left.tolist()),
        lowest=float(target.min()),
        highest=float(target.max()),
    )


# What other columns fix


def _dependencies(table: _Table, fixed: set[str]) -> Iterator[Dependency]:
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


def _may_fix(table: _Table, j: int) -> bool:
    """Whether the values of a column are in so many rows that they can fix another column."""
    held = int((table.ids[:, j] >= 0).sum())
    most = held / (1 if table.columns[j].kind in CATEGORICALS else ROWS_PER_NUMBER)
    return table.columns[j].kind != "continuous" and table.distinct[j] <= min(MAX_ENTRIES, most)


def _fixed_by(table: _Table, sources: Sequence[int], targets: Sequence[int]) -> list[int]:
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


def _fixing(draft: Rule, cells: Floats, columns: Sequence[Column], rare: int) -> Rule | None:
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


# Orders


def _orders(table: _Table, copies: set[str]) -> Iterator[Order]:
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


def _never_below(table: _Table, columns: Sequence[int]) -> Booleans:
    """bool[c, c]: whether column j is never below column i, in all rows and not by chance."""
    few = table.x[:SAMPLE, columns]
    above = np.stack([~(few < few[:, [i]]).any(0) for i in range(len(columns))])
    np.fill_diagonal(above, False)
    for i, j in np.argwhere(above).tolist():
        if above[j, i]:
            above[i, j] = above[j, i] = False
            continue
        order = Order(table.names[columns[j]], table.names[columns[i]])
        above[i, j] = _holds(order, table)
    return above

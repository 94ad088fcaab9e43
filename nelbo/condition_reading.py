"""The conditions of a request, read by a model's manifest, so that one that no row can meet is
refused before any row is made."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa

from nelbo.artifact import Domain, Manifest
from nelbo.cells import spelled, texts
from nelbo.clauses import Clause, parse_where
from nelbo.conditions import Allowed, Conditions, Range, Shares, breaks_rule, overlaps
from nelbo.datetime_parts import DAY, MINUTE, SECOND
from nelbo.encoding import Encoded, decode, encode, listed_names, shortened
from nelbo.errors import InvalidInput
from nelbo.rule_keeping import unkept
from nelbo.rules import Rule
from nelbo.schema import CATEGORICALS, Column, Schema
from nelbo.scores import nelbo_at

EVERY: tuple[Range, ...] = ((-math.inf, math.inf),)

_PART_OF_YEAR = re.compile(r"(\d{4})(?:-(\d\d))?")
_CLOCK = re.compile(r"\d:\d\d(?P<second>:\d\d(?P<fraction>[.,]\d+)?)?")
_ZONED = re.compile(r"(?:Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)$", re.IGNORECASE)


def read_conditions(
    manifest: Manifest,
    where: Iterable[str] = (),
    like: Mapping[str, Any] | None = None,
    balance: str | None = None,
    weights: Mapping[str, Mapping[str, float]] | None = None,
    rarity: tuple[float, float] | None = None,
) -> Conditions:
    """The conditions of a request. Raises InvalidInput for one that no row can meet.

    where: texts such as "age >= 30 and label in (a, b)".
    like: cells that each row has, by column; a cell that is None is drawn.
    balance: a column whose categories each have the same share.
    weights: a column and the weights of its categories.
    rarity: two percentiles of the nelbo, between which that of each row is.
    """
    reader = _ConditionReader(manifest)
    clauses = [clause for text in where for clause in parse_where(text)]
    clauses += [
        Clause(f"{name} = {cell}", name, "=", (_text_of(name, cell),))
        for name, cell in (like or {}).items()
        if cell is not None
    ]
    allowed: dict[str, Allowed] = {}
    texts_of: dict[str, list[str]] = {}
    for clause in clauses:
        new = reader.allowed(clause)
        texts_of.setdefault(clause.name, []).append(clause.text)
        both = allowed[clause.name].both(new) if clause.name in allowed else new
        if both.is_empty:
            raise InvalidInput(
                f"no value of the column {clause.name!r} meets all of the conditions"
                f" {listed_names(texts_of[clause.name])}: leave one of them out"
            )
        allowed[clause.name] = both

    shares = reader.shares(balance, weights or {}, allowed)
    _check_rules(manifest.table_schema, allowed, shares)
    in_order = (allowed[name] for name in manifest.table_schema.names if name in allowed)
    return Conditions(tuple(in_order), shares, _nelbo_range(manifest, rarity, shares))


def conditions_in(manifest: Manifest, fields: Mapping[str, Any]) -> Conditions:
    """The conditions in the fields of a request, or in the params of its job. Raises
    InvalidInput."""
    names = ("where", "like", "balance", "weights", "rarity")
    return read_conditions(manifest, **{name: fields[name] for name in names if name in fields})


def _nelbo_range(
    manifest: Manifest, rarity: tuple[float, float] | None, shares: Shares | None
) -> Range | None:
    if rarity is None:
        return None
    low, high = rarity
    if low >= high:
        raise InvalidInput(
            f"the rarity goes from {low:g} to {high:g}; write the smaller percentile first, such as"
            " 95:99.9"
        )
    if (low, high) == (0, 100):
        return None
    if shares is not None:
        raise InvalidInput(
            "rarity goes with where and like, not with balance and weights: ask for the rare rows"
            " of each category with where"
        )
    return nelbo_at(manifest, low), nelbo_at(manifest, high)


def _check_rules(schema: Schema, allowed: Mapping[str, Allowed], shares: Shares | None) -> None:
    """Raise InvalidInput if no row that meets the conditions can keep a rule; with shares, if no
    row of one of the categories can."""
    spans = {name: each.spans for name, each in allowed.items() if not each.missing}
    if shares is None:
        _check_kept(unkept(schema, spans))
        return
    for code in shares.codes:
        of_category = Allowed(shares.column, False, (code,)).spans
        _check_kept(unkept(schema, spans | {shares.column.name: of_category}))


def _check_kept(rule: Rule | None) -> None:
    if rule is not None:
        raise breaks_rule(rule)


def _text_of(name: str, cell: object) -> str:
    if hasattr(cell, "item"):
        cell = cell.item()  # a NumPy scalar
    match cell:
        case date():
            return cell.isoformat()
        case bool():
            return str(cell).lower()
        case int() | float():
            return repr(cell)
        case str():
            return cell
    raise InvalidInput(
        f"the cell {name!r} to be like is {shortened(str(cell))!r}; it must be text, a number,"
        " true, false or null"
    )


class _ConditionReader:
    """Reads conditions by the schema of a model, and checks them against what it makes."""

    def __init__(self, manifest: Manifest) -> None:
        self.schema = manifest.table_schema
        self._domains = manifest.domains
        self._rare = int(manifest.config.get("rare", 1))
        self._columns = {column.name: column for column in self.schema.columns}

    def allowed(self, clause: Clause) -> Allowed:
        """The cells that a clause allows."""
        column = self._column(clause.name)
        domain = self._domains.get(column.name, Domain())
        if clause.operator == "is missing":
            return self._missing(column, domain)
        if column.kind in CATEGORICALS:
            allowed = self._of_codes(column, domain, clause)
        else:
            allowed = self._of_numbers(column, domain, clause)
        if allowed.missing:
            self._missing(column, domain)
        return allowed

    def shares(
        self,
        balance: str | None,
        weights: Mapping[str, Mapping[str, float]],
        allowed: dict[str, Allowed],
    ) -> Shares | None:
        """The shares of a column's categories; conditions on that column are taken out of
        `allowed`, as they only say which categories take part."""
        if (balance is not None) + len(weights) > 1:
            raise InvalidInput(
                "the shares of one column's categories can be set in a request: name one column,"
                " by balance or by weights"
            )
        if balance is not None:
            column = self._shared(balance)
            codes = self._codes(column, self._domain(column))
            if column.name in allowed:
                codes = allowed.pop(column.name).codes
            if not codes:
                raise InvalidInput(
                    f"column {column.name!r} cannot be balanced: none of its categories may be made"
                )
            return Shares(column, codes)
        for name, of_categories in weights.items():
            column = self._shared(name)
            if name in allowed:
                raise InvalidInput(
                    f"column {name!r} has both weights and a condition; leave out one of them: a"
                    " category that the weights do not name is not made"
                )
            return self._weighted(column, of_categories)
        return None

    def _weighted(self, column: Column, weights: Mapping[str, float]) -> Shares:
        for category, weight in weights.items():
            if not (0 <= weight < math.inf):
                raise InvalidInput(
                    f"the weight of {shortened(category)!r} is {weight:g}; it must be a number of 0"
                    " or more"
                )
        used = {category: weight for category, weight in weights.items() if weight}
        if not used:
            raise InvalidInput(f"the weights of column {column.name!r} are all 0; give one above 0")
        domain = self._domain(column)
        codes = [self._code(column, domain, category) for category in used]
        if None in codes:
            raise InvalidInput(
                f"the weights of column {column.name!r} name a missing value; name categories alone"
            )
        of_code: dict[int, float] = {}
        for code, weight in zip(codes, used.values(), strict=True):
            assert code is not None, "checked above"
            of_code[code] = of_code.get(code, 0.0) + weight
        return Shares(column, tuple(of_code), tuple(of_code.values()))

    def _shared(self, name: str) -> Column:
        column = self._column(name)
        if column.kind not in CATEGORICALS:
            raise InvalidInput(
                f"column {name!r} holds {column.kind} values; balance and weights are for a column"
                " of categories: ask for ranges with where"
            )
        return column

    def _column(self, name: str) -> Column:
        column = self._columns.get(name)
        if column is None:
            raise InvalidInput(
                f"the model has no column {shortened(name)!r}; its columns are"
                f" {listed_names([column.name for column in self.schema.modelled])}"
            )
        if column.kind == "identifier":
            raise InvalidInput(
                f"column {name!r} is an identifier, which the model does not make by conditions;"
                " leave it out"
            )
        return column

    def _domain(self, column: Column) -> Domain:
        return self._domains.get(column.name, Domain())

    def _missing(self, column: Column, domain: Domain) -> Allowed:
        if not domain.missing:
            raise InvalidInput(
                f"column {column.name!r} is not missing in the training rows, or in fewer than"
                f" {self._rare} of them, so no row is made with a missing value: leave this"
                " condition out"
            )
        return Allowed(column, missing=True)

    # Categories

    def _of_codes(self, column: Column, domain: Domain, clause: Clause) -> Allowed:
        codes = [self._code(column, domain, value) for value in clause.values]
        listed = tuple(dict.fromkeys(code for code in codes if code is not None))
        match clause.operator:
            case "=" | "in":
                return Allowed(column, None in codes, listed)
            case "!=" | "not in" | "is not missing":
                others = (code for code in self._codes(column, domain) if code not in listed)
                allowed = Allowed(column, False, tuple(others))
                if allowed.is_empty:
                    raise InvalidInput(
                        f"no category of column {column.name!r} that may be made meets"
                        f" {clause.text!r}: leave this condition out"
                    )
                return allowed
        raise InvalidInput(
            f"{clause.text!r} compares categories by size; column {column.name!r} takes =, !=, in,"
            " not in and is missing"
        )

    def _codes(self, column: Column, domain: Domain) -> tuple[int, ...]:
        """The codes of the categories that may be made, rarer ones included."""
        first = len(column.categories) + 2
        rarer = (i for i, (_, rows) in enumerate(column.rarer, first) if rows >= self._rare)
        frequent = (code for code in range(len(column.categories)) if code not in domain.never)
        return (*frequent, *rarer)

    def _code(self, column: Column, domain: Domain, value: str) -> int | None:
        """The code of a category that may be made; None for a text that means missing."""
        encoded = self._encoded(column, value)
        code = int(encoded.codes[0, 0])
        if code == len(column.categories) + 1:
            return None
        makeable = self._codes(column, domain)
        if code == len(column.categories):
            text = texts(pa.array([value]), ())[0].as_py()
            names = [name for name, _ in column.rarer]
            if text not in names:
                raise InvalidInput(
                    f"column {column.name!r} has no category {shortened(value)!r}; those that may"
                    f" be made are {self._named(column, makeable)}"
                )
            code += 2 + names.index(text)
        if code not in makeable:
            raise InvalidInput(
                f"column {column.name!r}: fewer than {self._rare} training rows hold"
                f" {shortened(value)!r}, so it is not made; those that may be made are"
                f" {self._named(column, makeable)}"
            )
        return code

    def _named(self, column: Column, codes: Sequence[int]) -> str:
        names = (*column.categories, "", "", *(name for name, _ in column.rarer))
        return listed_names([names[code] for code in codes]) or "none"

    # Numbers and datetimes

    def _of_numbers(self, column: Column, domain: Domain, clause: Clause) -> Allowed:
        spans = [self._span(column, value, clause.operator) for value in clause.values]
        numbers = [span for span in spans if span is not None]
        is_missing = clause.operator in ("=", "in") and None in spans
        if len(numbers) < len(spans) and not is_missing:
            raise InvalidInput(
                f"{clause.text!r} compares with a text that means a missing value; write"
                f" {column.name} is not missing"
            )
        ranges = _ranges(clause.operator, numbers)
        ranges = tuple(each for each in (_whole(column, *r) for r in ranges) if each[0] <= each[1])
        if not ranges and not is_missing:
            raise InvalidInput(
                f"no value of column {column.name!r} meets {clause.text!r}: the range is empty;"
                " write the smaller value first"
            )
        reach = self._within(ranges, domain)
        if not reach and not is_missing:
            raise InvalidInput(
                f"column {column.name!r} goes from {_written(column, domain.low)} to"
                f" {_written(column, domain.high)} in the training rows, so no row is made that"
                f" meets {clause.text!r}: ask for values in this range"
            )
        return Allowed(column, is_missing, (), reach)

    @staticmethod
    def _within(ranges: Sequence[Range], domain: Domain) -> tuple[Range, ...]:
        """The parts of ranges that the training rows reach."""
        low = -math.inf if domain.low is None else domain.low
        high = math.inf if domain.high is None else domain.high
        return overlaps([(low, high)], ranges)

    def _span(self, column: Column, value: str, operator: str) -> Range | None:
        """The first and the last number that a text stands for; None where it means missing. A
        date stands for all its day, 2024-05 for its month, 2024 for its year."""
        if column.kind == "datetime":
            return self._span_of_time(column, value.strip())
        if column.kind == "integer" and operator not in ("=", "in"):
            column = column.model_copy(update={"kind": "continuous"})
        number = float(self._encoded(column, value).numbers[0, 0])
        return None if math.isnan(number) else (number, number)

    def _span_of_time(self, column: Column, value: str) -> Range | None:
        part = _PART_OF_YEAR.fullmatch(value)
        if part is not None and not (part[2] and not 1 <= int(part[2]) <= 12):
            months = int(part[2]) if part[2] else None
            first = np.datetime64(f"{part[1]}-{part[2] or '01'}", "M")
            end = first + np.timedelta64(1 if months else 12, "M")
            micros = np.array([first, end]).astype("datetime64[us]").astype(np.int64)
            return float(micros[0]), float(micros[1]) - 1
        clock = _CLOCK.search(value)
        if column.zone and not (clock and _ZONED.search(value)):
            # A time without a zone is one in UTC, as it is stored.
            value += "Z" if clock else "T00:00:00Z"
        number = float(self._encoded(column, value).numbers[0, 0])
        if math.isnan(number):
            return None
        if clock is None:
            return number, number + DAY - 1
        if clock["fraction"]:
            return number, number
        return number, number + (SECOND if clock["second"] else MINUTE) - 1

    def _encoded(self, column: Column, value: str) -> Encoded:
        """A value as encode reads it in this column. Raises InvalidInput where it cannot."""
        if not _is_plain_text(value):
            raise InvalidInput(
                f"a value for column {column.name!r} is not text that a file can hold: leave out"
                " NUL and surrogates"
            )
        alone = Schema(
            columns=(column.model_copy(update={"since": None}),), missing=self.schema.missing
        )
        encoded = encode(pa.record_batch({column.name: pa.array([value], pa.string())}), alone)
        if encoded.errors:
            raise InvalidInput(f"in a condition, {encoded.errors[0].message}")
        return encoded


def _is_plain_text(value: str) -> bool:
    return "\0" not in value and value == value.encode("utf-8", "replace").decode()


def _ranges(operator: str, spans: Sequence[Range]) -> tuple[Range, ...]:
    """The ranges of numbers that an operator allows, given the spans of its values."""
    match operator:
        case "=" | "in":
            return tuple(spans)
        case "<":
            return ((-math.inf, math.nextafter(spans[0][0], -math.inf)),)
        case "<=":
            return ((-math.inf, spans[0][1]),)
        case ">":
            return ((math.nextafter(spans[0][1], math.inf), math.inf),)
        case ">=":
            return ((spans[0][0], math.inf),)
        case "between":
            return ((spans[0][0], spans[1][1]),)
    ranges = EVERY
    for low, high in spans:
        outside = (
            (-math.inf, math.nextafter(low, -math.inf)),
            (math.nextafter(high, math.inf), math.inf),
        )
        ranges = overlaps(ranges, outside)
    return ranges


def _whole(column: Column, low: float, high: float) -> Range:
    """A range of a column of whole numbers, or of multiples of a datetime's step, from its first
    value to its last."""
    if column.kind == "continuous":
        return low, high
    step = column.step if column.kind == "datetime" else 1
    first = low if math.isinf(low) else step * math.ceil(low / step)
    last = high if math.isinf(high) else step * math.floor(high / step)
    return float(first), float(last)


def _written(column: Column, value: float | None) -> str:
    """A number of a column as made rows have it."""
    alone = Schema(columns=(column.model_copy(update={"since": None}),))
    number = np.array([[math.nan if value is None else value]])
    decoded = decode(number, np.empty((1, 0), np.int64), alone)
    return str(spelled(decoded.column(0))[0].as_py())

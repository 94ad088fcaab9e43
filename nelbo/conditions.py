"""Conditions: what a request asks of generated rows. Texts are read and checked against a model's
manifest, so that a condition that no row can meet is refused before any row is made."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nelbo.applied_rules import Spans
from nelbo.artifact import Domain, Manifest
from nelbo.cells import spelled, texts
from nelbo.datetime_parts import DAY, MINUTE, SECOND
from nelbo.encoding import Encoded, absolute, decode, encode, shortened
from nelbo.errors import InvalidInput
from nelbo.rule_keeping import unkept
from nelbo.rules import Rule
from nelbo.schema import CATEGORICALS, Column, Schema
from nelbo.scores import nelbo_at

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
Range = tuple[float, float]
"""The first and the last number of a range."""

EXAMPLES = (
    "label = fraud, label in (a, b), age between 30 and 40, age >= 30, date = 2024-05 or income is"
    " missing"
)
NAMED = 10
"""Number of categories that a message names."""
EVERY: tuple[Range, ...] = ((-math.inf, math.inf),)
GOLDEN = 0x9E3779B97F4A7C15
"""2^64 divided by the golden ratio. Its multiples, modulo 2^64, are spread as evenly as can be."""

_QUOTED = r"\"(?:[^\"]|\"\")*\"|'(?:[^']|'')*'"
_START = re.compile(
    rf"\s*(?P<name>{_QUOTED}|.+?)\s*"
    r"(?P<operator>!=|<>|==|<=|>=|=|<|>|(?<=\s)not\s+in\s*(?=\()|(?<=\s)in\s*(?=\()"
    r"|(?<=\s)between(?=\s)|(?<=\s)is\s+(?:not\s+)?(?:missing|null)\b)",
    re.IGNORECASE | re.DOTALL,
)
_VALUE = re.compile(rf"\s*(?P<value>{_QUOTED}|.+?)(?=\s+and\s|\s*$)", re.IGNORECASE | re.DOTALL)
_LISTED = re.compile(rf"\s*(?P<value>{_QUOTED}|[^,()]+?)\s*(?P<end>[,)])", re.DOTALL)
_LIST = re.compile(r"\s*\(")
_AND = re.compile(r"\s+and\s+", re.IGNORECASE)
_BLANKS = re.compile(r"\s+")
_PART_OF_YEAR = re.compile(r"(\d{4})(?:-(\d\d))?")
_CLOCK = re.compile(r"\d:\d\d(?P<second>:\d\d(?P<fraction>[.,]\d+)?)?")
_ZONED = re.compile(r"(?:Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)$", re.IGNORECASE)


@dataclass(frozen=True)
class Clause:
    """One condition in words: a column's name, an operator, and the texts of its values.

    The operators are =, !=, <, <=, >, >=, in, not in, between, is missing and is not missing.
    """

    text: str
    name: str
    operator: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Allowed:
    """The cells that a column may have in generated rows: codes of a categorical column, or ranges
    of numbers, datetimes in microseconds since the epoch; and missing values, if `missing`. Codes
    above those that encode gives stand for rarer categories, as in decode."""

    column: Column
    missing: bool
    codes: tuple[int, ...] = ()
    ranges: tuple[Range, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.missing or self.codes or self.ranges)

    @property
    def is_single(self) -> bool:
        """Whether one cell alone is allowed."""
        points = sum(2 if low < high else 1 for low, high in self.ranges)
        return self.missing + len(self.codes) + points == 1

    def meets(self, cells: Floats | Integers) -> Booleans:
        """bool[n]: whether cells, float64[n] or int64[n], are allowed."""
        if cells.dtype == np.int64:
            missing = len(self.column.categories) + 1
            codes = [*self.codes, *([missing] if self.missing else [])]
            return np.asarray(np.isin(cells, codes), dtype=np.bool_)
        is_allowed = np.isnan(cells) & self.missing
        for low, high in self.ranges:
            is_allowed |= (cells >= low) & (cells <= high)
        return is_allowed

    def both(self, other: "Allowed") -> "Allowed":
        """What this and another condition on the same column allow together."""
        codes = tuple(code for code in self.codes if code in other.codes)
        pairs = [(a, b) for a in self.ranges for b in other.ranges]
        ranges = tuple((max(a[0], b[0]), min(a[1], b[1])) for a, b in pairs)
        ranges = tuple((low, high) for low, high in ranges if low <= high)
        return Allowed(self.column, self.missing and other.missing, codes, ranges)

    @property
    def spans(self) -> Spans:
        """The cells that are not missing, as rules take them."""
        pairs = [*((code, code) for code in self.codes), *self.ranges]
        return np.array(pairs, dtype=np.float64)


@dataclass(frozen=True)
class Shares:
    """The shares of a column's categories in generated rows: its codes and their weights, or no
    weights where all shares are equal. The row number decides which row has which category, so that
    the first rows of a longer request are those of a shorter one."""

    column: Column
    codes: tuple[int, ...]
    weights: tuple[float, ...] = ()

    def of_rows(self, rows: Integers) -> Integers:
        """The place in `codes` of each row number, int64[n]."""
        if not self.weights:
            return rows % len(self.codes)
        evenly = (rows.astype(np.uint64) * np.uint64(GOLDEN) >> np.uint64(11)) * 2.0**-53
        upto = np.cumsum(self.weights) / sum(self.weights)
        return np.searchsorted(upto[:-1], evenly, side="right").astype(np.int64)

    def are_met(self, codes: Integers, places: Integers) -> Booleans:
        """bool[n]: whether cells int64[n] have the category of their place in `codes`."""
        return np.asarray(np.array(self.codes, np.int64)[places] == codes, np.bool_)


@dataclass(frozen=True)
class Conditions:
    """What is asked of generated rows: at most one `Allowed` for each column, the shares of one
    column's categories, and the range of their nelbo."""

    allowed: tuple[Allowed, ...] = ()
    shares: Shares | None = None
    nelbo: Range | None = None

    def __bool__(self) -> bool:
        return bool(self.allowed or self.shares or self.nelbo)

    @property
    def has_odds(self) -> bool:
        """Whether some rows that are made without conditions do not meet these."""
        return bool(self.allowed or self.nelbo)

    def met(self, schema: Schema, numbers: Floats, codes: Integers) -> Booleans:
        """bool[n]: whether encoded rows meet all of `allowed`."""
        return all_of(met_each(self.allowed, schema, numbers, codes))


def all_of(met: Booleans) -> Booleans:
    """bool[n]: whether all conditions are met, from bool[n, conditions]."""
    return np.asarray(met.all(axis=1), np.bool_)


def met_each(
    allowed: Sequence[Allowed], schema: Schema, numbers: Floats, codes: Integers
) -> Booleans:
    """bool[n, conditions]: whether encoded rows meet each condition."""
    columns = _by_name(schema, absolute(numbers, schema), codes)
    met = np.ones((len(numbers), len(allowed)), np.bool_)
    for i, each in enumerate(allowed):
        met[:, i] = each.meets(columns[each.column.name])
    return met


def _by_name(schema: Schema, numbers: Floats, codes: Integers) -> dict[str, NDArray[Any]]:
    by_name: dict[str, NDArray[Any]] = {}
    by_name |= {column.name: numbers[:, i] for i, column in enumerate(schema.numbers)}
    by_name |= {column.name: codes[:, i] for i, column in enumerate(schema.categoricals)}
    return by_name


NO_CONDITIONS = Conditions()


@dataclass(frozen=True)
class Odds:
    """How probable conditions are: of `rows` rows that the model makes without them, `met` meet all
    of them. The rows that are made with them are drawn from `candidates` different rows, which is
    their effective sample size. `nelbo` is the range of their nelbo, where one is asked for."""

    rows: int
    met: int
    candidates: int
    nelbo: Range | None = None

    def as_json(self) -> dict[str, Any]:
        ends = [end if math.isfinite(end) else None for end in self.nelbo or ()]
        return {
            "rows_tried": self.rows,
            "rows_met": self.met,
            "probability": self.met / self.rows,
            "effective_sample_size": self.candidates,
        } | ({"nelbo": ends} if ends else {})


def words_of(odds: Mapping[str, Any]) -> str:
    """A sentence of what Odds.as_json says."""
    rows, met = odds["rows_tried"], odds["rows_met"]
    share = f"{met / rows:.2g}" if met else f"fewer than 1 in {rows:,}"
    words = (
        f"probability of the conditions: {share} ({met:,} of {rows:,} rows without conditions meet"
        f" them); effective sample size {odds['effective_sample_size']:,}"
    )
    if "nelbo" not in odds:
        return words
    low, high = odds["nelbo"]
    if high is None:
        return f"{words}; nelbo {low:.2f} or more"
    return f"{words}; nelbo {f'{low:.2f} to ' if low is not None else 'up to '}{high:.2f}"


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
                f" {_listed(texts_of[clause.name])}: leave one of them out"
            )
        allowed[clause.name] = both

    shares = reader.shares(balance, weights or {}, allowed)
    _check_rules(manifest.table_schema, allowed, shares)
    in_order = (allowed[name] for name in manifest.table_schema.names if name in allowed)
    return Conditions(tuple(in_order), shares, _nelbo_range(manifest, rarity, shares))


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


def conditions_in(manifest: Manifest, fields: Mapping[str, Any]) -> Conditions:
    """The conditions in the fields of a request, or in the params of its job. Raises
    InvalidInput."""
    names = ("where", "like", "balance", "weights", "rarity")
    return read_conditions(manifest, **{name: fields[name] for name in names if name in fields})


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


def breaks_rule(rule: Rule) -> InvalidInput:
    """The error for conditions that break a rule."""
    return InvalidInput(
        f"no row that meets the conditions keeps the rule {rule.text!r}: leave out a condition on"
        " its columns"
    )


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


def parse_where(text: str) -> Iterator[Clause]:
    """The conditions in a text, in which "and" joins them. Raises InvalidInput."""
    rest = _single_blanks(text)
    while True:
        start = _START.match(rest)
        if start is None:
            raise InvalidInput(
                f"{shortened(rest.strip())!r} is not a condition; write {EXAMPLES}, and put names"
                " and values with 'and' or a comma in quotes"
            )
        operator = " ".join(start["operator"].lower().split())
        operator = {"==": "=", "<>": "!="}.get(operator, operator.replace("null", "missing"))
        values, behind = _values(operator, rest, start.end())
        joined = _AND.match(rest, behind)
        if joined is None and rest[behind:].strip():
            raise InvalidInput(
                f"{shortened(rest[behind:].strip())!r} follows a condition; join conditions by"
                " 'and', and put values with 'and' or a comma in quotes"
            )
        yield Clause(rest[:behind].strip(), _unquoted(start["name"]), operator, values)
        if joined is None:
            return
        rest = rest[joined.end() :]


def _single_blanks(text: str) -> str:
    """The text with one blank for each white space outside of quotes, so that no search in it takes
    long."""
    parts = re.split(rf"({_QUOTED})", text)
    return "".join(
        part if at % 2 else _BLANKS.sub(" ", part) for at, part in enumerate(parts)
    ).strip()


def _values(operator: str, text: str, at: int) -> tuple[tuple[str, ...], int]:
    """The values behind an operator, and where they end."""
    if operator.startswith("is"):
        return (), at
    values: list[str] = []
    if operator in ("in", "not in"):
        bracket = _LIST.match(text, at)
        assert bracket is not None, "the operator is followed by a bracket"
        at = bracket.end()
        while listed := _LISTED.match(text, at):
            values.append(_unquoted(listed["value"]))
            at = listed.end()
            if listed["end"] == ")":
                return tuple(values), at
        raise InvalidInput(
            f"the list in {shortened(text.strip())!r} does not end; write label in (a, b)"
        )
    for _ in range(2 if operator == "between" else 1):
        joined = _AND.match(text, at) if values else None
        value = _VALUE.match(text, joined.end() if joined else at)
        if value is None or (values and joined is None):
            raise InvalidInput(
                f"the condition {shortened(text.strip())!r} lacks a value; write {EXAMPLES}"
            )
        values.append(_unquoted(value["value"]))
        at = value.end("value")
    return tuple(values), at


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1].replace(text[0] * 2, text[0])
    return text


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
                f" {_listed([column.name for column in self.schema.modelled])}"
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
        return _listed([names[code] for code in codes]) or "none"

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
        parts = ((max(low, first), min(high, last)) for first, last in ranges)
        return tuple(part for part in parts if part[0] <= part[1])

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
        pairs = [(a, b) for a in ranges for b in outside]
        ranges = tuple((max(a[0], b[0]), min(a[1], b[1])) for a, b in pairs)
        ranges = tuple(part for part in ranges if part[0] <= part[1])
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


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(shortened(name)) for name in names[:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"

"""Rules between the columns of a table, such as `start <= end`: what each says, as text.

    a = b                          two columns are equal
    model -> seats                 a value of `model` fixes the value of `seats`
    origin, dest -> distance       values of two columns together fix a third
    start <= end                   an order of two numbers or two datetimes; also <
    total = net + tax - discount   a sum
    amount = price * quantity      a product; also a / b
    month = month(paid)            a part of a datetime: year, month, day, hour, minute, weekday
    nights = days(leave - arrive)  the time between two datetimes: days, hours, minutes, seconds
    age >= 18                      a limit of one column; also < = != in ('a', 'b')
    plan = free => seats <= 5      a limit that holds where another column meets one
    humid ~ temp, dewp             a number that is nearly a smooth function of up to three others

A rule says nothing about a row in which one of its cells is missing. A column whose name is more
than letters, digits and underscores may be quoted: "US Gross" <= "Worldwide Gross".

`rule_keeping` finds the rows that break rules, and makes rows that keep them.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import combinations_with_replacement
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    FiniteFloat,
    NonNegativeInt,
    model_validator,
)

from nelbo.errors import InvalidInput

MAX_RULES = 500
MAX_ENTRIES_IN_ALL = 60_000
MAX_SOURCES = 3
"""Maximum number of columns that fix another one together."""
MAX_ENTRIES = 20_000
"""Maximum number of values that a rule fixes."""
DEGREES = (4, 4, 3)
"""The degree of a polynomial of one, two or three numbers."""
FARTHEST = 4.0
MAX_FIGURES = 257
PARTS = ("year", "month", "day", "hour", "minute", "weekday")
UNITS = {"days": 86_400e6, "hours": 3_600e6, "minutes": 60e6, "seconds": 1e6}
"""Microseconds."""

Cell = Annotated[str, Field(max_length=1_000)] | FiniteFloat
"""A category, or a number."""
CellsOfColumn = Annotated[tuple[Cell, ...], Field(max_length=MAX_ENTRIES), FailFast()]


Figures = Annotated[tuple[FiniteFloat, ...], Field(min_length=1, max_length=MAX_FIGURES)]


class Polynomial(BaseModel):
    """A polynomial of standardised numbers, (x - centre) / scale cut off at -FARTHEST and FARTHEST.

    `weights` are those of its terms, see `terms_of`. `left` are quantiles, at equal distances, of
    what is left of the target beside it; `lowest` and `highest` are the target's ends.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    centre: Figures
    scale: Figures
    weights: Figures
    left: Figures
    lowest: FiniteFloat
    highest: FiniteFloat

    @model_validator(mode="after")
    def _has_a_weight_for_each_term(self) -> Self:
        sources = len(self.centre)
        if sources > MAX_SOURCES or len(self.scale) != sources or min(self.scale) <= 0:
            raise ValueError("a polynomial does not have a positive scale for each of its columns")
        if len(self.weights) != len(terms_of(sources)):
            raise ValueError("a polynomial has another number of weights than of terms")
        return self


def terms_of(sources: int) -> list[tuple[int, ...]]:
    """The terms of a polynomial of so many numbers: which of them each term multiplies."""
    degree = DEGREES[sources - 1]
    numbers = range(sources)
    return [
        term
        for count in range(degree + 1)
        for term in combinations_with_replacement(numbers, count)
    ]


class Rule(BaseModel):
    """A rule of a table, and what training found out about it. In JSON, the text alone is a rule
    too.

    - `rows`: the training rows that it says something about; `broken`: those that break it.
    - `within`: how far a sum, a product or a time may be from the column that holds it.
    - `decimals`: the decimals of that column; None where it has as many as float64 has.
    - `offsets`: for a part of a datetime, pairs (from when, by how much) in microseconds: how far
      local time is from the datetime.
    - `curve`: for `a ~ b, c`, the function and what is left beside it.
    - `keys` and `values`: for `a, b -> c`, the values of a and of b (one list each) and the values
      of c that they fix. `counts` are their training rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: Annotated[str, Field(max_length=10_000)]
    rows: NonNegativeInt = 0
    broken: NonNegativeInt = 0
    within: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    decimals: Annotated[int, Field(ge=0, le=20)] | None = None
    offsets: Annotated[
        tuple[tuple[FiniteFloat, FiniteFloat], ...], Field(max_length=1_000), FailFast()
    ] = ()
    curve: Polynomial | None = None
    keys: Annotated[tuple[CellsOfColumn, ...], Field(max_length=MAX_SOURCES)] = ()
    values: CellsOfColumn = ()
    counts: Annotated[tuple[NonNegativeInt, ...], Field(max_length=MAX_ENTRIES), FailFast()] = ()

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"text": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _lists_are_equally_long(self) -> Self:
        if {len(of_column) for of_column in (*self.keys, self.counts)} - {len(self.values)}:
            raise ValueError("keys, values and counts of a rule are not equally long")
        return self


# What rules say


class _Statement(ABC):
    """The column that a rule is about, and those that it is held against."""

    target: str

    @property
    @abstractmethod
    def sources(self) -> tuple[str, ...]: ...

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.sources, self.target)


class _FromOne(_Statement):
    """A statement with one other column."""

    source: str

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)


class _FromSeveral(_Statement):
    """A statement with a list of other columns."""

    keys: tuple[str, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        return self.keys


@dataclass(frozen=True)
class Equal(_FromOne):
    """target = source"""

    target: str
    source: str

    def __str__(self) -> str:
        return f"{quoted(self.target)} = {quoted(self.source)}"


@dataclass(frozen=True)
class Dependency(_FromSeveral):
    """sources -> target"""

    target: str
    keys: tuple[str, ...]

    def __str__(self) -> str:
        return f"{', '.join(map(quoted, self.keys))} -> {quoted(self.target)}"


@dataclass(frozen=True)
class Order(_FromOne):
    """source <= target, or source < target"""

    target: str
    source: str
    strict: bool = False

    def __str__(self) -> str:
        return f"{quoted(self.source)} {'<' if self.strict else '<='} {quoted(self.target)}"


@dataclass(frozen=True)
class Sum(_Statement):
    """target = Σ sign · source"""

    target: str
    terms: tuple[tuple[int, str], ...]

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(name for _, name in self.terms)

    def __str__(self) -> str:
        signed = "".join(f" {'+' if sign > 0 else '-'} {quoted(name)}" for sign, name in self.terms)
        return f"{quoted(self.target)} = {signed.removeprefix(' + ').strip()}"


@dataclass(frozen=True)
class Product(_Statement):
    """target = source * other, or source / other"""

    target: str
    source: str
    other: str
    divided: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source, self.other)

    def __str__(self) -> str:
        sign = "/" if self.divided else "*"
        return f"{quoted(self.target)} = {quoted(self.source)} {sign} {quoted(self.other)}"


@dataclass(frozen=True)
class Part(_FromOne):
    """target = part(source)"""

    target: str
    part: str
    source: str

    def __str__(self) -> str:
        return f"{quoted(self.target)} = {self.part}({quoted(self.source)})"


@dataclass(frozen=True)
class Elapsed(_Statement):
    """target = unit(end - start)"""

    target: str
    unit: str
    end: str
    start: str

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.end, self.start)

    def __str__(self) -> str:
        times = f"{quoted(self.end)} - {quoted(self.start)}"
        return f"{quoted(self.target)} = {self.unit}({times})"


@dataclass(frozen=True)
class Limit:
    """column operator value, or column in (values)"""

    column: str
    operator: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        values = [value if _BARE.fullmatch(value) else _in_quotes(value) for value in self.values]
        shown = f"({', '.join(values)})" if self.operator == "in" else values[0]
        return f"{quoted(self.column)} {self.operator} {shown}"


@dataclass(frozen=True)
class Implication(_Statement):
    """premise => conclusion; without a premise, the conclusion holds in all rows"""

    conclusion: Limit
    premise: Limit | None = None

    @property
    def target(self) -> str:  # type: ignore[override]  # a field of the others
        return self.conclusion.column

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.premise.column,) if self.premise else ()

    @property
    def limits(self) -> tuple[Limit, ...]:
        return (self.premise, self.conclusion) if self.premise else (self.conclusion,)

    def __str__(self) -> str:
        return " => ".join(map(str, self.limits))


_BARE = re.compile(r"[+-]?\w[\w.:+-]*")
"""A value that needs no quotes."""


def _in_quotes(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


@dataclass(frozen=True)
class Nearly(_FromSeveral):
    """target ~ sources"""

    target: str
    keys: tuple[str, ...]

    def __str__(self) -> str:
        return f"{quoted(self.target)} ~ {', '.join(map(quoted, self.keys))}"


Statement = Equal | Nearly | Dependency | Order | Sum | Product | Part | Elapsed | Implication


def quoted(name: str) -> str:
    """The name as a rule writes it."""
    return name if re.fullmatch(r"[^\W\d]\w*", name) else '"' + name.replace('"', '""') + '"'


# The grammar

_FUNCTION = re.compile(rf"({'|'.join((*PARTS, *UNITS))})\s*\(")
_NUMBER = re.compile(r"-\s*\d")


def read_rule(text: str, names: Sequence[str]) -> Statement:
    """What a rule says about columns with these names. Raises InvalidInput."""
    return _Parser(text, names).statement()


_CATEGORICALS = ("boolean", "categorical")


def check_kinds(text: str, statement: Statement, kinds: Mapping[str, str]) -> None:
    """Refuse a rule about columns of the wrong kinds; `kinds` has that of each column. Raises
    InvalidInput."""
    target = kinds[statement.target]
    sources = [kinds[name] for name in statement.sources]
    numbers = ("continuous", "integer")
    match statement:
        case Dependency():
            fits = True
        case Equal():
            both = [target, *sources]
            categoricals = [kind in _CATEGORICALS for kind in both]
            datetimes = [kind == "datetime" for kind in both]
            fits = len(set(categoricals)) == len(set(datetimes)) == 1
        case Order():
            both = [target, *sources]
            fits = all(kind in numbers for kind in both) or set(both) == {"datetime"}
        case Sum() | Product() | Nearly():
            fits = all(kind in numbers for kind in (target, *sources))
        case Part() | Elapsed():
            fits = target in numbers and set(sources) == {"datetime"}
        case Implication():
            for limit in statement.limits:
                _check_limit(text, limit, kinds[limit.column])
            return
    if not fits:
        columns = ", ".join(f"{name} is {kinds[name]}" for name in statement.columns)
        raise InvalidInput(
            f"the rule {text!r} does not suit the kinds of its columns: {columns}; correct the"
            " rule, or a kind in a schema file (nelbo schema FILE --kind COLUMN=KIND)"
        )


def check_parts(rule: Rule, statement: Statement, kinds: Mapping[str, str]) -> None:
    """Refuse a rule whose values or curve are not about the columns that its text names. Raises
    InvalidInput."""
    sources = len(statement.sources)
    columns = (*rule.keys, rule.values) if rule.keys else ()
    fits = len(columns) in (0, sources + 1)
    fits &= rule.curve is None or len(rule.curve.centre) == sources
    for name, cells in zip(statement.columns, columns, strict=False):
        fits &= kinds[name] in _CATEGORICALS or not any(isinstance(cell, str) for cell in cells)
    if not fits:
        raise InvalidInput(f"the rule {rule.text!r} holds values of other columns than it names")


def _check_limit(text: str, limit: Limit, kind: str) -> None:
    """Refuse a limit whose values cannot be those of a column of this kind."""
    if kind in _CATEGORICALS:
        if limit.operator not in ("=", "!=", "in"):
            raise InvalidInput(
                f"the rule {text!r} does not suit column {limit.column!r}, which is {kind}: its"
                " values have no order; use =, != or in"
            )
        return
    what = "a date such as 2024-01-31" if kind == "datetime" else "a number"
    for value in limit.values:
        if number_of(value, kind) is None:
            raise InvalidInput(
                f"the rule {text!r} cannot be used: {value!r} is neither a column of the table nor"
                f" {what}, as column {limit.column!r} ({kind}) holds"
            )


def number_of(value: str, kind: str) -> float | None:
    """A number, or a datetime in ISO 8601 as microseconds since the epoch, from a rule's text; None
    where it is neither."""
    try:
        if kind != "datetime":
            return float(value)
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1)


class _Parser:
    """Reads a rule from left to right."""

    def __init__(self, text: str, names: Sequence[str]) -> None:
        self._text = text
        self._names = sorted(names, key=len, reverse=True)
        self._at = 0

    def statement(self) -> Statement:
        first = self._name()
        statement: Statement
        if self._sign("~", move=True):
            statement = Nearly(first, tuple(self._names_in_a_row()))
        elif self._sign(",", "->") is None:
            statement = self._compared(first)
        else:
            statement = self._dependency(first)
        if self._at < len(self._text):
            raise self._wrong("there is more text than a rule has")
        if len(set(statement.columns)) < len(statement.columns):
            raise self._wrong("it names a column twice")
        return statement

    def _names_in_a_row(self) -> list[str]:
        names = [self._name()]
        while self._sign(",", move=True):
            names.append(self._name())
        if len(names) > MAX_SOURCES:
            raise self._wrong(f"at most {MAX_SOURCES} columns can fix another one")
        return names

    def _dependency(self, first: str) -> Dependency:
        sources = [first]
        if self._sign(",", move=True):
            sources += self._names_in_a_row()
        if not self._sign("->", move=True):
            raise self._wrong("-> is missing")
        if len(sources) > MAX_SOURCES:
            raise self._wrong(f"at most {MAX_SOURCES} columns can fix another one")
        return Dependency(self._name(), tuple(sources))

    def _compared(self, first: str) -> Statement:
        start = self._at
        if self._word("in"):
            return self._implied(self._limit(first, start))
        sign = self._sign("<=", ">=", "!=", "==", "=", "<", ">", move=True)
        if sign is None:
            raise self._wrong("one of = <= < -> is missing")
        if sign == "!=" or not self._is_column():
            return self._implied(self._limit(first, start))
        if sign in ("<", "<="):
            return Order(self._name(), first, strict=sign == "<")
        if sign in (">", ">="):
            return Order(first, self._name(), strict=sign == ">")
        return self._calculated(first)

    def _implied(self, first: Limit) -> Implication:
        """The rule that begins with a limit."""
        if not self._sign("=>", move=True):
            return Implication(first)
        column = self._name()
        return Implication(self._limit(column, self._at), first)

    def _limit(self, column: str, start: int) -> Limit:
        """The limit of a column whose operator begins at `start`."""
        self._at = start
        if self._word("in"):
            if not self._sign("(", move=True):
                raise self._wrong("( is missing")
            values = [self._value()]
            while self._sign(",", move=True):
                values.append(self._value())
            if not self._sign(")", move=True):
                raise self._wrong(") is missing")
            return Limit(column, "in", tuple(values))
        sign = self._sign("<=", ">=", "!=", "==", "=", "<", ">", move=True)
        if sign is None:
            raise self._wrong("one of = != <= >= < > in is missing")
        return Limit(column, sign.replace("==", "="), (self._value(),))

    def _value(self) -> str:
        self._skip()
        match = re.compile(r"'((?:[^']|'')*)'|\"([^\"]*)\"").match(self._text, self._at)
        match = match or _BARE.match(self._text, self._at)
        if match is None:
            raise self._wrong("a column or a value is missing")
        self._at = match.end()
        self._skip()
        groups = [group for group in match.groups() if group is not None]
        return groups[0].replace("''", "'") if groups else match[0]

    def _is_column(self) -> bool:
        """Whether a column, or a function of datetimes, comes next."""
        start = self._at
        if self._sign("-") or _FUNCTION.match(self._text, self._at):
            return _NUMBER.match(self._text, self._at) is None
        try:
            self._name()
        except InvalidInput:
            return False
        finally:
            self._at = start
        return True

    def _word(self, word: str) -> bool:
        """Whether this word comes next; it is then read."""
        self._skip()
        match = re.compile(rf"{word}\b(?=\s*\()").match(self._text, self._at)
        if match:
            self._at = match.end()
        return match is not None

    def _calculated(self, target: str) -> Statement:
        function = _FUNCTION.match(self._text, self._at)
        if function:
            self._at = function.end()
            return self._of_time(target, function[1])
        sign = -1 if self._sign("-", move=True) else 1
        first = self._name()
        operator = self._sign("*", "/", move=True)
        if operator and sign > 0:
            return Product(target, first, self._name(), divided=operator == "/")
        terms = [(sign, first)]
        while operator := self._sign("+", "-", move=True):
            terms.append((1 if operator == "+" else -1, self._name()))
        return Equal(target, first) if terms == [(1, first)] else Sum(target, tuple(terms))

    def _of_time(self, target: str, function: str) -> Part | Elapsed:
        first = self._name()
        statement: Part | Elapsed
        if function in PARTS:
            statement = Part(target, function, first)
        elif self._sign("-", move=True):
            statement = Elapsed(target, function, first, self._name())
        else:
            raise self._wrong(f"{function} wants the time between two columns, as in end - start")
        if not self._sign(")", move=True):
            raise self._wrong(") is missing")
        return statement

    def _sign(self, *signs: str, move: bool = False) -> str | None:
        """The sign that comes next, if it is one of these."""
        self._skip()
        sign = next((sign for sign in signs if self._text.startswith(sign, self._at)), None)
        if sign and move:
            self._at += len(sign)
            self._skip()
        return sign

    def _name(self) -> str:
        self._skip()
        in_quotes = re.compile(r'"((?:[^"]|"")+)"|\'([^\']+)\'').match(self._text, self._at)
        if in_quotes:
            name = (in_quotes[1] or in_quotes[2]).replace('""', '"')
            if name in self._names:
                self._at = in_quotes.end()
                self._skip()
                return name
        for name in self._names:
            end = self._at + len(name)
            is_word = name[-1:].isalnum() and self._text[end : end + 1].isalnum()
            if self._text.startswith(name, self._at) and not is_word:
                self._at = end
                self._skip()
                return name
        word = re.compile(r'"[^"]*"|[^\s,<>=+*/()-]+').match(self._text, self._at)
        raise self._wrong(
            f"the table has no column {word[0]!r} that can be in a rule"
            if word
            else "a column is missing"
        )

    def _skip(self) -> None:
        while self._text[self._at : self._at + 1].isspace():
            self._at += 1

    def _wrong(self, reason: str) -> InvalidInput:
        return InvalidInput(
            f"the rule {self._text!r} cannot be read: {reason} (at character {self._at + 1}); rules"
            " are such as: start <= end; model -> seats; total = net + tax; amount = price *"
            " quantity; month = month(paid); nights = days(leave - arrive);"
            " age >= 18; plan = free => seats <= 5"
        )

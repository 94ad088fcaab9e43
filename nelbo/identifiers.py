"""Identifiers: new values for the columns that name the rows of a table.

A generated row gets an identifier of the same form as the table's: the next number after the
largest one, or a value of the same pattern. Row number i gets a value through a bijection that the
seed keys. So no two rows of a request have the same value, and the value of a row depends on the
artifact, the seed and its row number alone.

A pattern never gives a value of the training table. For that, the values of a pattern are divided
into as many buckets as the table has values. A bucket that holds a value of the table is not used.
About three in five of all values are in such buckets by chance, so the buckets hardly tell whether
a value is in the table.
"""

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, FailFast, Field, NonNegativeInt, model_validator

from nelbo import cells, noise
from nelbo.datetime_parts import DAY
from nelbo.schema import Column, Name, Schema
from nelbo.spelling.types import as_type, type_of

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Unsigned = NDArray[np.uint64]

LONGEST = 64
"""Maximum number of characters of a value that has a pattern."""
MOST_TEMPLATES = 50
MOST_WORDS = 256
LARGEST_SPACE = 2**60
MOST_BUCKETS = 2**20
ROUNDS = 6
Affix = Annotated[str, Field(max_length=LONGEST)]
Whole = Annotated[int, Field(gt=-(2**63), lt=2**63)]


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Consecutive(_Form):
    """Numbers that go on after the largest: prefix, number of at least `width` digits, suffix.

    With `is_time` they are microseconds since 1970.
    """

    first: Whole
    """The number of row 0."""
    step: Annotated[int, Field(ge=1, lt=2**62)] = 1
    prefix: Affix = ""
    suffix: Affix = ""
    width: Annotated[int, Field(ge=1, le=LONGEST)] = 1
    is_time: bool = False

    def values(self, rows: Integers) -> cells.Array:
        """Whole numbers or times; text where there is a prefix, a suffix or a width. Beyond what a
        type can hold, values are missing."""
        high = cells.YEARS[1] if self.is_time else 2**63 - 1
        fits = rows <= (high - self.first) // self.step
        numbers: cells.Array = pa.array(
            self.first + self.step * np.where(fits, rows, 0), pa.int64(), mask=~fits
        )
        if self.is_time:
            times: cells.Array = numbers.cast(pa.timestamp("us"))
            is_day = not self.first % DAY and not self.step % DAY
            return cells.pc.cast(times, pa.date32()) if is_day else times
        if not self.prefix and not self.suffix and self.width == 1:
            return numbers
        digits = cells.pc.utf8_lpad(numbers.cast(pa.string()), self.width, "0")
        text: cells.Array = cells.pc.binary_join_element_wise(self.prefix, digits, self.suffix, "")
        return text


class Segment(_Form):
    """A part of a template: one of some words of equal length.

    The word is drawn by the number of training rows that hold it. Without `rows`, the words are
    digits of the number that tells the values of a template apart.
    """

    words: Annotated[tuple[Affix, ...], Field(min_length=1, max_length=MOST_WORDS), FailFast()]
    rows: Annotated[tuple[NonNegativeInt, ...], Field(max_length=MOST_WORDS), FailFast()] = ()

    @model_validator(mode="after")
    def _words_agree(self) -> Self:
        if len({len(word) for word in self.words}) != 1 or not self.width:
            raise ValueError("the words of a segment must be of equal length")
        if self.rows and (len(self.rows) != len(self.words) or not sum(self.rows)):
            raise ValueError("the rows of a segment must be those of its words")
        return self

    @property
    def width(self) -> int:
        return len(self.words[0])

    @property
    def characters(self) -> NDArray[np.uint32]:
        """The words as code points, uint32[k, width]."""
        words = np.array(self.words, dtype=f"U{self.width}")
        return words.view(np.uint32).reshape(len(words), self.width)


class Template(_Form):
    """The segments of values, and how many training rows have it.

    `used` are the buckets that hold values of the table: bits in base64, `buckets` of them.
    """

    rows: Annotated[int, Field(ge=1)]
    segments: Annotated[tuple[Segment, ...], Field(min_length=1, max_length=LONGEST), FailFast()]
    buckets: Annotated[int, Field(ge=1, le=MOST_BUCKETS)] = 1
    used: Annotated[str, Field(max_length=MOST_BUCKETS // 6 + 8)] = "AA=="

    @model_validator(mode="after")
    def _sizes_agree(self) -> Self:
        if self.size > LARGEST_SPACE or self.buckets > self.size:
            raise ValueError("a template has more values or buckets than it may have")
        if sum(segment.width for segment in self.segments) > LONGEST:
            raise ValueError(f"a template is longer than {LONGEST} characters")
        if len(base64.b64decode(self.used, validate=True)) != -(-self.buckets // 8):
            raise ValueError("`used` has another number of bits than buckets")
        return self

    @property
    def size(self) -> int:
        """The number of values that the segments without rows tell apart."""
        return math.prod(len(segment.words) for segment in self.segments if not segment.rows)

    def free(self) -> "Free":
        bits = np.frombuffer(base64.b64decode(self.used), dtype=np.uint8)
        is_used = np.unpackbits(bits, count=self.buckets)
        return Free(self.size, self.buckets, np.flatnonzero(is_used == 0).astype(np.uint64))


class Free:
    """The values of a template that the table does not hold, in an order."""

    def __init__(self, size: int, buckets: int, empty: Unsigned) -> None:
        self.size = size
        self.buckets = buckets
        self.empty = empty
        layers, rest = divmod(size, buckets)
        self.capacity = layers * len(empty) + int((empty < rest).sum())

    def at(self, index: Unsigned) -> Unsigned:
        """The numbers of the values at these places of the order, below `capacity`."""
        layer, bucket = np.divmod(index, np.uint64(max(1, len(self.empty))))
        shuffled = layer * np.uint64(self.buckets) + self.empty[bucket]
        return permuted(shuffled, self.size, 0, inverse=True)


def bucket_of(numbers: Unsigned, size: int, buckets: int) -> Integers:
    """The bucket of each value of a template, by its number."""
    return (permuted(numbers, size, 0) % np.uint64(buckets)).astype(np.int64)


class Identifier(_Form):
    """How a column of identifiers is made: numbers that go on, or templates; or as another column
    (`same_as`). With none of them it is text, which is not made: the column is left empty."""

    rows: NonNegativeInt
    """Training rows with a value."""
    missing: NonNegativeInt = 0
    same_as: Name | None = None
    consecutive: Consecutive | None = None
    templates: Annotated[tuple[Template, ...], Field(max_length=MOST_TEMPLATES), FailFast()] = ()
    longest: Annotated[int, Field(ge=0, le=LONGEST)] = 0
    """Characters of the longest value of the table."""
    is_whole: bool = False
    """Whether the values of the templates are whole numbers."""

    @property
    def is_text(self) -> bool:
        return not (self.same_as or self.consecutive or self.templates)

    @property
    def words(self) -> str:
        """How the column is made."""
        if self.same_as:
            return f"as {self.same_as}"
        if self.consecutive:
            return "goes on after the largest value"
        return "new values of its pattern" if self.templates else "free text, left empty"


def check_identifiers(identifiers: Mapping[str, Identifier], schema: Schema) -> None:
    """Raise ValueError where an identifier is no such column, or is made as one that is not made
    itself."""
    names = {column.name for column in schema.identifiers}
    for name, identifier in identifiers.items():
        source = identifiers.get(identifier.same_as) if identifier.same_as else identifier
        if name not in names or source is None or source.same_as:
            raise ValueError(f"identifiers names {name[:100]!r} in another way than table_schema")


def with_identifiers(
    table: pa.RecordBatch,
    schema: Schema,
    identifiers: Mapping[str, Identifier],
    seed: int,
    rows: Integers,
) -> pa.RecordBatch:
    """Generated rows with these row numbers, with the columns of identifiers where the training
    table had them."""
    arrays: dict[str, cells.Array] = {}
    for column in schema.columns:
        if column.name in identifiers:
            name = identifiers[column.name].same_as or column.name
            stream = schema.names.index(name)
            values = _values(identifiers[name], seed, stream, rows)
            arrays[column.name] = _in_type(values, column)
        elif column.kind != "identifier":
            arrays[column.name] = table.column(column.name)
    fields = [
        table.schema.field(name) if name in table.schema.names else pa.field(name, array.type)
        for name, array in arrays.items()
    ]
    return pa.record_batch(list(arrays.values()), schema=pa.schema(fields))


def _in_type(values: cells.Array, column: Column) -> cells.Array:
    """The values in the column's type; dates and times of text are written as ISO 8601."""
    kind = type_of(column)
    if kind is None:
        return cells.spelled(values) if pa.types.is_temporal(values.type) else values
    if pa.types.is_integer(kind) and kind.bit_width < 64:
        fits = cells.pc.less_equal(values, int(np.iinfo(str(kind)).max))
        values = cells.pc.if_else(fits, values, pa.scalar(None, values.type))
    typed: cells.Array = as_type(values, kind)
    return typed


def _values(identifier: Identifier, seed: int, stream: int, rows: Integers) -> cells.Array:
    if identifier.is_text:
        return pa.nulls(len(rows), pa.string())
    u = noise.uniforms(seed, noise.IDENTIFY + stream, rows, 2 + _drawn_words(identifier))
    values = (
        identifier.consecutive.values(rows)
        if identifier.consecutive
        else _of_templates(identifier, seed, stream, rows, u[:, 1:])
    )
    if not identifier.missing:
        return values
    is_missing = u[:, 0] < identifier.missing / (identifier.missing + identifier.rows)
    some: cells.Array = cells.pc.if_else(pa.array(is_missing), pa.scalar(None, values.type), values)
    return some


def _drawn_words(identifier: Identifier) -> int:
    """The largest number of segments of a template whose words are drawn."""
    drawn = (sum(bool(one.rows) for one in each.segments) for each in identifier.templates)
    return max(drawn, default=0)


def _of_templates(
    identifier: Identifier, seed: int, stream: int, rows: Integers, u: Floats
) -> cells.Array:
    """A value of a template for each row. A template is drawn by its training rows, among those
    that have a value for this row number."""
    templates = identifier.templates
    free = [template.free() for template in templates]
    capacity = np.array([each.capacity for each in free], dtype=np.int64)
    weights = np.array([template.rows for template in templates]) * (rows[:, None] < capacity)
    upto = np.cumsum(weights, axis=1, dtype=np.float64)
    chosen = (u[:, :1] * upto[:, -1:] >= upto).sum(axis=1)
    chosen[upto[:, -1] == 0] = len(templates)

    text = np.empty(len(rows), dtype=object)
    for at, template in enumerate(templates):
        of_template = np.flatnonzero(chosen == at)
        key = _mixed(seed, stream, at)
        index = permuted(rows[of_template].astype(np.uint64), free[at].capacity, key)
        text[of_template] = _spelled(template, free[at].at(index), u[of_template, 1:])
    beyond = np.flatnonzero(chosen == len(templates))
    if len(beyond):
        text[beyond] = _longer(identifier, rows[beyond], u[beyond, 1:])
    array = pa.array(text, pa.string())
    return array.cast(pa.int64()) if identifier.is_whole else array


def _longer(identifier: Identifier, rows: Integers, u: Floats) -> list[str]:
    """Values with more digits at their end, so that they are longer than all values of the table:
    for row numbers beyond the free values of all templates."""
    template = max(identifier.templates, key=lambda each: each.size)
    round_, number = np.divmod(rows, template.size)
    text = _spelled(template, permuted(number.astype(np.uint64), template.size, 1), u)
    return [
        value + str(digits).zfill(max(1, identifier.longest + 1 - len(value)))
        for value, digits in zip(text.tolist(), round_.tolist(), strict=True)
    ]


def _spelled(template: Template, numbers: Unsigned, u: Floats) -> NDArray[np.str_]:
    """The values of a template with these numbers; `u` draws the words that have rows."""
    parts: list[NDArray[np.uint32]] = []
    draws = iter(u.T)
    for segment in template.segments:
        if segment.rows:
            upto = np.cumsum(segment.rows) / sum(segment.rows)
            code = np.searchsorted(upto[:-1], next(draws), side="right")
        else:
            numbers, digit = np.divmod(numbers, np.uint64(len(segment.words)))
            code = digit.astype(np.int64)
        parts.append(segment.characters[code])
    points = np.ascontiguousarray(np.concatenate(parts, axis=1))
    return points.view(f"U{points.shape[1]}").reshape(len(points))


def permuted(numbers: Unsigned, size: int, key: int, inverse: bool = False) -> Unsigned:
    """A bijection of the numbers below `size`: a Feistel network over the next power of four,
    repeated until the result is below `size` (Black and Rogaway 2002)."""
    if size < 2:
        return np.zeros_like(numbers)
    half = np.uint64(-(-(size - 1).bit_length() // 2))
    keys = list(_keys(key))
    values = numbers.copy()
    rest = np.arange(len(values))
    while len(rest):
        values[rest] = _feistel(values[rest], half, keys, inverse)
        rest = rest[values[rest] >= np.uint64(size)]
    return values


def _feistel(
    values: Unsigned, half: np.uint64, keys: Sequence[np.uint64], inverse: bool
) -> Unsigned:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    if inverse:
        for key in reversed(keys):
            left, right = right ^ (_mix(left ^ key) & mask), left
    else:
        for key in keys:
            left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << half) | right


def _mix(values: Unsigned) -> Unsigned:
    """The finaliser of SplitMix64 (Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _keys(key: int) -> Iterator[np.uint64]:
    golden = 0x9E3779B97F4A7C15
    for number in range(1, ROUNDS + 1):
        yield _mix(np.array([(key + number * golden) % 2**64], dtype=np.uint64))[0]


def _mixed(*numbers: int) -> int:
    """One key of some numbers."""
    key = 0
    for number in numbers:
        key = int(_mix(np.array([(key + 1 + number) % 2**64], dtype=np.uint64))[0])
    return key

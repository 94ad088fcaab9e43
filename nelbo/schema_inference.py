"""The schema of a table without one: the kind of each column, inferred from its cells."""

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nelbo import cells
from nelbo.cells import pc
from nelbo.errors import InvalidInput
from nelbo.schema import MISSING, NUMBERS, Column, Kind, Schema
from nelbo.spelling import numbers
from nelbo.spelling.columns import MAYBE_MISSING, Spelling
from nelbo.spelling.numbers import TOLERATED, NumberFormat

ENOUGH_VALUES = 20
"""A column of all different values counts as an identifier from this number of values on."""
DISTINCT_BYTES = 64 * 2**20
"""Memory, for all columns together, in which repeated values are searched."""
KEPT = 1_000
"""At most this number of distinct texts per column is kept: words, and texts that are no number."""
EXAMPLES = 3
NEARLY_ALL = 0.75
"""Text is free text if its distinct values are at least this share of the values."""
SPACED = 0.5
"""... and if more of the values than this share are several words."""
SAMPLED = 4_096
"""Maximum number of distinct texts of a column that are counted in all rows."""
SENTINELS = frozenset(
    sign * number
    for sign in (1, -1)
    for number in (99, 999, 9_999, 99_999, 999_999, 9_999_999, 999.9, 99.99)
)
"""Numbers that people write for a missing value."""
OPEN_ENDS = frozenset(
    int(np.datetime64(day, "us").astype(np.int64))
    for day in ("9999-12-31", "2999-12-31", "1900-01-01")
)
"""Dates that people write for a missing value, in microseconds since 1970."""
OFTEN = 3
"""A number or a date may mean a missing value if at least this number of rows holds it."""
STEPS = (86_400_000_000, 3_600_000_000, 60_000_000, 1_000_000, 1_000, 1)
"""Resolutions of a datetime, from days to microseconds, in microseconds."""
WRITTEN_BY_DEFAULT = (
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%dT%H:%M:%S.%f",
    "%Y-%m-%dT%H:%M:%SZ",
    "%Y-%m-%dT%H:%M:%S.%fZ",
)

_NAMED_LIKE_A_KEY = re.compile(
    r"(?:^|[_\W])(?i:ids?|key|uuid|guid|index|row_?(?:id|number))$|[a-z](?:Id|ID|Key)$"
)
_ROW_INDEX = re.compile(r"unnamed_1|Unnamed: ?0(?:\.\d+)?|__index_level_\d+__|level_0")
"""Names of the row index that pandas writes before a table's own columns."""
_CATEGORIES = frozenset({".", "..", "unknown", "Unknown", "UNKNOWN"})
"""Words that need no notice when they are a category in a column of text."""


@dataclass(frozen=True)
class Decision:
    """The kind of a column: the rule that decided, and some of the column's values."""

    column: Column
    rule: str
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Inspected:
    """The inferred schema of a table, with notices about decisions that a user may override."""

    schema: Schema
    rows: int
    notices: tuple[str, ...]
    decisions: tuple[Decision, ...]


def infer(batches: Iterable[pa.RecordBatch], overrides: Mapping[str, Kind] | None = None) -> Schema:
    """The schema of a table, from one pass at constant memory.

    The first rule that fits decides the kind of a column.

    1. An override.
    2. No value at all: categorical.
    3. Only true, false, yes, no, t, f, y, n in any case, or an Arrow bool: boolean. 0 and 1 stay
       integers.
    4. A number with a leading zero ("007") anywhere: text, see 8.
    5. Dates in the detected format (ISO 8601 without one), or an Arrow date or timestamp:
       datetime; in UTC if they have zones, else naive.
    6. Whole numbers under the name that pandas gives a row index: identifier.
    7. Numbers: continuous if one has a fraction. Whole numbers are identifiers if one is 2^53 or
       more, if at least 20 all differ and leave no gap, or if all differ under a name like id; else
       integers.
    8. Text: identifier if there are at least 20 values and all differ, or if it is free text: most
       values are several words, and three of four differ from all others. Else categorical.

    At most 5 % of the values may break rules 5 to 7; their rows become errors. Words such as ? or
    None mean a missing value under rules 3 to 7 and a category under 8. Training chooses the
    categories.
    """
    inspector = Inspector(overrides)
    for batch in batches:
        inspector.update(batch)
    return inspector.finish().schema


class Inspector:
    """Infers a schema while a table is read: call update with each batch, then finish."""

    def __init__(
        self, overrides: Mapping[str, Kind] | None = None, missing: Sequence[str] = MISSING
    ) -> None:
        self._overrides = dict(overrides or {})
        self._missing = tuple(missing)
        self._columns: dict[str, _Seen] = {}
        self._rows = 0

    def update(self, batch: pa.RecordBatch) -> None:
        self._rows += batch.num_rows
        for field, array in zip(batch.schema, batch.columns, strict=True):
            if field.name not in self._columns:
                distinct_bytes = DISTINCT_BYTES // batch.num_columns
                self._columns[field.name] = _Seen(field.name, Spelling.of(field), distinct_bytes)
            self._columns[field.name].update(*_counted(array, self._missing))

    def finish(self) -> Inspected:
        self._check_overrides()
        decisions: list[Decision] = []
        notices: list[str] = []
        for name, seen in self._columns.items():
            seen.look_again()
            override = self._overrides.get(name)
            kind, rule = (override, "given") if override else seen.kind()
            column = seen.column(kind)
            decisions.append(Decision(column, rule, seen.examples))
            notices += seen.notices(column, overridden=override is not None)

        columns = tuple(decision.column for decision in decisions)
        spellings = {name: seen.spelling for name, seen in self._columns.items()}
        return Inspected(
            Schema(columns=columns, missing=self._missing),
            self._rows,
            (*_spelling_notices(columns, spellings), *notices),
            tuple(decisions),
        )

    def _check_overrides(self) -> None:
        unknown = sorted(set(self._overrides) - set(self._columns))
        if unknown:
            raise InvalidInput(
                f"a kind is given for the column {unknown[0]!r}, which the table lacks; it has "
                + ", ".join(map(repr, self._columns))
            )


def _counted(array: cells.Array, missing: Sequence[str]) -> tuple[cells.Array, NDArray[np.int64]]:
    """The distinct values of a column that are not missing, and the number of cells with each."""
    array = cells.plain(array)
    typed = pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_temporal
    if not any(check(array.type) for check in typed) or pa.types.is_time(array.type):
        array = cells.texts(array, missing)
    elif pa.types.is_floating(array.type):
        array = array.filter(pc.invert(pc.is_nan(array)))
    pairs = pc.value_counts(array.drop_null())
    return pairs.field("values"), np.asarray(pairs.field("counts"), dtype=np.int64)


class _Seen:
    """The values of one column, as far as the table was read.

    `values` is their number without the texts that may mean a missing value; these are in
    `maybe_missing`.
    """

    def __init__(self, name: str, spelling: Spelling, distinct_bytes: int) -> None:
        self.name = name
        self.spelling = spelling
        self.examples: tuple[str, ...] = ()
        # Numbers of values of each sort
        self.values = 0
        self.booleans = 0
        self.numbers = 0
        self.finite = 0
        self.whole = 0
        self.naive = 0
        self.zoned = 0
        # Properties of numbers and dates
        self.zeros = False
        self.huge = False
        self.low = np.inf
        self.high = -np.inf
        self.step = 0
        # The first value that is no finite number, and no date
        self.first_unfit = ""
        self.first_undated = ""
        # Texts and numbers with a special meaning, and the number of cells with each
        self.maybe_missing: Counter[str] = Counter()
        self.words: Counter[str] = Counter()
        self.odd: Counter[str] = Counter()
        self.sentinels: Counter[float] = Counter()
        self.low_without_sentinels = np.inf
        self.high_without_sentinels = -np.inf
        # The search of repeated values
        self.repeats = False
        self._distinct: cells.Array | None = None
        self._distinct_bytes = distinct_bytes
        # The rows of a sample of the texts of several words, by checksums up to a limit
        self.spaced = 0
        self._sample: Counter[int] = Counter()
        self._sample_below = 2**32

    def update(self, distinct: cells.Array, counts: NDArray[np.int64]) -> None:
        if pa.types.is_string(distinct.type):
            maybe = np.asarray(pc.is_in(distinct, value_set=pa.array(MAYBE_MISSING)), dtype=bool)
            if maybe.any():
                self.maybe_missing.update(_counter(distinct.filter(pa.array(maybe)), counts[maybe]))
                distinct = distinct.filter(pa.array(~maybe))
                counts = counts[~maybe]
        self.values += int(counts.sum())
        self._keep_examples(distinct)
        self._look_for_repeats(distinct, counts)
        self._see(distinct, counts)

    def _see(self, distinct: cells.Array, counts: NDArray[np.int64]) -> None:
        if pa.types.is_boolean(distinct.type):
            self.booleans += int(counts.sum())
        elif pa.types.is_timestamp(distinct.type) or pa.types.is_date(distinct.type):
            self._see_times(distinct, counts)
        elif pa.types.is_string(distinct.type):
            self._see_text(distinct, counts)
        else:
            self._see_numbers(distinct, counts)

    def look_again(self) -> None:
        """Read again the texts that are no numbers in the spelling of the sample.

        The first decimal sign of a column may be behind the sample.
        """
        if not self.odd or self.spelling.certain or not self.numbers or self.numbers == self.values:
            return
        late = numbers.find([*self.examples, *self.odd])
        if late is not None and late.format != self.spelling.number:
            odd = self.odd
            self.odd = Counter()
            self.spelling = self.spelling.model_copy(
                update={"number": late.format, "certain": True, "example": next(iter(odd))}
            )
            self.first_unfit = ""
            self._see_numbers(pa.array(odd, pa.string()), np.array(list(odd.values())))

    def kind(self) -> tuple[Kind, str]:
        """The kind by rules 2 to 8 of infer, and the rule in words."""
        if not self.values:
            return "categorical", "no value"
        if self.booleans == self.values:
            return "boolean", "only true and false, yes and no"
        if not self.zeros and self._mostly(self._dates):
            format = self.spelling.format
            return "datetime", f"dates written {format}" if format else "dates"
        if not self.zeros and self._mostly(self.numbers):
            return self._kind_of_number()
        if self._is_free_text and self._texts_repeat:
            return "identifier", "free text: several words, nearly all different"
        if self._texts_repeat or self.values < ENOUGH_VALUES:
            rule = "numbers with leading zeros" if self.zeros else "text that repeats"
            return "categorical", rule
        return "identifier", "text, all different"

    def column(self, kind: Kind) -> Column:
        """The column of a schema, with the fields that this kind has."""
        fields: dict[str, object] = {}
        if kind == "boolean":
            fields["categories"] = ("false", "true")
            fields["words"] = self._words()
        elif kind == "datetime":
            format = self.spelling.format
            fields["zone"] = "utc" if self.zoned > self.naive else None
            fields["step"] = self.step or 1
            fields["format"] = None if format in WRITTEN_BY_DEFAULT else format
        elif kind in NUMBERS:
            number = self.spelling.number
            fields["number"] = None if number == NumberFormat() else number
        return Column(name=self.name, kind=kind, type=self.spelling.type, **fields)

    def notices(self, column: Column, overridden: bool) -> Iterator[str]:
        """Notices about the kind of the column."""
        if not self.values and not self.maybe_missing:
            yield f"column {self.name!r} has no values"
        elif column.kind == "identifier" and not overridden:
            yield (
                f"column {self.name!r} looks like an identifier: it is not modelled, unless you"
                " give its kind"
            )
        elif column.kind == "datetime" and self._dates < self.values:
            yield self._warning(self._dates, "dates of one sort", self.first_undated)
        elif column.kind in ("integer", "continuous") and self.finite < self.values:
            yield self._warning(self.finite, "finite numbers", self.first_unfit)
        if column.kind in NUMBERS:
            yield from self._sentinel_notices(column.kind)
        if self.maybe_missing:
            yield from self._missing_notices(column.kind)

    def _warning(self, count: int, sort: str, example: str) -> str:
        return (
            f"column {self.name!r}: {self.values - count} of {self.values} values are not {sort},"
            f" such as {example!r}; their rows become errors unless you give another kind"
        )

    def _missing_notices(self, kind: Kind) -> Iterator[str]:
        """A notice about words such as ?, which mean a missing value or are a category."""
        words = ", ".join(repr(word) for word in islice(sorted(self.maybe_missing), 5))
        subject = f"column {self.name!r}: the cells with {words} ({self.maybe_missing.total():,})"
        if kind not in ("categorical", "identifier"):
            yield (
                f"{subject} are read as missing; if they are values, make the column categorical"
            )
        elif (
            kind == "categorical" and self.values and not _CATEGORIES.issuperset(self.maybe_missing)
        ):
            yield (
                f"{subject} are a category; if that means missing, add it to `missing` in a schema"
                " file"
            )

    def _sentinel_notices(self, kind: Kind) -> Iterator[str]:
        """Notices about frequent numbers and dates far from all others, which may mean missing."""
        low = self.low_without_sentinels
        high = self.high_without_sentinels
        for value, count in self.sentinels.items():
            if count >= OFTEN and max(low - value, value - high) > high - low:
                text = _day_of(int(value)) if kind == "datetime" else f"{value:.15g}"
                yield (
                    f"column {self.name!r}: {text} is in {count:,} cells, far from all other"
                    " values; if it means that a value is missing, add it to `missing` of the"
                    " column in a schema file"
                )

    def _look_for_sentinels(
        self, values: NDArray[np.float64], counts: NDArray[np.int64], sentinels: frozenset[float]
    ) -> None:
        mask = np.isin(values, list(sentinels))
        pairs = zip(values[mask].tolist(), counts[mask].tolist(), strict=True)
        self.sentinels.update(dict(pairs))
        others = values[~mask]
        self.low_without_sentinels = others.min(initial=self.low_without_sentinels)
        self.high_without_sentinels = others.max(initial=self.high_without_sentinels)

    @property
    def _dates(self) -> int:
        """The number of dates with a zone, or of those without one, whichever are more."""
        return max(self.naive, self.zoned)

    @property
    def _texts_repeat(self) -> bool:
        return self.repeats or any(count > 1 for count in self.maybe_missing.values())

    @property
    def _is_free_text(self) -> bool:
        are_many = self.values >= ENOUGH_VALUES and self.spaced > SPACED * self.values
        return are_many and len(self._sample) >= NEARLY_ALL * self._sample.total()

    def _mostly(self, count: int) -> bool:
        return count >= (1 - TOLERATED) * self.values

    def _kind_of_number(self) -> tuple[Kind, str]:
        if self.whole < self.finite or not self.finite:
            return "continuous", "numbers with fractions"
        if _ROW_INDEX.fullmatch(self.name):
            return "identifier", "the row index of a data frame"
        if self.huge:
            return "identifier", "whole numbers of 2^53 or more"
        gapless = self.values >= ENOUGH_VALUES and self.high - self.low == self.values - 1
        if not self.repeats and gapless:
            return "identifier", "whole numbers that follow one another"
        if not self.repeats and _NAMED_LIKE_A_KEY.search(self.name):
            return "identifier", "whole numbers, all different, named like a key"
        return "integer", "whole numbers"

    def _words(self) -> tuple[str, str] | None:
        """The words for false and true.

        None if they are "false" and "true", or if the column has no such text.
        """
        false = self._most_frequent(cells.FALSE)
        true = self._most_frequent(cells.TRUE)
        false = false or _opposite(true)
        true = true or _opposite(false)
        if false is None or true is None or (false, true) == ("false", "true"):
            return None
        return false, true

    def _most_frequent(self, words: Sequence[str]) -> str | None:
        """The most frequent spelling of these words."""
        spellings = [word for word in self.words if word.lower() in words]
        return max(spellings, key=lambda word: self.words[word], default=None)

    def _keep_examples(self, distinct: cells.Array) -> None:
        if len(self.examples) < EXAMPLES and len(distinct):
            texts = cells.spelled(distinct.slice(0, EXAMPLES)).to_pylist()
            short = [str(text)[:40] for text in texts]
            self.examples = tuple(dict.fromkeys([*self.examples, *short]))[:EXAMPLES]

    def _look_for_repeats(self, distinct: cells.Array, counts: NDArray[np.int64]) -> None:
        """Search repeated values. When the memory is used up, no more values are remembered."""
        if self.repeats:
            return
        earlier = self._distinct
        self.repeats = bool((counts > 1).any())
        if earlier is not None and not self.repeats:
            self.repeats = bool(pc.any(pc.is_in(distinct, earlier)).as_py())
        if self.repeats:
            self._distinct = None
        elif earlier is None or earlier.nbytes < self._distinct_bytes:
            self._distinct = distinct if earlier is None else pa.concat_arrays([earlier, distinct])

    def _see_numbers(self, array: cells.Array, counts: NDArray[np.int64]) -> None:
        column = cells.numbers(array, (), self.spelling.number_for(None), self.spelling.plain_first)
        values = column.values
        finite = np.isfinite(values)
        self.finite += int(counts[finite].sum())
        self._see_whole(array, values, counts, finite & (values == np.rint(values)))
        self._look_for_sentinels(values[finite], counts[finite], SENTINELS)
        self.first_unfit = self.first_unfit or _first(array, ~finite)

        # Texts that are no numbers
        other = column.faults.get("not-a-number", np.zeros(len(array), bool))
        self.numbers += int(counts[~other].sum())
        if other.any() and len(self.odd) < KEPT:
            self.odd.update(_counter(array.filter(pa.array(other)), counts[other]))

    def _see_whole(
        self,
        array: cells.Array,
        values: NDArray[np.float64],
        counts: NDArray[np.int64],
        whole: NDArray[np.bool_],
    ) -> None:
        huge = whole & (np.abs(values) >= cells.EXACT)
        if huge.any():
            digits = cells.are_digits(array)
            whole = whole & (~huge | digits)  # 1e20 is measured and not counted
            self.huge |= bool((huge & digits).any())
        self.whole += int(counts[whole].sum())
        self.low = values.min(initial=self.low, where=whole)
        self.high = values.max(initial=self.high, where=whole)

    def _see_text(self, text: cells.Array, counts: NDArray[np.int64]) -> None:
        words = np.asarray(pc.is_in(pc.utf8_lower(text), pa.array((*cells.TRUE, *cells.FALSE))))
        self.booleans += int(counts[words].sum())
        if words.any():
            self.words.update(_counter(text.filter(pa.array(words)), counts[words]))
        self._count_texts(text, counts)
        self.zeros |= not self.spelling.format and bool(cells.have_leading_zeros(text).any())
        self._see_numbers(text, counts)
        if self.numbers < self.values or self.spelling.format:
            self._see_times(text, counts)

    def _count_texts(self, text: cells.Array, counts: NDArray[np.int64]) -> None:
        """Count texts of several words: the number of all, and the rows of a sample of them, which
        is the same however the rows are cut."""
        spaced = np.asarray(pc.match_substring(text, " "), dtype=bool)
        self.spaced += int(counts[spaced].sum())
        texts = text.filter(pa.array(spaced)).to_pylist()
        for value, count in zip(texts, counts[spaced].tolist(), strict=True):
            checksum = zlib.crc32(str(value).encode())
            if checksum < self._sample_below:
                self._sample[checksum] += count
        while len(self._sample) > SAMPLED:
            self._sample_below //= 2
            below = {key: rows for key, rows in self._sample.items() if key < self._sample_below}
            self._sample = Counter(below)

    def _see_times(self, array: cells.Array, counts: NDArray[np.int64]) -> None:
        column = cells.times(array, (), self.spelling.format)
        self.naive += int(counts[column.dated & ~column.zoned].sum())
        self.zoned += int(counts[column.dated & column.zoned].sum())
        self.first_undated = self.first_undated or _first(array, column.present & ~column.dated)
        micros = column.micros[column.dated]
        self._look_for_sentinels(micros.astype(np.float64), counts[column.dated], OPEN_ENDS)
        if len(micros):
            steps = STEPS[STEPS.index(self.step) :] if self.step else STEPS
            self.step = next(step for step in steps if not (micros % step).any())


def _spelling_notices(
    columns: Sequence[Column], spellings: Mapping[str, Spelling]
) -> Iterator[str]:
    """Notices about uncommon spellings of numbers and dates, one for all columns that share it."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for column in columns:
        key = _uncommon(column.kind, spellings[column.name])
        if key is not None:
            groups.setdefault(key, []).append(column.name)
    for group in groups.values():
        names = ", ".join(map(repr, group[:3]))
        names += f" and {len(group) - 3} more" if len(group) > 3 else ""
        spelling = spellings[group[0]]
        reading = _reading_of_numbers(spelling) if spelling.number else _reading_of_dates(spelling)
        yield f"{'column' if len(group) == 1 else 'columns'} {names}: {reading}"


def _uncommon(kind: Kind, spelling: Spelling) -> tuple[object, ...] | None:
    """A key of the spelling; None if it is the common one of programs."""
    format = spelling.format
    if kind == "datetime" and format and not format.startswith("%Y-%m-%d"):
        return format, spelling.other
    number = spelling.number
    if kind in ("continuous", "integer") and number and (spelling.other or not number.is_plain):
        return number.decimal, spelling.other is None
    return None


def _reading_of_dates(spelling: Spelling) -> str:
    reading = (
        f"{spelling.example!r} is read as the date {_day(spelling.example, spelling.format)}"
        f" ({spelling.format})"
    )
    if isinstance(spelling.other, str):
        reading += (
            f"; if it is {_day(spelling.example, spelling.other)}, give the format"
            f" {spelling.other} in a schema file"
        )
    return reading


def _reading_of_numbers(spelling: Spelling) -> str:
    number = spelling.number or NumberFormat()
    value = cells.numbers(pa.array([spelling.example]), (), number).values[0]
    sign, name = (",", "point") if number.decimal == "." else (".", "comma")
    return (
        f"numbers are read with a decimal {name}, {spelling.example!r} as {value:.15g}; give"
        f" --decimal {sign} if that is wrong"
    )


def _day(text: str, format: str | None) -> str:
    return _day_of(int(cells.times(pa.array([text]), (), format).micros[0]))


def _day_of(micros: int) -> str:
    return str(np.datetime64(micros, "us").astype("datetime64[D]"))


def _opposite(word: str | None) -> str | None:
    """The other word of a pair, in the same case: "No" for "Yes"."""
    if word is None:
        return None
    pairs = dict(zip((*cells.TRUE, *cells.FALSE), (*cells.FALSE, *cells.TRUE), strict=True))
    other = pairs[word.lower()]
    if word.isupper():
        return other.upper()
    return other.capitalize() if word[0].isupper() else other


def _counter(array: cells.Array, counts: NDArray[np.int64]) -> Counter[str]:
    texts = map(str, array.slice(0, KEPT).to_pylist())
    return Counter(dict(zip(texts, counts.tolist(), strict=False)))


def _first(array: cells.Array, mask: NDArray[np.bool_]) -> str:
    """The first cell of a mask as text; empty if there is none."""
    if not mask.any():
        return ""
    cell = array.slice(int(mask.argmax()), 1)
    return str(cells.spelled(cell)[0].as_py())[:40]

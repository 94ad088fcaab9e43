"""The schema of a table that comes without one: each column's kind, from what its cells hold."""

import re
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
"""Values from which on it says something that all of them differ."""
DISTINCT_BYTES = 64 * 2**20
"""Memory, over all columns, for the search of values that stand twice."""
KEPT = 1_000
"""Distinct values of a column that are kept to look at again: words for true and false, texts that
are no numbers."""
EXAMPLES = 3
SENTINELS = frozenset(
    sign * number
    for sign in (1, -1)
    for number in (99, 999, 9_999, 99_999, 999_999, 9_999_999, 999.9, 99.99)
)
"""Numbers that people write where a value is missing."""
OPEN_ENDS = frozenset(
    int(np.datetime64(day, "us").astype(np.int64))
    for day in ("9999-12-31", "2999-12-31", "1900-01-01")
)
OFTEN = 3
"""Rows that hold a number or a date from which on it may mean that a value is missing."""
STEPS = (86_400_000_000, 3_600_000_000, 60_000_000, 1_000_000, 1_000, 1)
"""Resolutions of a datetime in microseconds: day, hour, minute, second, millisecond,
microsecond."""
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
"""Names of the row index that pandas writes beside a table's own columns."""
_CATEGORIES = frozenset({".", "..", "unknown", "Unknown", "UNKNOWN"})
"""Words that are ordinary categories in a column of text."""


@dataclass(frozen=True)
class Decision:
    """Why a column has its kind: the rule that decided, and some of its values."""

    column: Column
    rule: str
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Inspected:
    """What a table turned out to be; the notices say what a user may want to override."""

    schema: Schema
    rows: int
    notices: tuple[str, ...]
    decisions: tuple[Decision, ...]


def infer(batches: Iterable[pa.RecordBatch], overrides: Mapping[str, Kind] | None = None) -> Schema:
    """The schema of a table, from one pass at constant memory. The first rule that fits gives a
    column its kind.

    1. An override.
    2. No value at all: categorical.
    3. Only true, false, yes, no, t, f, y, n in any case, or an Arrow bool: boolean. 0 and 1 stay
       integers.
    4. A number with a leading zero ("007") anywhere: text, see 8.
    5. Dates as the file writes them (ISO 8601 if it does not say), or an Arrow date or timestamp:
       datetime; in UTC if they
       have zones, else naive.
    6. Whole numbers under the name that pandas gives a row index: identifier.
    7. Numbers: continuous if one has a fraction. Whole numbers are identifiers where one is 2^53 or
       more, where at
       least 20 all differ and leave no gap, or where all differ under a name like id; else
       integers.
    8. Text: identifier if there are at least 20 values and all differ, else categorical.

    Up to 5 % of the values may break rules 5 to 7; their rows become errors. Words such as ? or
    None mean a missing value under rules 3 to 7 and a category under 8. Categories are left to
    training.
    """
    inspector = Inspector(overrides)
    for batch in batches:
        inspector.update(batch)
    return inspector.finish().schema


class Inspector:
    """Infers a schema from batches while someone else reads them: update with each, then finish."""

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
                self._columns[field.name] = _Seen(
                    field.name, Spelling.of(field), DISTINCT_BYTES // batch.num_columns
                )
            self._columns[field.name].update(*_counted(array, self._missing))

    def finish(self) -> Inspected:
        unknown = sorted(set(self._overrides) - set(self._columns))
        if unknown:
            raise InvalidInput(
                f"a kind is given for the column {unknown[0]!r}, which the table lacks; it has "
                + ", ".join(map(repr, self._columns))
            )
        decisions: list[Decision] = []
        notices: list[str] = []
        for name, seen in self._columns.items():
            seen.look_again()
            given = self._overrides.get(name)
            kind, rule = (given, "given") if given else seen.kind()
            column = seen.column(kind)
            decisions.append(Decision(column, rule, seen.examples))
            notices += seen.notices(column, overridden=given is not None)
        columns = tuple(decision.column for decision in decisions)
        notices = [
            *_spelling_notices(
                columns, {name: seen.spelling for name, seen in self._columns.items()}
            ),
            *notices,
        ]
        return Inspected(
            Schema(columns=columns, missing=self._missing),
            self._rows,
            tuple(notices),
            tuple(decisions),
        )


def _counted(array: cells.Array, missing: Sequence[str]) -> tuple[cells.Array, NDArray[np.int64]]:
    """The distinct values of a column that are not missing, and how often each stands there."""
    array = cells.plain(array)
    typed = pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_temporal
    if not any(check(array.type) for check in typed) or pa.types.is_time(array.type):
        array = cells.texts(array, missing)
    elif pa.types.is_floating(array.type):
        array = array.filter(pc.invert(pc.is_nan(array)))
    found = pc.value_counts(array.drop_null())
    return found.field("values"), np.asarray(found.field("counts"), dtype=np.int64)


class _Seen:
    """What the values of one column have been so far: counts of values that are a number, a date, …

    `values` leaves out the texts that may mean a missing value, which are counted in
    `maybe_missing`.
    """

    def __init__(self, name: str, spelling: Spelling, distinct_bytes: int) -> None:
        self.name, self.spelling = name, spelling
        self.values = self.booleans = self.numbers = self.finite = self.whole = self.naive = (
            self.zoned
        ) = self.step = 0
        self.zeros = self.huge = self.repeats = False
        self.low, self.high = np.inf, -np.inf
        self.examples: tuple[str, ...] = ()
        self.first_unfit, self.first_undated = "", ""
        self.maybe_missing: Counter[str] = Counter()
        self.words: Counter[str] = Counter()
        self.odd: Counter[str] = Counter()
        self.sentinels: Counter[float] = Counter()
        self.range_without = [np.inf, -np.inf]
        self._distinct: cells.Array | None = None
        self._distinct_bytes = distinct_bytes

    def update(self, distinct: cells.Array, counts: NDArray[np.int64]) -> None:
        if pa.types.is_string(distinct.type):
            maybe = np.asarray(pc.is_in(distinct, value_set=pa.array(MAYBE_MISSING)), dtype=bool)
            if maybe.any():
                self.maybe_missing.update(_counter(distinct.filter(pa.array(maybe)), counts[maybe]))
                distinct, counts = distinct.filter(pa.array(~maybe)), counts[~maybe]
        self.values += int(counts.sum())
        self._keep_examples(distinct)
        self._look_for_repeats(distinct, counts)
        if pa.types.is_boolean(distinct.type):
            self.booleans += int(counts.sum())
        elif pa.types.is_timestamp(distinct.type) or pa.types.is_date(distinct.type):
            self._see_times(distinct, counts)
        elif pa.types.is_string(distinct.type):
            self._see_text(distinct, counts)
        else:
            self._see_numbers(distinct, counts)

    def look_again(self) -> None:
        """At texts that were no numbers as the sample has them written: a decimal sign may appear
        late in a file."""
        if not self.odd or self.spelling.certain or not self.numbers or self.numbers == self.values:
            return
        late = numbers.find([*self.examples, *self.odd])
        if late is not None and late.format != self.spelling.number:
            odd, self.odd = self.odd, Counter()
            self.spelling = self.spelling.model_copy(
                update={"number": late.format, "certain": True, "example": next(iter(odd))}
            )
            self.first_unfit = ""
            self._see_numbers(pa.array(odd, pa.string()), np.array(list(odd.values())))

    def kind(self) -> tuple[Kind, str]:
        """By the rules of infer, from its second on; and the rule in words."""
        if not self.values:
            return "categorical", "no value"
        if self.booleans == self.values:
            return "boolean", "only true and false, yes and no"
        if not self.zeros and self._mostly(max(self.naive, self.zoned)):
            return (
                "datetime",
                f"dates written {self.spelling.format}" if self.spelling.format else "dates",
            )
        if not self.zeros and self._mostly(self.numbers):
            return self._kind_of_number()
        if self._texts_repeat or self.values < ENOUGH_VALUES:
            return (
                "categorical",
                "numbers with leading zeros" if self.zeros else "text that repeats",
            )
        return "identifier", "text, all different"

    def column(self, kind: Kind) -> Column:
        """What is kept of a column of this kind beside its name."""
        own: dict[str, object] = {}
        if kind == "boolean":
            own |= {"categories": ("false", "true"), "words": self._words()}
        elif kind == "datetime":
            shown = None if self.spelling.format in WRITTEN_BY_DEFAULT else self.spelling.format
            own |= {
                "zone": "utc" if self.zoned > self.naive else None,
                "step": self.step or 1,
                "format": shown,
            }
        elif kind in NUMBERS:
            own["number"] = None if self.spelling.number == NumberFormat() else self.spelling.number
        return Column(name=self.name, kind=kind, type=self.spelling.type, **own)

    def notices(self, column: Column, overridden: bool) -> Iterator[str]:
        """What a user should know about the choice."""
        name, dates = repr(self.name), max(self.naive, self.zoned)
        if not self.values and not self.maybe_missing:
            yield f"column {name} has no values"
        elif column.kind == "identifier" and not overridden:
            yield (
                f"column {name} looks like an identifier: carried through, not modelled, unless"
                " you give its kind"
            )
        elif column.kind == "datetime" and dates < self.values:
            yield _warned(
                self.name, self.values - dates, self.values, "dates of one sort", self.first_undated
            )
        elif column.kind in ("integer", "continuous") and self.finite < self.values:
            yield _warned(
                self.name,
                self.values - self.finite,
                self.values,
                "finite numbers",
                self.first_unfit,
            )
        yield from self._about_sentinels(column)
        if self.maybe_missing:
            words = ", ".join(repr(word) for word in islice(sorted(self.maybe_missing), 5))
            cells_ = f"the cells with {words} ({self.maybe_missing.total():,})"
            if column.kind not in ("categorical", "identifier"):
                yield (
                    f"column {name}: {cells_} are taken as missing; if they are values, make the"
                    " column categorical"
                )
            elif (
                column.kind == "categorical"
                and self.values
                and not _CATEGORIES.issuperset(self.maybe_missing)
            ):
                yield (
                    f"column {name}: {cells_} are a category; if that means missing, add it to"
                    " `missing` in a schema file"
                )

    def _about_sentinels(self, column: Column) -> Iterator[str]:
        """Numbers and dates that stand far from all others, and often, as those do that mean a
        missing value."""
        if column.kind not in NUMBERS:
            return
        low, high = self.range_without
        for value, count in self.sentinels.items():
            if count >= OFTEN and max(low - value, value - high) > high - low:
                shown = (
                    f"{value:.15g}"
                    if column.kind != "datetime"
                    else str(np.datetime64(int(value), "us").astype("datetime64[D]"))
                )
                yield (
                    f"column {self.name!r}: {shown} stands in {count:,} cells, far from all other"
                    " values; if it means that a"
                    " value is missing, add it to `missing` of the column in a schema file"
                )

    def _look_for_sentinels(
        self, values: NDArray[np.float64], counts: NDArray[np.int64], known: frozenset[float]
    ) -> None:
        at = np.isin(values, list(known))
        self.sentinels.update(dict(zip(values[at].tolist(), counts[at].tolist(), strict=True)))
        others = values[~at]
        self.range_without = [
            min(self.range_without[0], others.min(initial=np.inf)),
            max(self.range_without[1], others.max(initial=-np.inf)),
        ]

    @property
    def _texts_repeat(self) -> bool:
        return self.repeats or any(count > 1 for count in self.maybe_missing.values())

    def _mostly(self, count: int) -> bool:
        return count >= (1 - TOLERATED) * self.values

    def _kind_of_number(self) -> tuple[Kind, str]:
        if self.whole < self.finite or not self.finite:
            return "continuous", "numbers with fractions"
        if _ROW_INDEX.fullmatch(self.name):
            return "identifier", "the row index of a data frame"
        gapless = self.values >= ENOUGH_VALUES and self.high - self.low == self.values - 1
        if self.huge:
            return "identifier", "whole numbers of 2^53 or more"
        if not self.repeats and gapless:
            return "identifier", "whole numbers that follow one another"
        if not self.repeats and _NAMED_LIKE_A_KEY.search(self.name):
            return "identifier", "whole numbers, all different, named like a key"
        return "integer", "whole numbers"

    def _words(self) -> tuple[str, str] | None:
        """How the text has false and true, None where a column of text has not shown both."""
        by_value = [
            max(
                (word for word in self.words if word.lower() in words),
                key=lambda word: self.words[word],
                default=None,
            )
            for words in (cells.FALSE, cells.TRUE)
        ]
        false, true = (
            word or _opposite(other)
            for word, other in zip(by_value, reversed(by_value), strict=True)
        )
        return (
            None
            if false is None or true is None or (false, true) == ("false", "true")
            else (false, true)
        )

    def _keep_examples(self, distinct: cells.Array) -> None:
        if len(self.examples) < EXAMPLES and len(distinct):
            new = (
                str(text)[:40] for text in cells.spelled(distinct.slice(0, EXAMPLES)).to_pylist()
            )
            self.examples = tuple(dict.fromkeys([*self.examples, *new]))[:EXAMPLES]

    def _look_for_repeats(self, distinct: cells.Array, counts: NDArray[np.int64]) -> None:
        """Exact until the memory is used up; from then on new values are compared with those
        kept."""
        if self.repeats:
            return
        known = self._distinct
        self.repeats = bool((counts > 1).any())
        if known is not None and not self.repeats:
            self.repeats = bool(pc.any(pc.is_in(distinct, known)).as_py())
        if self.repeats:
            self._distinct = None
        elif known is None or known.nbytes < self._distinct_bytes:
            self._distinct = distinct if known is None else pa.concat_arrays([known, distinct])

    def _see_numbers(self, array: cells.Array, counts: NDArray[np.int64]) -> None:
        found = cells.numbers(array, (), self.spelling.number_for(None), self.spelling.plain_first)
        strange = found.faults.get("not-a-number", np.zeros(len(array), bool))
        finite = np.isfinite(found.values)
        whole = finite & (found.values == np.rint(found.values))
        huge = whole & (np.abs(found.values) >= cells.EXACT)
        if huge.any():
            spelled_out = cells.are_digits(array)
            whole &= ~huge | spelled_out  # 1e20 is no counted thing
            self.huge |= bool((huge & spelled_out).any())
        self.numbers += int(counts[~strange].sum())
        self.finite += int(counts[finite].sum())
        self.whole += int(counts[whole].sum())
        self.low = min(self.low, found.values.min(initial=np.inf, where=whole))
        self.high = max(self.high, found.values.max(initial=-np.inf, where=whole))
        self._look_for_sentinels(found.values[finite], counts[finite], SENTINELS)
        self.first_unfit = self.first_unfit or _first(array, ~finite)
        if strange.any() and len(self.odd) < KEPT:
            self.odd.update(_counter(array.filter(pa.array(strange)), counts[strange]))

    def _see_text(self, text: cells.Array, counts: NDArray[np.int64]) -> None:
        words = np.asarray(pc.is_in(pc.utf8_lower(text), pa.array((*cells.TRUE, *cells.FALSE))))
        self.booleans += int(counts[words].sum())
        if words.any():
            self.words.update(_counter(text.filter(pa.array(words)), counts[words]))
        self.zeros |= not self.spelling.format and bool(cells.have_leading_zeros(text).any())
        self._see_numbers(text, counts)
        if self.numbers < self.values or self.spelling.format:
            self._see_times(text, counts)

    def _see_times(self, array: cells.Array, counts: NDArray[np.int64]) -> None:
        found = cells.times(array, (), self.spelling.format)
        self.naive += int(counts[found.dated & ~found.zoned].sum())
        self.zoned += int(counts[found.dated & found.zoned].sum())
        micros = found.micros[found.dated]
        self._look_for_sentinels(
            micros.astype(np.float64), counts[found.dated], frozenset(OPEN_ENDS)
        )
        coarser = STEPS.index(self.step) if self.step else 0
        if len(micros):
            self.step = next(step for step in STEPS[coarser:] if not (micros % step).any())
        self.first_undated = self.first_undated or _first(array, found.present & ~found.dated)


def _spelling_notices(
    columns: Sequence[Column], spellings: Mapping[str, Spelling]
) -> Iterator[str]:
    """How numbers and dates were read, where programs do not write them so; columns that are
    written alike share a notice."""
    alike: dict[tuple[object, ...], list[Column]] = {}
    for column in columns:
        spelling = spellings[column.name]
        if (
            column.kind == "datetime"
            and spelling.format
            and not spelling.format.startswith("%Y-%m-%d")
        ):
            alike.setdefault((spelling.format, spelling.other), []).append(column)
        elif (
            column.kind in ("continuous", "integer")
            and spelling.number
            and (spelling.other or not spelling.number.is_plain)
        ):
            alike.setdefault((spelling.number.decimal, spelling.other is None), []).append(column)
    for of_them in alike.values():
        names = [repr(column.name) for column in of_them]
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        spelling = spellings[of_them[0].name]
        told = _reading_of_numbers(spelling) if spelling.number else _reading_of_dates(spelling)
        yield f"{'column' if len(names) == 1 else 'columns'} {shown}: {told}"


def _reading_of_dates(spelling: Spelling) -> str:
    told = (
        f"{spelling.example!r} is read as the date {_day(spelling.example, spelling.format)}"
        f" ({spelling.format})"
    )
    if isinstance(spelling.other, str):
        told += (
            f"; if it is {_day(spelling.example, spelling.other)}, give the format"
            f" {spelling.other} in a schema file"
        )
    return told


def _reading_of_numbers(spelling: Spelling) -> str:
    number = spelling.number or NumberFormat()
    value = cells.numbers(pa.array([spelling.example]), (), number).values[0]
    sign, name = (",", "point") if number.decimal == "." else (".", "comma")
    return (
        f"numbers are read with a decimal {name}, {spelling.example!r} as {value:.15g}; give"
        f" --decimal {sign} if that is wrong"
    )


def _day(text: str, format: str | None) -> str:
    return str(
        np.datetime64(int(cells.times(pa.array([text]), (), format).micros[0]), "us").astype(
            "datetime64[D]"
        )
    )


def _opposite(word: str | None) -> str | None:
    """The other word of a pair, in the same case: "No" for "Yes"."""
    if word is None:
        return None
    pairs = dict(zip((*cells.TRUE, *cells.FALSE), (*cells.FALSE, *cells.TRUE), strict=True))
    other = pairs[word.lower()]
    return other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other


def _counter(array: cells.Array, counts: NDArray[np.int64]) -> Counter[str]:
    return Counter(
        {
            str(text): count
            for text, count in zip(array.slice(0, KEPT).to_pylist(), counts.tolist(), strict=False)
        }
    )


def _first(array: cells.Array, mask: NDArray[np.bool_]) -> str:
    return (
        str(cells.spelled(array.slice(int(mask.argmax()), 1))[0].as_py())[:40] if mask.any() else ""
    )


def _warned(name: str, count: int, values: int, wanted: str, example: str) -> str:
    return (
        f"column {name!r}: {count} of {values} values are not {wanted}, such as {example!r}; "
        "their rows become errors unless you give another kind"
    )

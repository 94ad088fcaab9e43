"""The schema of a table that comes without one: each column's kind, from what its cells hold."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nelbo import cells
from nelbo.cells import pc
from nelbo.errors import InvalidInput
from nelbo.schema import MISSING, Column, Kind, Schema

TOLERATED = 0.05
"""Share of the values that may break the kind of their column; each of them makes its row an error."""
ENOUGH_VALUES = 20
"""Values from which on it says something that all of them differ."""
DISTINCT_BYTES = 64 * 2**20
"""Memory, over all columns, for the search of values that stand twice."""
STEPS = (86_400_000_000, 3_600_000_000, 60_000_000, 1_000_000, 1_000, 1)
"""Resolutions of a datetime in microseconds: day, hour, minute, second, millisecond, microsecond."""

_NAMED_LIKE_A_KEY = re.compile(r"(?:^|[_\W])(?i:ids?|key|uuid|guid|index|row_?(?:id|number))$|[a-z](?:Id|ID|Key)$")


@dataclass(frozen=True)
class Inspected:
    """What a table turned out to be; the notices say what a user may want to override."""

    schema: Schema
    rows: int
    notices: tuple[str, ...]


def infer(batches: Iterable[pa.RecordBatch], overrides: Mapping[str, Kind] | None = None) -> Schema:
    """The schema of a table, from one pass at constant memory. The first rule that fits gives a column its kind.

    1. An override.
    2. No value at all: categorical.
    3. Only true, false, yes, no, t, f, y, n in any case, or an Arrow bool: boolean. 0 and 1 stay integers.
    4. A number with a leading zero ("007") anywhere: text, see 7.
    5. ISO 8601 dates, or an Arrow date or timestamp: datetime; in UTC if they have zones, else naive.
    6. Numbers: continuous if one has a fraction. Whole numbers are identifiers where one is 2^53 or more, where at
       least 20 all differ and leave no gap, or where all differ under a name like id; else integers.
    7. Text: identifier if there are at least 20 values and all differ, else categorical.

    Up to 5 % of the values may break rules 5 and 6; their rows become errors. Categories are left to training.
    """
    inspector = Inspector(overrides)
    for batch in batches:
        inspector.update(batch)
    return inspector.finish().schema


class Inspector:
    """Infers a schema from batches while someone else reads them: update with each, then finish."""

    def __init__(self, overrides: Mapping[str, Kind] | None = None, missing: Sequence[str] = MISSING) -> None:
        self._overrides = dict(overrides or {})
        self._missing = tuple(missing)
        self._columns: dict[str, _Seen] = {}
        self._rows = 0

    def update(self, batch: pa.RecordBatch) -> None:
        self._rows += batch.num_rows
        for name, array in zip(batch.schema.names, batch.columns, strict=True):
            if name not in self._columns:
                self._columns[name] = _Seen(DISTINCT_BYTES // batch.num_columns)
            self._columns[name].update(*_counted(array, self._missing))

    def finish(self) -> Inspected:
        unknown = sorted(set(self._overrides) - set(self._columns))
        if unknown:
            raise InvalidInput(
                f"a kind is given for the column {unknown[0]!r}, which the table lacks; it has "
                + ", ".join(map(repr, self._columns))
            )
        kinds = {name: self._overrides.get(name) or seen.kind(name) for name, seen in self._columns.items()}
        columns = tuple(_column(name, kind, self._columns[name]) for name, kind in kinds.items())
        notices = (seen.notice(name, kinds[name], name in self._overrides) for name, seen in self._columns.items())
        return Inspected(Schema(columns=columns, missing=self._missing), self._rows, tuple(filter(None, notices)))


def _column(name: str, kind: Kind, seen: "_Seen") -> Column:
    if kind == "boolean":
        return Column(name=name, kind=kind, categories=("false", "true"))
    if kind == "datetime":
        return Column(name=name, kind=kind, zone="utc" if seen.zoned > seen.naive else None, step=seen.step or 1)
    return Column(name=name, kind=kind)


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
    """What the values of one column have been so far: counts of values that are a number, a date, …"""

    def __init__(self, distinct_bytes: int) -> None:
        self.values = self.booleans = self.numbers = self.finite = self.whole = self.naive = self.zoned = self.step = 0
        self.zeros = self.huge = self.repeats = False
        self.low, self.high = np.inf, -np.inf
        self.first_unfit, self.first_undated = "", ""
        self._distinct: cells.Array | None = None
        self._distinct_bytes = distinct_bytes

    def update(self, distinct: cells.Array, counts: NDArray[np.int64]) -> None:
        self.values += int(counts.sum())
        self._look_for_repeats(distinct, counts)
        if pa.types.is_boolean(distinct.type):
            self.booleans += int(counts.sum())
        elif pa.types.is_timestamp(distinct.type) or pa.types.is_date(distinct.type):
            self._see_times(distinct, counts)
        else:
            self._see_numbers(distinct, counts)
        if pa.types.is_string(distinct.type):
            self._see_text(distinct, counts)

    def kind(self, name: str) -> Kind:
        """By the rules of infer, from its second on."""
        if self.booleans == self.values:
            return "boolean" if self.values else "categorical"
        if not self.zeros and self._mostly(max(self.naive, self.zoned)):
            return "datetime"
        if not self.zeros and self._mostly(self.numbers):
            return self._kind_of_number(name)
        return "categorical" if self.repeats or self.values < ENOUGH_VALUES else "identifier"

    def notice(self, name: str, kind: Kind, overridden: bool) -> str | None:
        """What a user should know about the choice; None if nothing."""
        if not self.values:
            return f"column {name!r} has no values"
        if kind == "identifier" and not overridden:
            return f"column {name!r} looks like an identifier: carried through, not modelled, unless you give its kind"
        dates = max(self.naive, self.zoned)
        if kind == "datetime" and dates < self.values:
            return _warned(name, self.values - dates, self.values, "dates of one sort", self.first_undated)
        if kind in ("integer", "continuous") and self.finite < self.values:
            return _warned(name, self.values - self.finite, self.values, "finite numbers", self.first_unfit)
        return None

    def _mostly(self, count: int) -> bool:
        return count >= (1 - TOLERATED) * self.values

    def _kind_of_number(self, name: str) -> Kind:
        if self.whole < self.finite or not self.finite:
            return "continuous"
        gapless = self.values >= ENOUGH_VALUES and self.high - self.low == self.values - 1
        if self.huge or (not self.repeats and (gapless or _NAMED_LIKE_A_KEY.search(name))):
            return "identifier"
        return "integer"

    def _look_for_repeats(self, distinct: cells.Array, counts: NDArray[np.int64]) -> None:
        """Exact until the memory is used up; from then on new values are compared with those kept."""
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
        found = cells.numbers(array, ())
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
        self.first_unfit = self.first_unfit or _first(array, ~finite)

    def _see_text(self, text: cells.Array, counts: NDArray[np.int64]) -> None:
        words = np.asarray(pc.is_in(pc.utf8_lower(text), pa.array((*cells.TRUE, *cells.FALSE))))
        self.booleans += int(counts[words].sum())
        self.zeros |= bool(cells.have_leading_zeros(text).any())
        if self.numbers < self.values:
            self._see_times(text, counts)

    def _see_times(self, array: cells.Array, counts: NDArray[np.int64]) -> None:
        found = cells.times(array, ())
        self.naive += int(counts[found.dated & ~found.zoned].sum())
        self.zoned += int(counts[found.dated & found.zoned].sum())
        micros = found.micros[found.dated]
        coarser = STEPS.index(self.step) if self.step else 0
        if len(micros):
            self.step = next(step for step in STEPS[coarser:] if not (micros % step).any())
        self.first_undated = self.first_undated or _first(array, found.present & ~found.dated)


def _first(array: cells.Array, mask: NDArray[np.bool_]) -> str:
    return str(cells.spelled(array.slice(int(mask.argmax()), 1))[0].as_py())[:40] if mask.any() else ""


def _warned(name: str, count: int, values: int, wanted: str, example: str) -> str:
    return (
        f"column {name!r}: {count} of {values} values are not {wanted}, such as {example!r}; "
        "their rows become errors unless you give another kind"
    )

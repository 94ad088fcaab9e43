"""What the cells of a column mean: missing, text, number, boolean or datetime, whatever Arrow type
holds them.

All functions work on whole columns. Text is read without the white space around it, so that the
same values mean the same from CSV, JSON Lines, Parquet and Arrow. A type that is not of the wanted
kind is read through its text.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from nelbo.spelling import dates
from nelbo.spelling import numbers as written_numbers
from nelbo.spelling.columns import Spelling
from nelbo.spelling.numbers import NumberFormat

pc: Any = pyarrow.compute  # its type stubs know fewer argument types than it takes
Array: TypeAlias = "pa.Array[Any]"

EXACT = 2**53
"""Whole numbers below this survive float64."""
TRUE, FALSE = ("true", "t", "yes", "y"), ("false", "f", "no", "n")

_NUMBER = rf"{written_numbers.PLAIN}|^(?i:[+-]?(?:inf|infinity|nan))$"
_ZEROS_BEHIND = r"\.0+$|(\.\d*?[1-9])0+$"
_ISO_8601 = (
    r"^(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)(?:[Tt"
    r" ](?P<hour>\d\d)(?::(?P<minute>\d\d)(?::(?P<second>\d\d)"
    rf"(?:[.,](?P<fraction>\d+))?)?)?(?P<zone> ?(?:{dates.ZONES}))?)?$"
)
YEARS = (-62_135_596_800_000_000, 253_402_300_799_999_999)
"""First and last microsecond of the years 1 to 9999, since the epoch."""


@dataclass(frozen=True)
class Cells:
    """A column as numbers: `values` float64[n] with NaN = missing; `faults` by error code, each a
    mask bool[n]."""

    values: NDArray[np.float64]
    faults: dict[str, NDArray[np.bool_]] = field(default_factory=dict)


def plain(array: Array) -> Array:
    """The same values without dictionary encoding, and every kind of string as pa.string()."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()  # type: ignore[attr-defined]  # a DictionaryArray, by its type
    if (
        pa.types.is_large_string(array.type)
        or pa.types.is_string_view(array.type)
        or pa.types.is_null(array.type)
    ):
        array = array.cast(pa.string())
    return array


def texts(array: Array, missing: Sequence[str]) -> Array:
    """The cells as trimmed text, null where missing: 3.0 is "3", times are ISO 8601, booleans
    "true" and "false"."""
    text = pc.utf8_trim_whitespace(spelled(array))
    return _known(text, missing)


def spelled(array: Array) -> Array:
    """The cells as text as Nelbo writes them; NaN is null."""
    array = plain(array)
    kind = array.type
    if pa.types.is_string(kind):
        return array
    if pa.types.is_floating(kind):
        array = array.cast(pa.float32()) if pa.types.is_float16(kind) else array
        array = _where(pc.invert(pc.is_nan(array)), array)
    if pa.types.is_timestamp(kind):
        return _iso_8601(array)
    return array.cast(pa.string())


def written(array: Array, field: "pa.Field[Any]") -> Array:
    """The cells as text in the form that a field asks for (spelling.columns), without one as Nelbo
    writes them."""
    array, spelling = plain(array), Spelling.of(field)
    if spelling.format and (pa.types.is_timestamp(array.type) or pa.types.is_date(array.type)):
        return dates.write(array, spelling.format)
    if spelling.words and pa.types.is_boolean(array.type):
        false, true = spelling.words
        return _where(array.is_valid(), pc.if_else(array, true, false))
    text = spelled(array)
    return (
        written_numbers.write(text, spelling.number)
        if spelling.number and not pa.types.is_string(array.type)
        else text
    )


def numbers(
    array: Array,
    missing: Sequence[str],
    format: NumberFormat | None = None,
    plain_first: bool = False,
    flags: bool = False,
) -> Cells:
    """Finite numbers. Faults: not-a-number, not-finite.

    format: how text is written; without one as programs write it. plain_first: see
    spelling.numbers.read. flags: true is 1 and false is 0.
    """
    array = plain(array)
    if flags:
        array = _flags_as_numbers(array)
    if pa.types.is_integer(array.type) or pa.types.is_float64(array.type):
        values = _float64(array.cast(pa.float64(), safe=False))
        values[np.isin(values, _as_numbers(missing))] = np.nan
        return Cells(values, _only({"not-finite": np.isinf(values)}))
    # Decimals and narrow floats go through their text too: that is how the same value stands in a
    # CSV file.
    text = spelled(array)
    format = format if pa.types.is_string(array.type) else None
    known = _known(text, missing)
    if format is not None and not format.is_plain:
        known = written_numbers.read(known, format, plain_first)
    try:
        values, strange = _float64(known.cast(pa.float64())), _none(array)
    except pa.ArrowInvalid:
        known = texts(known, missing)
        if format is not None and format.is_plain:
            known = written_numbers.read(known, format)
        proper = pc.match_substring_regex(known, _NUMBER)
        values = _float64(_where(proper, known).cast(pa.float64()))
        strange = _mask(pc.invert(proper))
    values[np.isin(values, _as_numbers(missing))] = np.nan
    return Cells(values, _only({"not-a-number": strange, "not-finite": np.isinf(values)}))


def _flags_as_numbers(array: Array) -> Array:
    """Arrow booleans, and text that says true or false, as 1 and 0."""
    if pa.types.is_boolean(array.type):
        return array.cast(pa.int64())
    if not pa.types.is_string(array.type):
        return array
    lower = pc.utf8_lower(pc.utf8_trim_whitespace(array))
    made: Array = pc.if_else(
        pc.equal(lower, "true"), "1", pc.if_else(pc.equal(lower, "false"), "0", array)
    )
    return made


def _as_numbers(missing: Sequence[str]) -> list[float]:
    """The numbers among the texts that mean missing, such as -9999."""
    return [float(text) for text in missing if re.fullmatch(r"[+-]?\d+(?:\.\d*)?", text)]


def integers(
    array: Array,
    missing: Sequence[str],
    format: NumberFormat | None = None,
    plain_first: bool = False,
) -> Cells:
    """Whole numbers below 2^53 in size; true and false are 1 and 0. Faults: those of numbers,
    not-an-integer, out-of-range."""
    cells = numbers(array, missing, format, plain_first, flags=True)
    size = np.abs(cells.values)
    broken = (size < EXACT) & (cells.values != np.rint(cells.values))
    large = (size >= EXACT) & np.isfinite(size)
    return Cells(
        cells.values, cells.faults | _only({"not-an-integer": broken, "out-of-range": large})
    )


def booleans(array: Array, missing: Sequence[str]) -> Cells:
    """1.0 for true, yes, t, y, 1 in any case, 0.0 for false, no, f, n, 0. Fault: not-a-boolean."""
    array = plain(array)
    if pa.types.is_boolean(array.type):
        return Cells(_float64(array.cast(pa.float64())))
    encoded = array.dictionary_encode()
    text = pc.utf8_lower(texts(encoded.dictionary, missing))
    true, false = (
        _mask(pc.is_in(text, pa.array(words)))
        for words in ((*TRUE, "1", "1.0"), (*FALSE, "0", "0.0"))
    )
    values = np.where(true, 1.0, np.where(false, 0.0, np.nan))
    strange = _mask(text.is_valid()) & ~true & ~false
    return Cells(
        _taken(values, encoded, np.nan), _only({"not-a-boolean": _taken(strange, encoded, False)})
    )


def codes(array: Array, missing: Sequence[str], categories: Sequence[str]) -> NDArray[np.int64]:
    """Index of each cell in categories, len(categories) for any other value, len(categories) + 1
    for missing."""
    encoded = plain(array).dictionary_encode()
    text = texts(encoded.dictionary, missing)
    known = pc.index_in(text, pa.array(categories, pa.string())).fill_null(len(categories))
    found = np.asarray(known, dtype=np.int64)
    found[_mask(text.is_null())] = len(categories) + 1
    unseen = np.flatnonzero(found == len(categories))
    if len(unseen) and len(categories):
        found[unseen] = _same_number(text.take(unseen), categories)
    return _taken(found, encoded, len(categories) + 1)


@dataclass(frozen=True)
class Times:
    """A column as microseconds since the epoch int64[n]; masks bool[n] of the cells with a value, a
    date, a zone."""

    micros: NDArray[np.int64]
    present: NDArray[np.bool_]
    dated: NDArray[np.bool_]
    zoned: NDArray[np.bool_]


def datetimes(
    array: Array, missing: Sequence[str], zone: str | None, format: str | None = None
) -> Cells:
    """Microseconds since the epoch, in UTC if zone, else naive. Faults: not-a-date, wrong-zone,
    out-of-range.

    A time is wrong-zone if it has a zone where naive ones are wanted, or none where one is wanted.
    What is finer than a microsecond is cut off. Years 1 to 9999; a microsecond that float64 does
    not hold becomes the next one that it does.
    """
    found = times(array, missing, format)
    if missing:
        declared = times(pa.array(missing, pa.string()), (), format)
        absent = np.isin(found.micros, declared.micros[declared.dated])
        found = Times(found.micros, found.present & ~absent, found.dated & ~absent, found.zoned)
    fits = (found.micros >= YEARS[0]) & (found.micros <= YEARS[1])
    micros = np.where(fits, found.micros, 0)
    values = micros.astype(np.float64)
    values = np.where(values.astype(np.int64) < micros, np.nextafter(values, np.inf), values)
    values[~found.dated] = np.nan
    wrong = found.dated & (found.zoned != (zone is not None))
    faults = {
        "not-a-date": found.present & ~found.dated,
        "wrong-zone": wrong,
        "out-of-range": found.dated & ~fits,
    }
    return Cells(values, _only(faults))


def times(array: Array, missing: Sequence[str], format: str | None = None) -> Times:
    """Dates of an Arrow type, ISO 8601 text, or text in a format of spelling.dates."""
    array = plain(array)
    if pa.types.is_timestamp(array.type) or pa.types.is_date(array.type):
        return _typed_times(array)
    text = texts(array, missing)
    if format is None or dates.is_iso(format):
        return _iso_times(text)
    pattern = dates.pattern(format)
    first = (
        _formatted_times(text, format)
        if pattern is None
        else _matched_times(text, _mask(text.is_valid()), pattern)
    )
    if first.dated.all() or not (first.present & ~first.dated).any():
        return first
    second = _iso_times(_where(pa.array(~first.dated), text))
    micros, zoned = (
        np.where(first.dated, one, two)
        for one, two in ((first.micros, second.micros), (first.zoned, second.zoned))
    )
    return Times(micros, first.present, first.dated | second.dated, zoned)


def _typed_times(array: Array) -> Times:
    ticks = array.cast(pa.int32()) if pa.types.is_date32(array.type) else array
    counts = np.asarray(ticks.cast(pa.int64()).fill_null(0))
    unit = "D" if pa.types.is_date32(array.type) else getattr(array.type, "unit", "ms")
    if unit == "ns":
        micros = counts // 1000
    else:
        size = {"D": 86_400_000_000, "s": 1_000_000, "ms": 1_000, "us": 1}[unit]
        # Out of range stays out of range, without an overflow.
        micros = np.clip(counts, YEARS[0] // size - 1, YEARS[1] // size + 1) * size
    present = _mask(array.is_valid())
    return Times(
        micros, present, present, np.full(len(array), getattr(array.type, "tz", None) is not None)
    )


def _iso_times(text: Array) -> Times:
    present = _mask(text.is_valid())
    for tz in (None, "UTC"):
        try:
            micros = text.cast(pa.timestamp("us", tz)).cast(pa.int64())
            return Times(
                np.asarray(micros.fill_null(0)),
                present,
                present,
                np.full(len(text), tz is not None),
            )
        except pa.ArrowInvalid:
            continue
    return _matched_times(text, present, _ISO_8601)


def _matched_times(text: Array, present: NDArray[np.bool_], pattern: str) -> Times:
    """The cells one by one, by a regular expression with a group for each part of a date."""
    parts = pc.extract_regex(text, pattern)
    dated = _mask(parts.is_valid())
    if not dated.any():
        return Times(np.zeros(len(text), np.int64), present, dated, dated)
    named = {parts.type.field(at).name: parts.field(at) for at in range(parts.type.num_fields)}
    none = np.zeros(len(text), np.int64)
    clock = {
        name: _whole(named[name]) if name in named else none
        for name in ("day", "hour", "minute", "second")
    }
    months = (_year(named) - 1970) * 12 + _month(named) - 1
    days = (
        months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) + clock["day"] - 1
    )
    same_month = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) == months
    valid = same_month & (_month(named) >= 1) & (_month(named) <= 12) & (clock["day"] >= 1)
    valid &= (clock["hour"] < 24) & (clock["minute"] < 60) & (clock["second"] < 60)
    hour = clock["hour"]
    if "half" in named:
        valid &= (hour >= 1) & (hour <= 12)
        hour = hour % 12 + 12 * _mask(pc.equal(pc.utf8_lower(named["half"]), "p"))
    seconds = ((days * 24 + hour) * 60 + clock["minute"]) * 60 + clock["second"]
    fraction = (
        _whole(pc.utf8_slice_codeunits(_padded(named["fraction"]), 0, 6))
        if "fraction" in named
        else none
    )
    zone = pc.utf8_trim_whitespace(named["zone"]) if "zone" in named else pa.array([""] * len(text))
    zoned = dated & valid & _mask(pc.greater(pc.utf8_length(zone), 0))
    dated = dated & valid
    return Times(
        np.where(dated, seconds * 1_000_000 + fraction - _offset(zone), 0), present, dated, zoned
    )


def _year(named: Mapping[str, Array]) -> NDArray[np.int64]:
    """Two digits are of the years 1969 to 2068, as POSIX has it."""
    if "year" in named:
        return _whole(named["year"])
    short = _whole(named["short_year"])
    return short + np.where(short < 69, 2000, 1900)


def _month(named: Mapping[str, Array]) -> NDArray[np.int64]:
    if "month" in named:
        return _whole(named["month"])
    names = list(dates.MONTHS)
    at = pc.index_in(pc.utf8_lower(named["month_name"]), value_set=pa.array(names)).fill_null(-1)
    found: NDArray[np.int64] = np.array([*dates.MONTHS.values(), 0], np.int64)[np.asarray(at)]
    return found


def _padded(fraction: Array) -> Array:
    digits: Array = pc.binary_join_element_wise(fraction, "000000", "")
    return digits


def _offset(zone: Array) -> NDArray[np.int64]:
    """Microseconds east of Greenwich of "+02", "+0200", "+02:00" or "Z"."""
    digits = pc.binary_join_element_wise(pc.replace_substring_regex(zone, r"[^\d]", ""), "0000", "")
    hours, minutes = (_whole(pc.utf8_slice_codeunits(digits, at, at + 2)) for at in (0, 2))
    west = _mask(pc.starts_with(zone, "-"))
    sign: NDArray[np.int64] = np.where(west, -60_000_000, 60_000_000)
    return sign * (hours * 60 + minutes)


def _formatted_times(text: Array, format: str) -> Times:
    encoded = text.dictionary_encode()
    found = [_formatted(value, format) for value in encoded.dictionary.to_pylist()]
    micros = np.array([0 if time is None else _micros(time) for time in found], np.int64)
    dated = np.array([time is not None for time in found], bool)
    zoned = np.array([time is not None and time.tzinfo is not None for time in found], bool)
    return Times(
        _taken(micros, encoded, 0),
        _mask(text.is_valid()),
        _taken(dated, encoded, False),
        _taken(zoned, encoded, False),
    )


def _formatted(text: str | None, format: str) -> datetime | None:
    try:
        return None if text is None else datetime.strptime(text, format)
    except ValueError:
        return None


def _micros(time: datetime) -> int:
    start = datetime(1970, 1, 1, tzinfo=None if time.tzinfo is None else UTC)
    return (time - start) // timedelta(microseconds=1)


def _iso_8601(array: Array) -> Array:
    """Timestamps as 2024-01-31T12:00:00.5, with a Z behind those that have a zone."""
    zone = "Z" if getattr(array.type, "tz", None) else ""
    text = pc.replace_substring(
        array.cast(pa.timestamp(array.type.unit)).cast(pa.string()), " ", "T", max_replacements=1
    )
    short: Array = pc.binary_join_element_wise(
        pc.replace_substring_regex(text, _ZEROS_BEHIND, r"\1"), zone, ""
    )
    return short


def are_digits(array: Array) -> NDArray[np.bool_]:
    """Whole numbers that are written out: an integer type, or text of nothing but digits and a
    sign."""
    if pa.types.is_integer(array.type):
        return np.ones(len(array), bool)
    return (
        _mask(pc.match_substring_regex(array, r"^[+-]?\d+$"))
        if pa.types.is_string(array.type)
        else _none(array)
    )


def have_leading_zeros(text: Array) -> NDArray[np.bool_]:
    """Numbers such as "007", which are names rather than amounts."""
    return _mask(
        pc.and_(
            pc.match_substring_regex(text, r"^[+-]?0\d"), pc.match_substring_regex(text, _NUMBER)
        )
    )


def _none(array: Array) -> NDArray[np.bool_]:
    return np.zeros(len(array), bool)


def _same_number(text: Array, categories: Sequence[str]) -> NDArray[np.int64]:
    """Index of the category that is the same number in another spelling ("3.0" for "3"), else
    len(categories)."""
    known, other = _plain_numbers(pa.array(categories, pa.string())), _plain_numbers(text)
    order = np.argsort(known, kind="stable")
    at = np.clip(np.searchsorted(known[order], other), 0, len(known) - 1)
    return np.where(known[order][at] == other, order[at], len(categories))


def _plain_numbers(text: Array) -> NDArray[np.float64]:
    """Numbers that float64 holds exactly enough to compare, NaN for other text; "007" is other
    text."""
    number = _mask(pc.match_substring_regex(text, _NUMBER)) & ~have_leading_zeros(text)
    values = _float64(_where(pa.array(number), text).cast(pa.float64()))
    return np.where(np.abs(values) < EXACT, values, np.nan)


def _known(text: Array, missing: Sequence[str]) -> Array:
    """The text, null where it is one of those that mean missing."""
    return _where(pc.invert(pc.is_in(text, value_set=pa.array(missing, pa.string()))), text)


def _where(mask: Array, array: Array) -> Array:
    """The array, null where the mask is not true."""
    kept: Array = pc.if_else(mask, array, pa.scalar(None, array.type))
    return kept


def _float64(array: Array) -> NDArray[np.float64]:
    # A copy: what callers get must be writable, and must not hold Arrow's memory.
    return np.array(array.fill_null(float("nan")), dtype=np.float64)


def _whole(digits: Array) -> NDArray[np.int64]:
    return np.asarray(pc.if_else(pc.equal(digits, ""), "0", digits).fill_null("0").cast(pa.int64()))


def _mask(array: Array) -> NDArray[np.bool_]:
    return np.asarray(array.fill_null(False), dtype=bool)


def _taken(values: NDArray[Any], encoded: Any, missing: object) -> NDArray[Any]:
    """The value of each cell, given the value of each distinct cell; `missing` where the cell is
    null."""
    indices = np.asarray(encoded.indices.fill_null(len(values)))
    spread: NDArray[Any] = np.append(values, np.array([missing], values.dtype))[indices]
    return spread


def _only(faults: dict[str, NDArray[np.bool_]]) -> dict[str, NDArray[np.bool_]]:
    return {code: mask for code, mask in faults.items() if mask.any()}

"""The meaning of a column's cells: missing, text, number, boolean or datetime, from any Arrow type.

All functions work on whole columns. Text is read without the white space around it, so that the
same values have the same meaning in CSV, JSON Lines, Parquet and Arrow. A column of another type is
converted to text and then read.
"""

import contextlib
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

pc: Any = pyarrow.compute  # its type stubs lack some of the argument types
Array: TypeAlias = "pa.Array[Any]"

EXACT = 2**53
"""float64 holds all whole numbers below this exactly."""
TRUE = ("true", "t", "yes", "y")
FALSE = ("false", "f", "no", "n")

_NUMBER = rf"{written_numbers.PLAIN}|^(?i:[+-]?(?:inf|infinity|nan))$"
_ZEROS_AT_END = r"\.0+$|(\.\d*?[1-9])0+$"
_ISO_8601 = (
    r"^(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)"
    r"(?:[Tt ](?P<hour>\d\d)(?::(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<fraction>\d+))?)?)?"
    rf"(?P<zone> ?(?:{dates.ZONES}))?)?$"
)
YEARS = (-62_135_596_800_000_000, 253_402_300_799_999_999)
"""The first and the last microsecond of the years 1 to 9999, counted from 1970."""


@dataclass(frozen=True)
class Cells:
    """A column as numbers.

    values: float64[n], NaN where missing. faults: for each error code a mask bool[n] of its cells.
    """

    values: NDArray[np.float64]
    faults: dict[str, NDArray[np.bool_]] = field(default_factory=dict)


def plain(array: Array) -> Array:
    """The same values without dictionary encoding, and every kind of string as pa.string()."""
    if pa.types.is_dictionary(array.type):
        encoded: Any = array  # the stubs do not know a DictionaryArray
        return plain(encoded.dictionary).take(encoded.indices)
    checks = (pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    if any(check(array.type) for check in checks):
        array = array.cast(pa.string())
    return array


def texts(array: Array, missing: Sequence[str]) -> Array:
    """The cells as trimmed text, null where missing.

    3.0 is "3", times are ISO 8601, booleans are "true" and "false".
    """
    return _present(pc.utf8_trim_whitespace(spelled(array)), missing)


def spelled(array: Array) -> Array:
    """The cells as text in Nelbo's own spelling; NaN is null."""
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
    """The cells as text in the spelling of a field (spelling.columns), else in Nelbo's own."""
    array = plain(array)
    spelling = Spelling.of(field)
    if spelling.format and (pa.types.is_timestamp(array.type) or pa.types.is_date(array.type)):
        return dates.write(array, spelling.format)
    if spelling.words and pa.types.is_boolean(array.type):
        false, true = spelling.words
        return _where(array.is_valid(), pc.if_else(array, true, false))
    text = spelled(array)
    if spelling.number is None or pa.types.is_string(array.type):
        return text
    return written_numbers.write(text, spelling.number)


def numbers(
    array: Array,
    missing: Sequence[str],
    format: NumberFormat | None = None,
    plain_first: bool = False,
    flags: bool = False,
) -> Cells:
    """Finite numbers. Faults: not-a-number, not-finite.

    format: how text is written; None is plain numbers. plain_first: see spelling.numbers.read.
    flags: true is 1 and false is 0.
    """
    array = plain(array)
    if flags:
        array = _flags_as_numbers(array)
    faults = {}
    if pa.types.is_integer(array.type) or pa.types.is_float64(array.type):
        values = _float64(array.cast(pa.float64(), safe=False))
    else:
        # Decimals and narrow floats become text too, so that they equal the same values in CSV.
        format = format if pa.types.is_string(array.type) else None
        text = _present(spelled(array), missing)
        values, faults["not-a-number"] = _parsed_numbers(text, missing, format, plain_first)
    values[np.isin(values, _missing_numbers(missing))] = np.nan
    return Cells(values, _only(faults | {"not-finite": np.isinf(values)}))


def _parsed_numbers(
    text: Array, missing: Sequence[str], format: NumberFormat | None, plain_first: bool
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The numbers of text cells, and a mask of the cells that hold no number."""
    if format is not None and not format.is_plain:
        text = written_numbers.read(text, format, plain_first)
    with contextlib.suppress(pa.ArrowInvalid):
        return _float64(text.cast(pa.float64())), _none(text)

    # Some cells are not as Arrow reads them.
    text = texts(text, missing)
    if format is not None and format.is_plain:
        text = written_numbers.read(text, format)
    is_number = pc.match_substring_regex(text, _NUMBER)
    values = _float64(_where(is_number, text).cast(pa.float64()))
    return values, _mask(pc.invert(is_number))


def _flags_as_numbers(array: Array) -> Array:
    """Arrow booleans, and the texts true and false, as 1 and 0."""
    if pa.types.is_boolean(array.type):
        return array.cast(pa.int64())
    if not pa.types.is_string(array.type):
        return array
    lower = pc.utf8_lower(pc.utf8_trim_whitespace(array))
    flags = pc.if_else(pc.equal(lower, "false"), "0", array)
    numbers: Array = pc.if_else(pc.equal(lower, "true"), "1", flags)
    return numbers


def _missing_numbers(missing: Sequence[str]) -> list[float]:
    """The numbers among the texts that mean missing, such as -9999."""
    return [float(text) for text in missing if re.fullmatch(r"[+-]?\d+(?:\.\d*)?", text)]


def integers(
    array: Array,
    missing: Sequence[str],
    format: NumberFormat | None = None,
    plain_first: bool = False,
) -> Cells:
    """Whole numbers between -2^53 and 2^53; true and false are 1 and 0.

    Faults: those of numbers, not-an-integer, out-of-range.
    """
    cells = numbers(array, missing, format, plain_first, flags=True)
    size = np.abs(cells.values)
    faults = {
        "not-an-integer": (size < EXACT) & (cells.values != np.rint(cells.values)),
        "out-of-range": (size >= EXACT) & np.isfinite(size),
    }
    return Cells(cells.values, cells.faults | _only(faults))


def booleans(array: Array, missing: Sequence[str]) -> Cells:
    """1.0 for true, yes, t, y, 1 in any case, 0.0 for false, no, f, n, 0. Fault: not-a-boolean."""
    array = plain(array)
    if pa.types.is_boolean(array.type):
        return Cells(_float64(array.cast(pa.float64())))
    encoded = array.dictionary_encode()
    text = pc.utf8_lower(texts(encoded.dictionary, missing))
    true = _mask(pc.is_in(text, pa.array((*TRUE, "1", "1.0"))))
    false = _mask(pc.is_in(text, pa.array((*FALSE, "0", "0.0"))))
    values = np.where(true, 1.0, np.where(false, 0.0, np.nan))
    other = _mask(text.is_valid()) & ~true & ~false
    faults = {"not-a-boolean": _taken(other, encoded, False)}
    return Cells(_taken(values, encoded, np.nan), _only(faults))


def codes(array: Array, missing: Sequence[str], categories: Sequence[str]) -> NDArray[np.int64]:
    """The index of each cell in categories.

    len(categories) means any other value, len(categories) + 1 means missing.
    """
    encoded = plain(array).dictionary_encode()
    text = texts(encoded.dictionary, missing)
    indices = pc.index_in(text, pa.array(categories, pa.string())).fill_null(len(categories))
    codes = np.asarray(indices, dtype=np.int64)
    codes[_mask(text.is_null())] = len(categories) + 1
    unseen = np.flatnonzero(codes == len(categories))
    if len(unseen) and len(categories):
        codes[unseen] = _same_number(text.take(unseen), categories)
    return _taken(codes, encoded, len(categories) + 1)


@dataclass(frozen=True)
class Times:
    """A column as datetimes.

    micros: int64[n], microseconds since 1970. present, dated, zoned: masks bool[n] of the cells
    that have a value, a date, a time zone.
    """

    micros: NDArray[np.int64]
    present: NDArray[np.bool_]
    dated: NDArray[np.bool_]
    zoned: NDArray[np.bool_]


def datetimes(
    array: Array, missing: Sequence[str], zone: str | None, format: str | None = None
) -> Cells:
    """Microseconds since 1970, in UTC if there is a zone, else naive.

    Faults: not-a-date, wrong-zone, out-of-range. A time is wrong-zone if it has a time zone and the
    column has none, or the reverse. Digits beyond microseconds are cut off. Years are 1 to 9999.
    A number of microseconds that float64 does not hold becomes the next one that it holds.
    """
    column = times(array, missing, format)
    if missing:
        column = _without(column, times(pa.array(missing, pa.string()), (), format))
    fits = (column.micros >= YEARS[0]) & (column.micros <= YEARS[1])
    micros = np.where(fits, column.micros, 0)
    values = micros.astype(np.float64)
    values = np.where(values.astype(np.int64) < micros, np.nextafter(values, np.inf), values)
    values[~column.dated] = np.nan
    faults = {
        "not-a-date": column.present & ~column.dated,
        "wrong-zone": column.dated & (column.zoned != (zone is not None)),
        "out-of-range": column.dated & ~fits,
    }
    return Cells(values, _only(faults))


def _without(times: Times, missing: Times) -> Times:
    """The times; those that mean missing are absent."""
    kept = ~np.isin(times.micros, missing.micros[missing.dated])
    return Times(times.micros, times.present & kept, times.dated & kept, times.zoned)


def times(array: Array, missing: Sequence[str], format: str | None = None) -> Times:
    """Dates of an Arrow type, ISO 8601 text, or text in a format of spelling.dates."""
    array = plain(array)
    if pa.types.is_timestamp(array.type) or pa.types.is_date(array.type):
        return _typed_times(array)
    text = texts(array, missing)
    if format is None or dates.is_iso(format):
        return _iso_times(text)
    pattern = dates.pattern(format)
    first = _formatted_times(text, format) if pattern is None else _matched_times(text, pattern)
    if not (first.present & ~first.dated).any():
        return first

    # The other cells may be ISO 8601.
    second = _iso_times(_where(pa.array(~first.dated), text))
    return Times(
        np.where(first.dated, first.micros, second.micros),
        first.present,
        first.dated | second.dated,
        np.where(first.dated, first.zoned, second.zoned),
    )


def _typed_times(array: Array) -> Times:
    ticks = array.cast(pa.int32()) if pa.types.is_date32(array.type) else array
    counts = np.asarray(ticks.cast(pa.int64()).fill_null(0))
    unit = "D" if pa.types.is_date32(array.type) else getattr(array.type, "unit", "ms")
    if unit == "ns":
        micros = counts // 1000
    else:
        size = {"D": 86_400_000_000, "s": 1_000_000, "ms": 1_000, "us": 1}[unit]
        # A time out of range stays out of range, without an overflow.
        micros = np.clip(counts, YEARS[0] // size - 1, YEARS[1] // size + 1) * size
    present = _mask(array.is_valid())
    zoned = np.full(len(array), getattr(array.type, "tz", None) is not None)
    return Times(micros, present, present, zoned)


def _iso_times(text: Array) -> Times:
    present = _mask(text.is_valid())
    for zone in (None, "UTC"):
        with contextlib.suppress(pa.ArrowInvalid):
            counts = text.cast(pa.timestamp("us", zone)).cast(pa.int64())
            micros = np.asarray(counts.fill_null(0))
            return Times(micros, present, present, np.full(len(text), zone is not None))
    return _matched_times(text, _ISO_8601)


def _matched_times(text: Array, pattern: str) -> Times:
    """Times by a regular expression with a group for each part of a date.

    It serves ISO 8601 and the formats of spelling.dates alike. datetime.fromisoformat knows ISO
    8601 alone, and strptime reads one cell in the time in which this reads six.
    """
    present = _mask(text.is_valid())
    groups = pc.extract_regex(text, pattern)
    matched = _mask(groups.is_valid())
    if not matched.any():
        return Times(np.zeros(len(text), np.int64), present, matched, matched)
    names = [groups.type.field(index).name for index in range(groups.type.num_fields)]
    parts = {name: groups.field(name) for name in names}

    days, is_day = _days(parts)
    seconds, is_time = _seconds(parts)
    dated = matched & is_day & is_time
    micros = (days * 86_400 + seconds) * 1_000_000 + _fraction(parts)
    zoned = np.zeros(len(text), bool)
    if "zone" in parts:
        zone = pc.utf8_trim_whitespace(parts["zone"])
        micros = micros - _offset(zone)
        zoned = dated & _mask(pc.greater(pc.utf8_length(zone), 0))
    return Times(np.where(dated, micros, 0), present, dated, zoned)


_Parts: TypeAlias = Mapping[str, Array]
"""The cells of each group of a date's pattern, by the name of the group."""


def _days(parts: _Parts) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Days since 1970, and a mask of the cells whose day is in the calendar."""
    month = _month(parts)
    day = _whole(parts["day"])
    months = (_year(parts) - 1970) * 12 + month - 1
    first_days = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    days = first_days + day - 1
    same_month = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) == months
    return days, same_month & (month >= 1) & (month <= 12) & (day >= 1)


def _seconds(parts: _Parts) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Seconds since midnight, and a mask of the cells whose time is on the clock."""
    none = np.zeros(len(parts["day"]), np.int64)
    hour, minute, second = (
        _whole(parts[name]) if name in parts else none for name in ("hour", "minute", "second")
    )
    is_time = (hour < 24) & (minute < 60) & (second < 60)
    if "half" in parts:
        is_time &= (hour >= 1) & (hour <= 12)
        hour = hour % 12 + 12 * _mask(pc.equal(pc.utf8_lower(parts["half"]), "p"))
    return (hour * 60 + minute) * 60 + second, is_time


def _year(parts: _Parts) -> NDArray[np.int64]:
    """Years. Two digits mean a year between 1969 and 2068, as in POSIX."""
    if "year" in parts:
        return _whole(parts["year"])
    short = _whole(parts["short_year"])
    return short + np.where(short < 69, 2000, 1900)


def _month(parts: _Parts) -> NDArray[np.int64]:
    if "month" in parts:
        return _whole(parts["month"])
    names = pa.array(list(dates.MONTHS))
    indices = pc.index_in(pc.utf8_lower(parts["month_name"]), value_set=names).fill_null(-1)
    numbers = np.array([*dates.MONTHS.values(), 0], np.int64)
    months: NDArray[np.int64] = numbers[np.asarray(indices)]
    return months


def _fraction(parts: _Parts) -> NDArray[np.int64] | int:
    """Microseconds from the digits behind the decimal sign; further digits are cut off."""
    if "fraction" not in parts:
        return 0
    digits = pc.binary_join_element_wise(parts["fraction"], "000000", "")
    return _whole(pc.utf8_slice_codeunits(digits, 0, 6))


def _offset(zone: Array) -> NDArray[np.int64]:
    """Microseconds east of Greenwich, of "+02", "+0200", "+02:00" or "Z"."""
    digits = pc.binary_join_element_wise(pc.replace_substring_regex(zone, r"[^\d]", ""), "0000", "")
    hours = _whole(pc.utf8_slice_codeunits(digits, 0, 2))
    minutes = _whole(pc.utf8_slice_codeunits(digits, 2, 4))
    west = _mask(pc.starts_with(zone, "-"))
    micros_per_minute: NDArray[np.int64] = np.where(west, -60_000_000, 60_000_000)
    return micros_per_minute * (hours * 60 + minutes)


def _formatted_times(text: Array, format: str) -> Times:
    """Times in a format of strptime that spelling.dates does not know."""
    encoded = text.dictionary_encode()
    moments = [_formatted(value, format) for value in encoded.dictionary.to_pylist()]
    micros = np.array([0 if moment is None else _micros(moment) for moment in moments], np.int64)
    dated = np.array([moment is not None for moment in moments], bool)
    zoned = np.array([moment is not None and moment.tzinfo is not None for moment in moments], bool)
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


def _micros(moment: datetime) -> int:
    start = datetime(1970, 1, 1, tzinfo=None if moment.tzinfo is None else UTC)
    return (moment - start) // timedelta(microseconds=1)


def _iso_8601(array: Array) -> Array:
    """Timestamps such as 2024-01-31T12:00:00.5, with a Z at the end if the type has a zone."""
    zone = "Z" if getattr(array.type, "tz", None) else ""
    text = array.cast(pa.timestamp(array.type.unit)).cast(pa.string())
    text = pc.replace_substring(text, " ", "T", max_replacements=1)
    text = pc.replace_substring_regex(text, _ZEROS_AT_END, r"\1")
    timestamps: Array = pc.binary_join_element_wise(text, zone, "")
    return timestamps


def are_digits(array: Array) -> NDArray[np.bool_]:
    """A mask of the whole numbers: all cells of an integer type, or text of digits and a sign."""
    if pa.types.is_integer(array.type):
        return np.ones(len(array), bool)
    if not pa.types.is_string(array.type):
        return _none(array)
    return _mask(pc.match_substring_regex(array, r"^[+-]?\d+$"))


def have_leading_zeros(text: Array) -> NDArray[np.bool_]:
    """A mask of the numbers such as "007", which are names rather than amounts."""
    starts_with_zero = pc.match_substring_regex(text, r"^[+-]?0\d")
    return _mask(pc.and_(starts_with_zero, pc.match_substring_regex(text, _NUMBER)))


def _none(array: Array) -> NDArray[np.bool_]:
    return np.zeros(len(array), bool)


def _same_number(text: Array, categories: Sequence[str]) -> NDArray[np.int64]:
    """The index of the category that is the same number in another spelling ("3.0" for "3").

    len(categories) if there is no such category.
    """
    numbers = _plain_numbers(pa.array(categories, pa.string()))
    values = _plain_numbers(text)
    order = np.argsort(numbers, kind="stable")
    positions = np.clip(np.searchsorted(numbers[order], values), 0, len(numbers) - 1)
    return np.where(numbers[order][positions] == values, order[positions], len(categories))


def _plain_numbers(text: Array) -> NDArray[np.float64]:
    """Numbers that float64 holds exactly enough to compare; NaN for other text, also for "007"."""
    is_number = _mask(pc.match_substring_regex(text, _NUMBER)) & ~have_leading_zeros(text)
    values = _float64(_where(pa.array(is_number), text).cast(pa.float64()))
    return np.where(np.abs(values) < EXACT, values, np.nan)


def _present(text: Array, missing: Sequence[str]) -> Array:
    """The text, null where it means missing."""
    return _where(pc.invert(pc.is_in(text, value_set=pa.array(missing, pa.string()))), text)


def _where(mask: Array, array: Array) -> Array:
    """The array, null where the mask is not true."""
    kept: Array = pc.if_else(mask, array, pa.scalar(None, array.type))
    return kept


def _float64(array: Array) -> NDArray[np.float64]:
    # A copy, because callers write to it and should not keep Arrow's memory alive.
    return np.array(array.fill_null(float("nan")), dtype=np.float64)


def _whole(digits: Array) -> NDArray[np.int64]:
    return np.asarray(pc.if_else(pc.equal(digits, ""), "0", digits).fill_null("0").cast(pa.int64()))


def _mask(array: Array) -> NDArray[np.bool_]:
    return np.asarray(array.fill_null(False), dtype=bool)


def _taken(values: NDArray[Any], encoded: Any, missing: object) -> NDArray[Any]:
    """The value of each cell, from the values of the distinct cells. missing: that of a null."""
    indices = np.asarray(encoded.indices.fill_null(len(values)))
    cell_values: NDArray[Any] = np.append(values, np.array([missing], values.dtype))[indices]
    return cell_values


def _only(faults: dict[str, NDArray[np.bool_]]) -> dict[str, NDArray[np.bool_]]:
    return {code: mask for code, mask in faults.items() if mask.any()}

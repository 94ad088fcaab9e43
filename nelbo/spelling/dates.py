"""How dates and times are written in text: formats of strptime, their detection, and writing.

`%-d`, `%-m`, `%-H` and `%-I`, which strptime lacks, are numbers without a leading zero. A format
that ends in `Z`, `UTC`, `GMT` or `+00:00` reads any time zone there.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from itertools import product
from typing import Any

import pyarrow as pa
import pyarrow.compute

from nelbo.spelling.numbers import TOLERATED

pc: Any = pyarrow.compute

TRIED = 5
"""The first values propose formats: this number of them. All values then choose one."""
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
MONTHS = {
    name.lower(): number for number, month in enumerate(_MONTHS, 1) for name in (month, month[:3])
} | {"sept": 9}
"""Numbers of the months by their English names, full and short."""
ZONES = r"(?i:Z|UTC|GMT)|[+-]\d\d(?::?\d\d)?"
_UTC = re.compile(r"(?:Z|UTC|GMT|[+]00:?00)$")
_DIRECTIVES = {
    "Y": r"(?P<year>\d{4})",
    "y": r"(?P<short_year>\d\d)",
    "m": r"(?P<month>\d{1,2})",
    "d": r"(?P<day>\d{1,2})",
    "b": r"(?P<month_name>[A-Za-z]{3,4})\.?",
    "B": r"(?P<month_name>[A-Za-z]{3,9})",
    "H": r"(?P<hour>\d{1,2})",
    "I": r"(?P<hour>\d{1,2})",
    "M": r"(?P<minute>\d\d)",
    "S": r"(?P<second>\d\d)",
    "f": r"(?P<fraction>\d{1,9})",
    "p": r"(?P<half>[AaPp])\.?[Mm]\.?",
    "z": rf"(?P<zone>{ZONES})",
    "a": r"[A-Za-z]{2,4}\.?",
    "A": r"[A-Za-z]{6,9}",
}
_DATES = """\
%Y-%m-%d  %Y/%m/%d  %Y.%m.%d
%m/%d/%Y  %d/%m/%Y  %d.%m.%Y  %m.%d.%Y  %d-%m-%Y  %m-%d-%Y
%m/%d/%y  %d/%m/%y  %d.%m.%y  %m.%d.%y  %d-%m-%y  %m-%d-%y
%d %b %Y  %d-%b-%Y  %d-%b-%y  %d/%b/%Y  %d. %b %Y  %d%b%Y  %b %d, %Y  %b %d %Y  %Y-%b-%d
%d %B %Y  %d. %B %Y  %B %d, %Y  %B %d %Y  %a, %d %b %Y  %a %b %d %Y  %A, %B %d, %Y  %A, %d %B %Y
%Y%m%d""".replace("\n", "  ").split("  ")
"""If two formats fit equally, the first wins: month first with slashes, else day first."""
_TIMES = ("%H:%M", "%H:%M:%S", "%H:%M:%S.%f", "%I:%M %p", "%I:%M:%S %p", "%I:%M%p", "%I:%M:%S%p")
_SUFFIXES = ("", *map("".join, product((" ", "T", ", "), _TIMES, ("", "%z", " %z"))))
"""The texts behind a date: nothing, or a time with or without a zone."""
_BOTH_NUMBERS = re.compile(r"%[md][/.-]%[md]")
_PLAUSIBLE = range(1900, 2101)
"""Eight digits are a date only in these years."""


@dataclass(frozen=True)
class DateGuess:
    """A format that fits a column's values.

    It is `certain` unless `other`, the same with day and month swapped, fits them as well.
    """

    format: str
    certain: bool
    other: str | None = None


@cache
def pattern(format: str) -> str | None:
    """A regular expression (RE2 and Python) with a group for each part of a date.

    None for a format that has other directives, or one of them twice.
    """
    zone = _UTC.search(format)
    regex = ""
    pieces = re.findall(r"([^%]+)|%-?(.)", format[: zone.start()] if zone else format)
    for literal, directive in pieces:
        if directive and directive not in _DIRECTIVES:
            return None
        regex += re.escape(literal) + _DIRECTIVES.get(directive, "")
    regex += f"(?P<zone>{ZONES})" if zone else ""
    names = re.findall(r"\?P<(\w+)>", regex)
    return f"^{regex}$" if len(set(names)) == len(names) else None


def is_iso(format: str) -> bool:
    """Whether dates in the format are ISO 8601, with a T or a blank before the time."""
    zone = r" ?(?:%z|Z|UTC|GMT|[+]00:?00)"
    return bool(re.fullmatch(rf"%Y-%m-%d(?:[T ]%H:%M(?::%S(?:\.%f)?)?(?:{zone})?)?", format))


def find(texts: Sequence[str], preferred: Sequence[str] = ()) -> DateGuess | None:
    """The format of a column's distinct values; None if they are not dates.

    preferred: formats that win if several fit.
    """
    counts = {
        format: sum(_is_date(text, format) for text in texts)
        for format in _candidates(texts[:TRIED])
    }
    most = max(counts.values(), default=0)
    if not most or most < (1 - TOLERATED) * len(texts):
        return None

    best = [format for format, count in counts.items() if count == most]
    format = next((format for format in best if format in preferred), best[0])
    swapped = _swapped(format)
    other = swapped if swapped != format and swapped in best else None
    return DateGuess(
        _as_written(texts, format),
        certain=other is None or format in preferred,
        other=None if other is None else _as_written(texts, other),
    )


def write(times: "pa.Array[Any]", format: str) -> "pa.Array[Any]":
    """Timestamps as text in a format; those with a zone in UTC."""
    micros = times.cast(pa.timestamp("us", getattr(times.type, "tz", None)), safe=False)
    naive = micros.cast(pa.timestamp("us"))
    seconds = pc.floor_temporal(naive, unit="second").cast(pa.timestamp("s"))
    pieces = [piece for piece in re.split(r"(%[fz]|%-[mdHI])", format) if piece]
    columns = [_written(naive, seconds, piece) for piece in pieces]
    texts: pa.Array[Any] = pc.binary_join_element_wise(*columns, "")
    return texts


def _written(naive: Any, seconds: Any, piece: str) -> Any:
    """Timestamps in one directive of a format, or the piece itself where it is none."""
    if piece == "%z":
        return "+0000"
    if piece == "%f":
        return _fraction(pc.subtract(naive, seconds.cast(pa.timestamp("us"))))
    if piece.startswith("%-"):
        padded = pc.strftime(seconds, f"%{piece[2]}", "C")
        return pc.replace_substring_regex(padded, r"^0(\d)", r"\1")
    return pc.strftime(seconds, piece, "C")


def _fraction(micros: Any) -> Any:
    """Fractions of a second: six digits, or three if all are whole milliseconds."""
    digits = pc.utf8_lpad(micros.cast(pa.int64()).cast(pa.string()), 6, "0")
    are_milliseconds = pc.all(pc.ends_with(digits, "000")).as_py()
    return pc.utf8_slice_codeunits(digits, 0, 3) if are_milliseconds else digits


def _candidates(texts: Sequence[str]) -> list[str]:
    """The formats that fit at least one of the texts."""
    formats: dict[str, None] = {}
    for text in texts:
        for day in _DATES:
            if _compiled(day.rstrip()).match(text):
                fitting = [day + suffix for suffix in _SUFFIXES if _parts(text, day + suffix)]
                formats.update(dict.fromkeys(fitting))
    return list(formats)


@cache
def _compiled(day: str) -> "re.Pattern[str]":
    """The pattern of a text that begins with a date."""
    return re.compile((pattern(day) or "").rstrip("$"))


def _parts(text: str, format: str) -> Mapping[str, str] | None:
    match = re.match(pattern(format) or r"(?!)", text)
    return match.groupdict() if match else None


def _is_date(text: str, format: str) -> bool:
    """Whether the text is a date in the format, and exists in the calendar."""
    parts = _parts(text, format)
    if parts is None:
        return False
    year = int(parts["year"]) if "year" in parts else 2000 + int(parts["short_year"])
    if "%Y%m%d" in format and year not in _PLAUSIBLE:
        return False
    try:
        date(year, _month(parts), int(parts["day"]))
    except ValueError:
        return False
    return _is_time(parts)


def _month(parts: Mapping[str, str]) -> int:
    if "month_name" in parts:
        return MONTHS.get(parts["month_name"].lower(), 0)
    return int(parts["month"])


def _is_time(parts: Mapping[str, str]) -> bool:
    hour = int(parts.get("hour", 0))
    if "half" in parts and not 1 <= hour <= 12:
        return False
    return hour < 24 and int(parts.get("minute", 0)) < 60


def _swapped(format: str) -> str:
    """The format with day and month swapped, if both are numbers beside each other."""
    if not _BOTH_NUMBERS.search(format):
        return format
    return re.sub(r"%[md]", lambda match: "%m" if match[0] == "%d" else "%d", format)


def _as_written(texts: Sequence[str], format: str) -> str:
    """The format with the zone's own name, and without leading zeros if the texts have none."""
    parts = [match for text in texts if (match := _parts(text, format))]
    for directive, name in (("m", "month"), ("d", "day"), ("H", "hour"), ("I", "hour")):
        if any(len(match.get(name) or "00") == 1 for match in parts):
            format = format.replace(f"%{directive}", f"%-{directive}")
    zones = {match.get("zone", "") for match in parts}
    zone = zones.pop() if len(zones) == 1 else "+00:00"
    return format.replace("%z", zone if _UTC.fullmatch(zone) else "+00:00")

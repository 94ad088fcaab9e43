"""How dates and times are written in text: formats as strptime has them, read, written and found.

Beside strptime's directives there are `%-d`, `%-m`, `%-H` and `%-I` for numbers without a leading
zero. A format that ends in `Z`, `UTC`, `GMT` or `+00:00` reads any time zone there.
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
"""Number of values that propose a format; all of them decide."""
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
MONTHS = {
    name.lower(): at for at, month in enumerate(_MONTHS, 1) for name in (month, month[:3])
} | {"sept": 9}
"""Numbers of the months by their English names, whole and short."""
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
"""Where two fit equally the first is taken: months first with slashes, days first with dots and
dashes."""
_TIMES = ("%H:%M", "%H:%M:%S", "%H:%M:%S.%f", "%I:%M %p", "%I:%M:%S %p", "%I:%M%p", "%I:%M:%S%p")
_SUFFIXES = (
    "",
    *(
        f"{gap}{time}{zone}"
        for gap, time, zone in product((" ", "T", ", "), _TIMES, ("", "%z", " %z"))
    ),
)
_BOTH_NUMBERS = re.compile(r"%[md][/.-]%[md]")
_PLAUSIBLE = range(1900, 2101)
"""Years of dates that are written as eight digits and nothing else."""


@dataclass(frozen=True)
class DateGuess:
    """A format that fits a column's values; `certain` unless `other`, with day and month exchanged,
    fits them as well."""

    format: str
    certain: bool
    other: str | None = None


@cache
def pattern(format: str) -> str | None:
    """A regular expression (RE2 and Python) with a group for each part; None for a format with
    other directives."""
    zone = _UTC.search(format)
    made = ""
    for literal, directive in re.findall(
        r"([^%]+)|%-?(.)", format[: zone.start()] if zone else format
    ):
        if directive and directive not in _DIRECTIVES:
            return None
        made += re.escape(literal) + _DIRECTIVES.get(directive, "")
    made += f"(?P<zone>{ZONES})" if zone else ""
    names = re.findall(r"\?P<(\w+)>", made)
    return f"^{made}$" if len(set(names)) == len(names) else None


def is_iso(format: str) -> bool:
    """Whether dates in the format are ISO 8601, with a T or a blank before the time."""
    return bool(
        re.fullmatch(
            r"%Y-%m-%d(?:[T ]%H:%M(?::%S(?:\.%f)?)?(?: ?(?:%z|Z|UTC|GMT|[+]00:?00))?)?", format
        )
    )


def find(texts: Sequence[str], preferred: Sequence[str] = ()) -> DateGuess | None:
    """The format of a column's distinct values, None if they are no dates. `preferred` formats win
    where several fit."""
    fitting = {
        format: sum(_is_date(text, format) for text in texts)
        for format in _candidates(texts[:TRIED])
    }
    most = max(fitting.values(), default=0)
    if not most or most < (1 - TOLERATED) * len(texts):
        return None
    best = [format for format, count in fitting.items() if count == most]
    chosen = next((format for format in best if format in preferred), best[0])
    other = next(
        (format for format in best if format != chosen and _exchanged(format) == chosen), None
    )
    own, its = (
        None if format is None else _as_written(texts, format) for format in (chosen, other)
    )
    assert own is not None, "a format was chosen"
    return DateGuess(own, certain=its is None or chosen in preferred, other=its)


def write(times: "pa.Array[Any]", format: str) -> "pa.Array[Any]":
    """Timestamps as text in a format; those with a zone in UTC."""
    micros = times.cast(pa.timestamp("us", getattr(times.type, "tz", None)), safe=False)
    naive = micros.cast(pa.timestamp("us"))
    second = pc.floor_temporal(naive, unit="second").cast(pa.timestamp("s"))
    pieces = [
        _written(naive, second, piece) for piece in re.split(r"(%[fz]|%-[mdHI])", format) if piece
    ]
    made: pa.Array[Any] = pc.binary_join_element_wise(*pieces, "")
    return made


def _written(naive: Any, second: Any, piece: str) -> Any:
    if piece == "%z":
        return "+0000"
    if piece == "%f":
        micros = (
            pc.subtract(naive, second.cast(pa.timestamp("us"))).cast(pa.int64()).cast(pa.string())
        )
        digits = pc.utf8_lpad(micros, 6, "0")
        milliseconds = pc.all(pc.ends_with(digits, "000")).as_py()
        return pc.utf8_slice_codeunits(digits, 0, 3) if milliseconds else digits
    if piece.startswith("%-"):
        return pc.replace_substring_regex(
            pc.strftime(second, f"%{piece[2]}", "C"), r"^0(\d)", r"\1"
        )
    return pc.strftime(second, piece, "C")


def _candidates(texts: Sequence[str]) -> list[str]:
    """Formats that one of the texts has."""
    found: dict[str, None] = {}
    for text in texts:
        for day in _DATES:
            if _compiled(day.rstrip()).match(text):
                found.update(
                    dict.fromkeys(
                        day + suffix for suffix in _SUFFIXES if _parts(text, day + suffix)
                    )
                )
    return list(found)


@cache
def _compiled(day: str) -> "re.Pattern[str]":
    """What a text that begins with a date matches."""
    return re.compile((pattern(day) or "").rstrip("$"))


def _parts(text: str, format: str) -> Mapping[str, str] | None:
    found = re.match(pattern(format) or r"(?!)", text)
    return found.groupdict() if found else None


def _is_date(text: str, format: str) -> bool:
    """Whether the text is a date of the calendar in the format."""
    parts = _parts(text, format)
    if parts is None:
        return False
    year = int(parts["year"]) if "year" in parts else 2000 + int(parts["short_year"])
    month = (
        MONTHS.get(parts["month_name"].lower(), 0) if "month_name" in parts else int(parts["month"])
    )
    if "%Y%m%d" in format and year not in _PLAUSIBLE:
        return False
    try:
        date(year, month, int(parts["day"]))
    except ValueError:
        return False
    hour = int(parts.get("hour", 0))
    return (
        hour < 24 and int(parts.get("minute", 0)) < 60 and ("half" not in parts or 1 <= hour <= 12)
    )


def _exchanged(format: str) -> str:
    """The format with day and month in each other's place."""
    return (
        re.sub(r"%[md]", lambda found: "%m" if found[0] == "%d" else "%d", format)
        if _BOTH_NUMBERS.search(format)
        else format
    )


def _as_written(texts: Sequence[str], format: str) -> str:
    """The format with the zone's own word, and without leading zeros where the texts have none."""
    parts = [found for text in texts if (found := _parts(text, format))]
    for directive, name in (("m", "month"), ("d", "day"), ("H", "hour"), ("I", "hour")):
        if any(len(found.get(name) or "00") == 1 for found in parts):
            format = format.replace(f"%{directive}", f"%-{directive}")
    zones = {found.get("zone", "") for found in parts}
    word = zones.pop() if len(zones) == 1 else "+00:00"
    return format.replace("%z", word if _UTC.fullmatch(word) else "+00:00")

"""How numbers are written in text: the decimal sign, groups of digits, currency signs and units."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

pc: Any = pyarrow.compute

Decimal = Literal[".", ","]
Group = Literal["", ",", ".", " ", "\u00a0", "\u202f", "'", "’"]

TOLERATED = 0.05
"""Share of a column's values that may break its kind or its format.

Each row with such a value becomes an error.
"""
LONGEST = 60
"""Maximum number of characters in a number, signs and units included."""
MOST_DIGITS = 6
"""A number with more decimals than these was computed, so their count is no format."""
READ_DIGITS = 6
"""People read this number of digits of a computed number."""
PLAIN = r"^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$"
"""A number as programs write it."""
MINUS = r"\-−"
"""Minus signs, for a class of a regular expression."""
_SPACES = " \u00a0\u202f"
_READINGS: tuple[tuple[Decimal, Group], ...] = (
    *((".", group) for group in ("", ",", " ", "\u00a0", "\u202f", "'", "’")),
    *((",", group) for group in ("", ".", " ", "\u00a0", "\u202f", "'", "’")),
)
"""Pairs of a decimal sign and a separator of groups, the most common first."""

_CURRENCIES = re.compile(
    "EUR|USD|GBP|JPY|CHF|CNY|INR|AUD|CAD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|BRL|MXN|ZAR|KRW|TRY|RUB|ILS"
    "|SGD|HKD|kr|Kr|Fr|Rs|zł|Kč"
)
_SUFFIX = r"(?:[^\W\d_]|[%‰°²³µ/.]|[\u20a0-\u20cf$£¥¢])"
_WRITTEN = re.compile(
    rf"(?P<open>\(?)[+{MINUS}]?\s*(?P<prefix>[^\d\s.,'’+{MINUS}()]{{0,4}}\.?\s*)[+{MINUS}]?"
    rf"(?P<body>[.,]?\d(?:[\d.,'’{_SPACES}]*\d)?[.,]?)(?:[eE][+-]?\d+)?"
    rf"(?P<suffix>\s*(?:{_SUFFIX}+(?: {_SUFFIX}+)?)?)\s*[{MINUS}]?\)?"
)


class NumberFormat(BaseModel):
    """How a column's numbers are written.

    `$1,250.00` has the prefix `$`, the group separator `,` and 2 `digits`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    decimal: Decimal = "."
    group: Group = ""
    prefix: Annotated[str, Field(max_length=LONGEST)] = ""
    suffix: Annotated[str, Field(max_length=LONGEST)] = ""
    digits: Annotated[int, Field(ge=0, le=LONGEST)] = 0
    """Minimum number of digits behind the decimal sign."""

    @property
    def is_plain(self) -> bool:
        """Whether every program can read such numbers."""
        return self == NumberFormat(digits=self.digits)

    @property
    def signs(self) -> tuple[Decimal, Group]:
        return self.decimal, self.group


_Signs = tuple[Decimal, Group]


@dataclass(frozen=True)
class NumberGuess:
    """A number format that fits a column's values.

    It is `certain` unless `other` fits as well, or no value has a decimal sign or a separator.
    """

    format: NumberFormat
    certain: bool
    other: NumberFormat | None = None


def read(text: "pa.Array[Any]", format: NumberFormat, plain_first: bool = False) -> "pa.Array[Any]":
    """Text with the numbers of a format as plain numbers (`1.234,5 €` as `1234.5`).

    Other text stays unchanged.

    plain_first: leave every plain number unchanged, also one that the format reads in another way.
    """
    parts = pc.extract_regex(text, _pattern(format))
    plain = _plain(parts, format)
    fits = pc.and_(parts.is_valid(), pc.match_substring_regex(plain, r"\d"))
    fits = pc.fill_null(fits, False)
    if plain_first:
        is_plain = pc.fill_null(pc.match_substring_regex(text, PLAIN), False)
        fits = pc.and_not(fits, is_plain)
    numbers: pa.Array[Any] = pc.if_else(fits, plain, text)
    return numbers


def _plain(parts: Any, format: NumberFormat) -> Any:
    """The plain numbers from the groups of _pattern."""
    signs = pc.binary_join_element_wise(
        parts.field("sign"), parts.field("inner"), parts.field("behind"), ""
    )
    is_negative = pc.or_(pc.equal(parts.field("open"), "("), pc.is_in(signs, pa.array(["-", "−"])))
    minus = pc.if_else(is_negative, "-", "")
    whole = parts.field("whole")
    if format.group:
        whole = pc.replace_substring_regex(whole, r"\D", "")
    fraction = parts.field("fraction")
    point = pc.if_else(pc.equal(fraction, ""), "", ".")
    return pc.binary_join_element_wise(minus, whole, point, fraction, parts.field("power"), "")


def rounded(text: str | None) -> str | None:
    """A plain number with a fraction, rounded to READ_DIGITS digits; other text unchanged.

    >>> rounded("820.8530296"), rounded("3750.0"), rounded("1,234.5678")
    ('820.853', '3750.0', '1,234.5678')
    """
    number = re.fullmatch(r"-?(\d+)\.(\d*[1-9])0*", text or "")
    if number is None or len(number[1] + number[2]) <= READ_DIGITS:
        return text
    return f"{float(number[0]):.{max(0, READ_DIGITS - len(number[1]))}f}"


def write(text: "pa.Array[Any]", format: NumberFormat) -> "pa.Array[Any]":
    """Text with plain numbers (`1234.5`) in a format (`1.234,50 €`).

    A number with an exponent stays plain.
    """
    parts = pc.extract_regex(text, r"^(?P<sign>-?)(?P<whole>\d+)(?:\.(?P<fraction>\d+))?$")
    whole = parts.field("whole")
    fraction = parts.field("fraction")
    if format.digits:
        fraction = pc.utf8_rpad(fraction, format.digits, "0")
    if format.group:
        reverse = pc.utf8_reverse(whole)
        reverse = pc.replace_substring_regex(reverse, r"(\d{3})", rf"\1{format.group}")
        whole = pc.utf8_reverse(pc.utf8_rtrim(reverse, format.group))
    point = pc.if_else(pc.equal(fraction, ""), "", format.decimal)
    pieces = parts.field("sign"), format.prefix, whole, point, fraction, format.suffix
    formatted = pc.binary_join_element_wise(*pieces, "")
    numbers: pa.Array[Any] = pc.if_else(parts.is_valid(), formatted, text)
    return numbers


def find(
    texts: Sequence[str], decimal: str | None = None, likely: str | None = None
) -> NumberGuess | None:
    """The format of a column's distinct values; None if they are not numbers.

    decimal: the only decimal sign to consider.
    likely: the decimal sign if the values, such as 1,234, leave it open.
    """
    enough = (1 - TOLERATED) * len(texts)
    if sum(map(_has_digit, texts)) < enough:
        return None

    # Currency signs and units
    parts = [part for part in map(_WRITTEN.fullmatch, texts) if part and _is_sound(part)]
    prefix = _common(part["prefix"] for part in parts)
    suffix = _common(part["suffix"].rstrip() for part in parts)
    bodies = [
        part["body"]
        for part in parts
        if part["prefix"].strip() in ("", prefix.strip())
        and part["suffix"].strip() in ("", suffix.strip())
    ]
    if not bodies or len(bodies) < enough or not _on_most(parts, prefix, suffix):
        return None

    # The decimal sign and the groups of digits
    affixes = NumberFormat(prefix=prefix, suffix=suffix)
    if all(body.isdigit() for body in bodies):
        sign: Decimal = "," if "," in (decimal, likely) else "."
        return NumberGuess(affixes.model_copy(update={"decimal": sign}), certain=False)
    readings = _best_readings(bodies, decimal, enough)
    if not readings:
        return None
    signs, other = _likeliest(readings, bodies, likely)
    return NumberGuess(
        _with_signs(affixes, signs, bodies),
        certain=other is None,
        other=None if other is None else _with_signs(affixes, other, bodies),
    )


def _best_readings(bodies: Sequence[str], decimal: str | None, enough: float) -> list[_Signs]:
    """The signs that read the most numbers, if they read enough of them."""
    counts = {
        signs: len(_of_form(bodies, *signs)) for signs in _READINGS if decimal in (None, signs[0])
    }
    most = max(counts.values(), default=0)
    return [signs for signs, count in counts.items() if count == most >= enough]


def _with_signs(affixes: NumberFormat, signs: _Signs, bodies: Sequence[str]) -> NumberFormat:
    decimal, group = signs
    digits = _least_digits(bodies, decimal, group)
    return affixes.model_copy(update={"decimal": decimal, "group": group, "digits": digits})


def _has_digit(text: str) -> bool:
    return any(sign.isdigit() for sign in text[:LONGEST]) and len(text) <= LONGEST


def _is_sound(part: "re.Match[str]") -> bool:
    """Whether the prefix is a currency sign, and an opening bracket is closed."""
    return _is_currency(part["prefix"]) and bool(part["open"]) == part[0].endswith(")")


def _pattern(format: NumberFormat) -> str:
    """A regular expression with a group for each part of a number in a format."""
    whole = _whole(format.group)
    if format.group and format.group in _SPACES:  # people do not see which blank it is
        whole = whole.replace(re.escape(format.group), f"[{_SPACES}]")
    decimal = re.escape(format.decimal)
    return (
        rf"^\s*(?P<open>\(?)(?P<sign>[+{MINUS}]?)\s*{_optional(format.prefix)}"
        rf"\s*(?P<inner>[+{MINUS}]?)(?P<whole>{whole})(?:{decimal}(?P<fraction>\d*))?"
        rf"(?P<power>(?:[eE][+-]?\d+)?)"
        rf"\s*{_optional(format.suffix)}\s*(?P<behind>[{MINUS}]?)\)?\s*$"
    )


def _optional(affix: str) -> str:
    return rf"(?:{re.escape(affix.strip())})?" if affix.strip() else ""


def _whole(group: str) -> str:
    """A regular expression of the digits before the decimal sign.

    Groups have three digits; as in India, groups before the last may have two. A number without
    groups matches too.
    """
    if not group:
        return r"\d*"
    separator = re.escape(group)
    return rf"[1-9]\d{{0,2}}(?:{separator}\d{{2,3}})*{separator}\d{{3}}|\d*"


def _of_form(bodies: Iterable[str], decimal: str, group: str) -> list[str]:
    form = re.compile(rf"(?:{_whole(group)})(?:{re.escape(decimal)}\d*)?")
    return [body for body in bodies if form.fullmatch(body)]


def _least_digits(bodies: Iterable[str], decimal: str, group: str) -> int:
    """The minimum number of decimals.

    It is the common number if all have the same (12.50), 1 if whole numbers too have a decimal
    (3.0 beside 2.25), else 0.
    """
    fractions = [body.partition(decimal)[2] for body in _of_form(bodies, decimal, group)]
    counts = {len(fraction) for fraction in fractions}
    if len(counts) == 1 and max(counts) <= MOST_DIGITS:
        return counts.pop()
    return int(0 not in counts and "0" in fractions)


def _is_currency(prefix: str) -> bool:
    text: str = prefix.strip().rstrip(".")
    return (
        not text
        or bool(_CURRENCIES.fullmatch(text))
        or any(unicodedata.category(sign) == "Sc" for sign in text)
    )


def _common(affixes: Iterable[str]) -> str:
    """The most frequent affix that is not blank."""
    counts = Counter(affix for affix in affixes if affix.strip())
    return counts.most_common(1)[0][0] if counts else ""


def _on_most(parts: Sequence["re.Match[str]"], prefix: str, suffix: str) -> bool:
    """Whether nearly all numbers have the currency sign or unit. Zeros may lack it."""
    bare = [
        part
        for part in parts
        if (prefix and not part["prefix"].strip()) or (suffix and not part["suffix"].strip())
    ]
    nonzero = [part for part in bare if part["body"].strip("0.,")]
    return len(nonzero) <= 2 * TOLERATED * len(parts)


def _likeliest(
    best: Sequence[_Signs], bodies: Sequence[str], likely: str | None
) -> tuple[_Signs, _Signs | None]:
    """The likeliest of equally good readings, and the one that gives other numbers, if any."""
    point = next((signs for signs in best if signs[0] == "."), None)
    comma = next((signs for signs in best if signs[0] == ","), None)
    if point is None or comma is None:
        return best[0], None
    if not any(sign in body for body in bodies for sign in ".,"):  # 1 234
        return (comma if likely == "," else point), None

    grouped, plain = (point, comma) if point[1] else (comma, point)
    whole = [body for body in bodies if body.isdigit()]
    if any(len(body) > 3 for body in whole):  # 12345 beside 2,528: digits are not in groups
        return plain, grouped
    padded = any(body.endswith("0") for body in bodies if not body.isdigit())
    # 2,500 beside 528: with zeros at the end, decimals would be on all numbers.
    if whole and (padded or grouped is point):
        return grouped, plain
    return (grouped, plain) if grouped[0] == (likely or ".") else (plain, grouped)


def decimals_of(distinct: NDArray[np.float64]) -> int:
    """Fewest digits after the point (MOST_DIGITS at most) that write every value exactly, else
    -1."""
    # Numbers near the largest float have no digits after the point.
    with np.errstate(over="ignore"):
        for digits in range(MOST_DIGITS + 1):
            if np.array_equal(np.round(distinct, digits), distinct):
                return digits
    return -1

"""How numbers are written in text: the decimal sign, groups of digits, currency signs and units."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.compute
from pydantic import BaseModel, ConfigDict, Field

pc: Any = pyarrow.compute

Decimal = Literal[".", ","]
Group = Literal["", ",", ".", " ", "\u00a0", "\u202f", "'", "’"]

TOLERATED = 0.05
"""Share of a column's values that may break its kind or its format; each of them makes its row an
error."""
LONGEST = 60
"""Characters of a number with all that stands around it."""
MOST_DIGITS = 6
"""More behind the decimal sign are the digits of a computed number."""
PLAIN = r"^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$"
"""A number as programs write it."""
MINUS = r"\-−"
"""Minus signs, for a class of a regular expression."""
_SPACES = " \u00a0\u202f"
_READINGS: tuple[tuple[Decimal, Group], ...] = (
    *((".", group) for group in ("", ",", " ", "\u00a0", "\u202f", "'", "’")),
    *((",", group) for group in ("", ".", " ", "\u00a0", "\u202f", "'", "’")),
)
"""A decimal sign and a separator of groups, the commonest first."""

_CURRENCIES = re.compile(
    "EUR|USD|GBP|JPY|CHF|CNY|INR|AUD|CAD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|BRL|MXN|ZAR|KRW|TRY|RUB|ILS|SGD|HKD|kr|Kr|Fr|Rs|zł|Kč"
)
_SUFFIX = r"(?:[^\W\d_]|[%‰°²³µ/.]|[\u20a0-\u20cf$£¥¢])"
_WRITTEN = re.compile(
    rf"(?P<open>\(?)[+{MINUS}]?\s*(?P<prefix>[^\d\s.,'’+{MINUS}()]{{0,4}}\.?\s*)[+{MINUS}]?"
    rf"(?P<body>[.,]?\d(?:[\d.,'’{_SPACES}]*\d)?[.,]?)(?:[eE][+-]?\d+)?"
    rf"(?P<suffix>\s*(?:{_SUFFIX}+(?: {_SUFFIX}+)?)?)\s*[{MINUS}]?\)?"
)


class NumberFormat(BaseModel):
    """How a column's numbers are written: `$1,250.00` has the prefix `$`, groups by `,` and at
    least 2 `digits`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decimal: Decimal = "."
    group: Group = ""
    prefix: Annotated[str, Field(max_length=LONGEST)] = ""
    suffix: Annotated[str, Field(max_length=LONGEST)] = ""
    digits: Annotated[int, Field(ge=0, le=LONGEST)] = 0
    """Number of digits behind the decimal sign that every number has at least."""

    @property
    def is_plain(self) -> bool:
        """Whether any program reads such numbers."""
        return self == NumberFormat(digits=self.digits)


_Signs = tuple[Decimal, Group]
AFFIXES = ("prefix", "suffix")


@dataclass(frozen=True)
class NumberGuess:
    """A number format that fits a column's values; `certain` unless `other` fits them as well, or
    none has a separator."""

    format: NumberFormat
    certain: bool
    other: NumberFormat | None = None


def read(text: "pa.Array[Any]", format: NumberFormat, plain_first: bool = False) -> "pa.Array[Any]":
    """Numbers in a format as plain ones (`1.234,5 €` as `1234.5`); whatever is not written so stays
    as it is.

    plain_first: leave every plain number alone, also one that the format reads in another way.
    """
    parts = pc.extract_regex(text, _pattern(format))
    minus = pc.or_(
        pc.equal(parts.field("open"), "("),
        pc.is_in(
            pc.binary_join_element_wise(
                *(parts.field(name) for name in ("sign", "inner", "behind")), ""
            ),
            pa.array(["-", "−"]),
        ),
    )
    whole = parts.field("whole")
    if format.group:
        whole = pc.replace_substring_regex(whole, r"\D", "")
    fraction = parts.field("fraction")
    point = pc.if_else(pc.equal(fraction, ""), "", ".")
    plain = pc.binary_join_element_wise(
        pc.if_else(minus, "-", ""), whole, point, fraction, parts.field("power"), ""
    )
    fits = pc.fill_null(pc.and_(parts.is_valid(), pc.match_substring_regex(plain, r"\d")), False)
    if plain_first:
        fits = pc.and_(fits, pc.invert(pc.fill_null(pc.match_substring_regex(text, PLAIN), False)))
    made: pa.Array[Any] = pc.if_else(fits, plain, text)
    return made


def write(text: "pa.Array[Any]", format: NumberFormat) -> "pa.Array[Any]":
    """Plain numbers (`1234.5`) in a format (`1.234,50 €`). A number with an exponent keeps its
    plain form."""
    parts = pc.extract_regex(text, r"^(?P<sign>-?)(?P<whole>\d+)(?:\.(?P<fraction>\d+))?$")
    whole, fraction = parts.field("whole"), parts.field("fraction")
    if format.digits:
        fraction = pc.utf8_rpad(fraction, format.digits, "0")
    if format.group:
        backwards = pc.replace_substring_regex(
            pc.utf8_reverse(whole), r"(\d{3})", rf"\1{format.group}"
        )
        whole = pc.utf8_reverse(pc.utf8_rtrim(backwards, format.group))
    point = pc.if_else(pc.equal(fraction, ""), "", format.decimal)
    pieces = parts.field("sign"), format.prefix, whole, point, fraction, format.suffix
    made: pa.Array[Any] = pc.if_else(
        parts.is_valid(), pc.binary_join_element_wise(*pieces, ""), text
    )
    return made


def find(
    texts: Sequence[str], decimal: str | None = None, likely: str | None = None
) -> NumberGuess | None:
    """The format of a column's distinct values, None if they are not numbers.

    decimal: the only decimal sign to consider. likely: the sign where one value alone, such as
    1,234, does not tell.
    """
    if sum(map(_has_digit, texts)) < (1 - TOLERATED) * len(texts):
        return None
    parts = [_WRITTEN.fullmatch(text) for text in texts]
    kept = [
        part
        for part in parts
        if part and _is_currency(part["prefix"]) and bool(part["open"]) == part[0].endswith(")")
    ]
    prefix, suffix = (
        _common(part[affix].rstrip() if affix == "suffix" else part[affix] for part in kept)
        for affix in AFFIXES
    )
    bodies = [
        part["body"]
        for part in kept
        if part["prefix"].strip() in ("", prefix.strip())
        and part["suffix"].strip() in ("", suffix.strip())
    ]
    enough = (1 - TOLERATED) * len(texts)
    if not bodies or len(bodies) < enough or not _held_by_most(kept, prefix, suffix):
        return None
    if all(body.isdigit() for body in bodies):
        sign: Decimal = "," if "," in (decimal, likely) else "."
        return NumberGuess(NumberFormat(decimal=sign, prefix=prefix, suffix=suffix), certain=False)
    fitting = {
        signs: len(_of_form(bodies, *signs)) for signs in _READINGS if decimal in (None, signs[0])
    }
    most = max(fitting.values(), default=0)
    if most < enough:
        return None
    chosen, other = _likeliest(
        [signs for signs, count in fitting.items() if count == most], bodies, likely
    )
    formats = [
        NumberFormat(
            decimal=sign,
            group=group,
            prefix=prefix,
            suffix=suffix,
            digits=_least_digits(bodies, sign, group),
        )
        for sign, group in (chosen, other or chosen)
    ]
    return NumberGuess(formats[0], certain=other is None, other=formats[1] if other else None)


def _has_digit(text: str) -> bool:
    return any(sign.isdigit() for sign in text[:LONGEST]) and len(text) <= LONGEST


def _pattern(format: NumberFormat) -> str:
    prefix, suffix = (
        rf"(?:{re.escape(affix.strip())})?" if affix.strip() else ""
        for affix in (format.prefix, format.suffix)
    )
    whole = _whole(format.group)
    if format.group and format.group in _SPACES:  # people do not see which blank it is
        whole = whole.replace(re.escape(format.group), f"[{_SPACES}]")
    return (
        rf"^\s*(?P<open>\(?)(?P<sign>[+{MINUS}]?)\s*{prefix}\s*(?P<inner>[+{MINUS}]?)"
        rf"(?P<whole>{whole})(?:{re.escape(format.decimal)}(?P<fraction>\d*))?(?P<power>(?:[eE][+-]?\d+)?)"
        rf"\s*{suffix}\s*(?P<behind>[{MINUS}]?)\)?\s*$"
    )


def _whole(group: str) -> str:
    """Digits before the decimal sign: in groups of three, as in India of two before the last, or
    without groups."""
    if not group:
        return r"\d*"
    separator = re.escape(group)
    return rf"[1-9]\d{{0,2}}(?:{separator}\d{{2,3}})*{separator}\d{{3}}|\d*"


def _of_form(bodies: Iterable[str], decimal: str, group: str) -> list[str]:
    form = re.compile(rf"(?:{_whole(group)})(?:{re.escape(decimal)}\d*)?")
    return [body for body in bodies if form.fullmatch(body)]


def _least_digits(bodies: Iterable[str], decimal: str, group: str) -> int:
    """As many as all numbers have (12.50), one where whole numbers have a point too (3.0 beside
    2.25), else none."""
    fractions = [body.partition(decimal)[2] for body in _of_form(bodies, decimal, group)]
    counts = {len(fraction) for fraction in fractions}
    if len(counts) == 1 and max(counts) <= MOST_DIGITS:
        return counts.pop()
    return int(0 not in counts and "0" in fractions)


def _is_currency(prefix: str) -> bool:
    sign: str = prefix.strip().rstrip(".")
    return (
        not sign
        or bool(_CURRENCIES.fullmatch(sign))
        or any(unicodedata.category(one) == "Sc" for one in sign)
    )


def _common(affixes: Iterable[str]) -> str:
    counted = Counter(affix for affix in affixes if affix.strip())
    return counted.most_common(1)[0][0] if counted else ""


def _held_by_most(parts: Sequence["re.Match[str]"], prefix: str, suffix: str) -> bool:
    """Whether a currency sign or unit is on nearly all numbers; zeros often go without."""
    bare = [
        part
        for part in parts
        if (prefix and not part["prefix"].strip()) or (suffix and not part["suffix"].strip())
    ]
    return len([part for part in bare if part["body"].strip("0.,")]) <= 2 * TOLERATED * len(parts)


def _likeliest(
    best: Sequence[_Signs], bodies: Sequence[str], likely: str | None
) -> tuple[_Signs, _Signs | None]:
    """The likeliest of equally good readings, and the one that gives other numbers, where there is
    one."""
    point, comma = (
        next((signs for signs in best if signs[0] == sign), None) for sign in (".", ",")
    )
    if point is None or comma is None:
        return best[0], None
    if not any(sign in body for body in bodies for sign in ".,"):  # 1 234
        return (comma if likely == "," else point), None
    grouped, plain = (point, comma) if point[1] else (comma, point)
    whole = [body for body in bodies if body.isdigit()]
    if any(len(body) > 3 for body in whole):  # 12345 beside 2,528: digits are not in groups
        return plain, grouped
    padded = any(body.endswith("0") for body in bodies if not body.isdigit())
    if whole and (
        padded or grouped is point
    ):  # 2,500 beside 528: decimals would be filled in both or in neither
        return grouped, plain
    return (grouped, plain) if grouped[0] == (likely or ".") else (plain, grouped)

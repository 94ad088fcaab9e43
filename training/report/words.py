"""Values as people read them: numbers, shares, and texts of users that must not break a line or a
layout."""

import math
from collections.abc import Iterator, Sequence
from itertools import count as count_from

JOINERS = "\u200c\u200d"
"""Characters without a width that belong to words (Persian, Hindi) and emoji."""


def with_commas(n: int) -> str:
    return f"{n:,}"


def nats(value: float) -> str:
    """Two decimals, fewer for large values, and a real minus sign."""
    if not math.isfinite(value):
        return "not finite"
    decimals = 2 if abs(value) < 1e3 else 1 if abs(value) < 1e4 else 0
    text = f"{value:,.{decimals}f}" if abs(value) < 1e7 else f"{value:.3g}"
    return _with_minus(text)


def _with_minus(text: str) -> str:
    return "0.00" if text == "-0.00" else text.replace("-", "−")


def percent(value: float) -> str:
    """A percentage, given in percent, with one decimal: 0.04 is "< 0.1 %"."""
    if 0 < value < 0.05:
        return "< 0.1 %"
    return f"{value:.1f} %"


def share(value: float) -> str:
    """A share between 0 and 1 as a percentage."""
    return percent(100 * value)


def small(value: float) -> str:
    """A p-value or another number where two digits are enough."""
    return f"{value:.2g}"


def signed(value: float) -> str:
    """An association with two decimals and a real minus sign."""
    return _with_minus(f"{value:.2f}")


def of(n: int, one: str, many: str | None = None) -> str:
    """1 row, 2 rows."""
    return f"{with_commas(n)} {one if n == 1 else many or one + 's'}"


def shown(text: str, most: int = 60) -> str:
    """A user's text in one line: what cannot be printed is replaced, what is too long is cut in the
    middle."""
    if len(text) > most:
        tail = most // 3
        text = text[: most - 1 - tail] + "…" + text[-tail:]
    return "".join(c if c.isprintable() or c in JOINERS else "\ufffd" for c in text)


def distinct(names: Sequence[str], most: int = 60) -> Iterator[str]:
    """Names as shown, with a number behind those that would look alike: an axis must not merge
    them."""
    taken: set[str] = set()
    for name in names:
        look = shown(name, most) or "(empty)"
        label = look
        for number in count_from(2):
            if label not in taken:
                break
            label = f"{look} ({number})"
        taken.add(label)
        yield label

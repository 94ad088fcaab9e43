"""Misspelt categories: the known category that a new text was probably meant to be."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

SHORTEST = 3
"""Texts with fewer characters are one letter away from too many others."""
LONGEST = 64
"""Longer texts are compared but for case and blanks only: each character takes memory."""
MOST = 2_000
"""Maximum number of categories of a vocabulary."""


@dataclass(frozen=True)
class Match:
    """A known category that a text is near to. `same` is true where the two differ only in case and
    blanks; else they differ by one edit."""

    category: str
    same: bool


class Vocabulary:
    """The known categories of a column.

    >>> Vocabulary(["CESSNA", "BOEING"]).nearest("CESNA")
    Match(category='CESSNA', same=False)
    >>> Vocabulary(["CESSNA", "BOEING"]).nearest(" cessna")
    Match(category='CESSNA', same=True)
    """

    def __init__(self, categories: Iterable[str]) -> None:
        """At most MOST categories are taken, the first ones. Of two categories that are equally
        near, the first one is the match."""
        self._same: dict[str, list[str]] = defaultdict(list)
        self._near: dict[str, list[str]] = defaultdict(list)
        for category in islice(categories, MOST):
            folded = fold(category)
            self._same[folded].append(category)
            if SHORTEST <= len(folded) <= LONGEST:
                for shorter in _shorter(folded):
                    self._near[shorter].append(category)

    def nearest(self, text: str) -> Match | None:
        """The category that equals the text but for case and blanks or, if there is none, one that
        is one edit away: a letter dropped, added or replaced, or two neighbours exchanged. The text
        itself is never the match."""
        folded = fold(text)
        for category in self._same.get(folded, ()):
            if category != text:
                return Match(category, same=True)
        if not SHORTEST - 1 <= len(folded) <= LONGEST + 1:
            return None
        # Two texts that are one edit apart become equal if at most one letter of each is dropped.
        for shorter in _shorter(folded):
            for category in self._near.get(shorter, ()):
                if category != text and _is_one_edit(folded, fold(category)):
                    return Match(category, same=False)
        return None


def fold(text: str) -> str:
    """The text in lower case, with single blanks."""
    return " ".join(text.casefold().split())


def _shorter(text: str) -> Iterator[str]:
    """The text, and the text without each of its letters."""
    yield text
    for i in range(len(text)):
        yield text[:i] + text[i + 1 :]


def _is_one_edit(a: str, b: str) -> bool:
    """Whether two texts differ by one letter, or by two neighbouring letters exchanged."""
    if len(a) > len(b):
        a, b = b, a
    start = next((i for i, letter in enumerate(a) if letter != b[i]), len(a))
    rest_a = a[start:]
    rest_b = b[start:]
    if len(a) < len(b):
        return rest_a == rest_b[1:]
    exchanged = rest_a[1:2] + rest_a[:1] + rest_a[2:]
    return rest_a != rest_b and (rest_a[1:] == rest_b[1:] or exchanged == rest_b)

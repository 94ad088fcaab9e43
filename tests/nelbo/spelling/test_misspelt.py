"""Misspelt categories are matched with the known one that they are near to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nelbo.spelling.misspelt import LONGEST, MOST, Match, Vocabulary

KNOWN = ["CESSNA", "BOEING", "Embraer", "EWR", "New York"]


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("CESNA", "CESSNA"),
        ("CESSSNA", "CESSNA"),
        ("CESSMA", "CESSNA"),
        ("CESSAN", "CESSNA"),
        ("ESSNA", "CESSNA"),
        ("CESSN", "CESSNA"),
        ("XCESSNA", "CESSNA"),
        ("EW", "EWR"),
        ("newyork", "New York"),
    ],
)
def test_a_text_that_is_one_edit_away_is_matched(text: str, category: str) -> None:
    assert Vocabulary(KNOWN).nearest(text) == Match(category, same=False)


@pytest.mark.parametrize("text", ["cessna", "  CESSNA ", "new  york", "EMBRAER"])
def test_a_text_that_differs_in_case_or_blanks_is_the_same(text: str) -> None:
    match = Vocabulary(KNOWN).nearest(text)
    assert match is not None
    assert match.same


@pytest.mark.parametrize("text", ["", "E", "CSNA", "CESSNA CITATION", "AIRBUS", "EWRRR"])
def test_a_text_that_is_farther_away_has_no_match(text: str) -> None:
    assert Vocabulary(KNOWN).nearest(text) is None


def test_a_category_is_not_its_own_match_but_that_of_another_spelling() -> None:
    assert Vocabulary(KNOWN).nearest("CESSNA") is None
    assert Vocabulary([*KNOWN, "Cessna"]).nearest("CESSNA") == Match("Cessna", same=True)


@given(st.text("abcdeXYZ", min_size=3, max_size=LONGEST), st.data())
def test_any_letter_may_be_dropped(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text) - 1))
    assert Vocabulary([text]).nearest(text[:at] + text[at + 1 :]) == Match(text, same=False)


def test_long_texts_and_many_categories_take_little_memory() -> None:
    long = "a" * (LONGEST + 2)
    assert Vocabulary([long]).nearest("a" * (LONGEST + 1)) is None
    assert Vocabulary([long]).nearest("A" * (LONGEST + 2)) == Match(long, same=True)
    many = Vocabulary(f"category {number}" for number in range(10 * MOST))
    assert many.nearest(f"category {10 * MOST - 1}x") is None

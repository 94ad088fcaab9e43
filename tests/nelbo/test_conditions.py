"""Rows have categories by the shares that are asked for, and odds are put in words."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nelbo.conditions import Shares, words_of
from nelbo.schema import Column


@given(
    weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=4),
    first=st.integers(0, 10**9),
    rows=st.integers(1, 2_000),
)
def test_any_run_of_rows_has_categories_by_their_weights(
    weights: list[float], first: int, rows: int
) -> None:
    shares = Shares(
        Column(name="label", kind="categorical", categories=tuple("abcd")),
        tuple(range(len(weights))),
        tuple(weights),
    )
    places = shares.of_rows(np.arange(first, first + rows))
    counts = np.bincount(places, minlength=len(weights))
    assert np.abs(counts - rows * np.array(weights) / sum(weights)).max() < 2 + np.log(rows)


def test_the_odds_are_told_in_words() -> None:
    odds = {"rows_tried": 16_384, "rows_met": 200, "effective_sample_size": 200}
    assert words_of(odds) == (
        "probability of the conditions: 0.012 (200 of 16,384 rows without conditions meet them);"
        " effective sample size 200"
    )
    assert "fewer than 1 in 16,384" in words_of(odds | {"rows_met": 0})

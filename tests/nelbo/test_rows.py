"""Scores as a table and as the least likely rows; errors as what they are sent and written as."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nelbo.rows import SCORES, Rank, RowError, Scores


def scores_of(nelbo: list[float], columns: tuple[str, ...] = ("a", "kl")) -> Scores:
    """Scores of rows 10, 11, 12 …; column k costs a (k + 2)th of the nelbo, of which its surprise
    is the negative."""
    n = len(nelbo)
    values = np.array(nelbo, dtype=np.float64)
    terms = np.stack([values / (k + 2) for k in range(len(columns))], axis=1)
    rows = np.arange(10, 10 + n)
    p_value = (1 + np.arange(n)) / (1 + n)
    kl = values - terms.sum(1)
    return Scores(rows, values, 7.0 - values, p_value, kl, terms, -terms, columns)


def test_scores_are_a_table_with_a_term_for_each_column_where_they_are_explained() -> None:
    scores = scores_of([6.0, 12.0])
    plain = scores.to_batch(threshold=0.5)
    assert plain.schema == SCORES == Scores.schema(None)
    assert plain.schema.names == ["row", "nelbo", "surprise", "p_value", "anomaly"]
    assert plain["row"].to_pylist() == [10, 11]
    assert plain["surprise"].to_pylist() == [1.0, -5.0]
    assert plain["anomaly"].to_pylist() == [True, False]

    explained = scores.to_batch(threshold=0.5, explain=True)
    assert explained.schema == Scores.schema(scores.columns)
    cells = ["term_a", "term_kl", "kl", "surprise_a", "surprise_kl"]
    assert explained.schema.names == [*SCORES.names, *cells]
    assert explained.select(SCORES.names).equals(plain)
    assert [explained[name].to_pylist() for name in cells] == [
        [3.0, 6.0],
        [2.0, 4.0],
        [1.0, 2.0],
        [-3.0, -6.0],
        [-2.0, -4.0],
    ]


@pytest.mark.parametrize("explain", [True, False])
def test_no_scores_are_an_empty_table_of_the_same_schema(explain: bool) -> None:
    scores = scores_of([])
    batch = scores.to_batch(0.5, explain)
    assert batch.num_rows == 0
    assert batch.schema == Scores.schema(scores.columns if explain else None)
    assert scores.top(3) == []


def test_without_a_threshold_nobody_knows_what_is_an_anomaly() -> None:
    scores = scores_of([1.0, 2.0])
    assert scores.to_batch(None)["anomaly"].to_pylist() == [None, None]
    assert [anomaly.anomaly for anomaly in scores.top(2)] == [None, None]


def test_scores_without_terms_are_the_same_table() -> None:
    scores = scores_of([1.0, 2.0])
    bare = Scores.without_terms(scores.rows, scores.nelbo, scores.surprise, scores.p_value)
    assert bare.to_batch(0.5).equals(scores.to_batch(0.5))


@given(
    st.lists(st.integers(0, 5).map(float), max_size=20),
    st.integers(0, 25),
    st.sampled_from([-np.inf, 3.0]),
    st.sampled_from(["surprise", "nelbo"]),
)
def test_the_top_rows_are_those_that_the_rank_puts_first_and_of_equal_ones_the_first(
    nelbo: list[float], most: int, at_least: float, rank: Rank
) -> None:
    values = nelbo if rank == "nelbo" else [7.0 - value for value in nelbo]
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))
    first = [10 + i for i in order[:most] if values[i] >= at_least]
    top = scores_of(nelbo).top(most, at_least, rank)
    assert [anomaly.row for anomaly in top] == first
    assert rank == "nelbo" or scores_of(nelbo).top(most, at_least) == top, "the default"
    for anomaly in top:
        assert anomaly.nelbo == nelbo[anomaly.row - 10]
        assert anomaly.surprise == 7.0 - anomaly.nelbo
        assert anomaly.terms == {"a": anomaly.nelbo / 2, "kl": anomaly.nelbo / 3}
        assert anomaly.surprises == {name: -term for name, term in anomaly.terms.items()}
        assert sum(anomaly.terms.values()) + anomaly.kl == pytest.approx(anomaly.nelbo)


def test_the_highest_columns_are_those_of_the_most_surprising_cells() -> None:
    (row,) = scores_of([6.0]).top(1)
    assert row.highest(1) == [("kl", -2.0)]
    assert row.highest(9) == [("kl", -2.0), ("a", -3.0)], "though a has the larger term"
    assert list(row.surprises) == ["kl", "a"]
    assert list(row.terms) == ["a", "kl"]


def test_a_row_error_stays_as_it_is() -> None:
    error = RowError(row=3, column=None, code="not-finite", message="too far")
    assert error.model_dump() == {
        "row": 3,
        "column": None,
        "code": "not-finite",
        "message": "too far",
    }
    with pytest.raises(ValidationError, match="frozen"):
        error.row = 4  # type: ignore[misc]  # that it cannot be set is what is tested

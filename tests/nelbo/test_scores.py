"""Scores as a table, and the threshold of an anomaly."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nelbo.scores import SCORES, count, score_batch, score_schema, threshold_of

P_VALUES = st.lists(st.integers(1, 100).map(lambda rank: rank / 100), max_size=60)


def test_without_a_bound_on_false_discoveries_the_threshold_is_alpha() -> None:
    assert threshold_of(Counter({0.5: 3}), 0.01, None) == 0.01


@given(P_VALUES, st.sampled_from([0.01, 0.1, 0.5]))
def test_the_threshold_rejects_what_benjamini_and_hochberg_reject(p_values: list[float], fdr: float) -> None:
    ordered = np.sort(p_values)
    small = np.flatnonzero(ordered * len(ordered) <= fdr * np.arange(1, len(ordered) + 1))
    wanted = ordered[: small[-1] + 1] if len(small) else ordered[:0]
    found = threshold_of(Counter(p_values), 0.9, fdr)
    assert [p_value for p_value in ordered if p_value <= found] == wanted.tolist()


@given(P_VALUES, P_VALUES)
def test_p_values_are_counted_chunk_by_chunk_as_all_at_once(first: list[float], second: list[float]) -> None:
    counted: Counter[float] = Counter()
    for part in (first, second):
        count(counted, np.array(part))
    assert counted == Counter(first + second)


@pytest.mark.parametrize("columns", [None, (), ("a", "kl")])
def test_a_batch_has_its_schema_with_terms_named_by_their_columns(columns: tuple[str, ...] | None) -> None:
    terms = np.arange(2.0 * len(columns or ())).reshape(2, -1)
    batch = score_batch(np.arange(2), np.ones(2), np.array([0.005, 0.5]), 0.01, columns, terms, np.zeros(2))
    assert batch.schema == score_schema(columns)
    assert batch.schema.names[:4] == SCORES.names
    assert batch["anomaly"].to_pylist() == [True, False]
    if columns:
        assert batch["term_kl"].to_pylist() == [1.0, 3.0]


def test_without_a_threshold_nobody_knows_what_is_an_anomaly() -> None:
    assert score_batch(np.arange(2), np.ones(2), np.ones(2), None)["anomaly"].to_pylist() == [None, None]

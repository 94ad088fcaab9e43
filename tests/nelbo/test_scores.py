"""P-values of scores with and without a tail, and the threshold of an anomaly."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nelbo.artifact import REACH, Calibration, Tail
from nelbo.scores import (
    count_p_values,
    out_of_reach,
    p_values,
    pareto_beyond,
    rows_for,
    threshold_of,
)

P_VALUES = st.lists(st.integers(1, 100).map(lambda rank: rank / 100), max_size=60)


def test_without_a_bound_on_false_discoveries_the_threshold_is_alpha() -> None:
    assert threshold_of(Counter({0.5: 3}), 0.01, None) == 0.01


@given(P_VALUES, st.sampled_from([0.01, 0.1, 0.5]))
def test_the_threshold_rejects_what_benjamini_and_hochberg_reject(
    p_values: list[float], fdr: float
) -> None:
    ordered = np.sort(p_values)
    small = np.flatnonzero(ordered * len(ordered) <= fdr * np.arange(1, len(ordered) + 1))
    wanted = ordered[: small[-1] + 1] if len(small) else ordered[:0]
    found = threshold_of(Counter(p_values), 0.9, fdr)
    assert [p_value for p_value in ordered if p_value <= found] == wanted.tolist()


@given(P_VALUES, P_VALUES)
def test_p_values_are_counted_chunk_by_chunk_as_all_at_once(
    first: list[float], second: list[float]
) -> None:
    counted: Counter[float] = Counter()
    for part in (first, second):
        count_p_values(counted, np.array(part))
    assert counted == Counter(first + second)


N = 999
CALIBRATION = np.sort(np.random.default_rng(0).exponential(size=N))
THRESHOLD = float(CALIBRATION[949])
SHAPES = {"heavy": 0.5, "exponential": 0.0, "bounded": -0.4}
"""The bounded one ends 2.5 scales above the threshold, which is above the highest score."""


def tail(shape: float, scale: float = 3.0) -> Tail:
    return Tail(
        threshold=THRESHOLD, excesses=50, components=((1.0, shape, scale),), fit=0.5, used=True
    )


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_tail_changes_no_p_value_that_counts_can_give(shape: float) -> None:
    nelbo = np.concatenate([CALIBRATION, np.linspace(-1, CALIBRATION[-1], 5_000)])
    assert np.array_equal(p_values(nelbo, CALIBRATION, tail(shape)), p_values(nelbo, CALIBRATION))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_beyond_the_counts_p_values_fall_without_a_jump_and_never_to_0(shape: float) -> None:
    nelbo = CALIBRATION[-1] + np.concatenate(
        [[0.0, 1e-9], np.linspace(1e-3, 20, 100_000), [1e9, 1e300]]
    )
    found = p_values(nelbo, CALIBRATION, tail(shape))
    assert (np.diff(found) <= 0).all()
    assert found[1] == 1 / (N + 1), "the tail begins where the counts end"
    assert (found[2:] <= 1 / (N + 1)).all()
    assert found[-1] == 1 / (N + 1) / REACH
    steps = found[1:-3] / found[2:-2]
    assert steps.max() < 1.02, "rounding is all that is not continuous"


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_p_values_of_a_tail_are_rounded_up_and_by_less_than_a_percent(shape: float) -> None:
    nelbo = CALIBRATION[-1] + np.linspace(0.01, 1.5, 2_000)
    exact = pareto_beyond(nelbo - THRESHOLD, np.array(shape), np.array(3.0))
    exact /= (N + 1) * pareto_beyond(CALIBRATION[-1:] - THRESHOLD, np.array(shape), np.array(3.0))
    ratio = p_values(nelbo, CALIBRATION, tail(shape)) / np.maximum(exact, 1 / (N + 1) / REACH)
    assert ratio.min() >= 1 - 1e-12
    assert ratio.max() < 1.008


def test_a_million_distinct_scores_have_few_distinct_p_values() -> None:
    counted: Counter[float] = Counter()
    rng = np.random.default_rng(1)
    for _ in range(100):
        count_p_values(counted, p_values(30 * rng.random(10_000), CALIBRATION, tail(0.5)))
    assert counted.total() == 1_000_000
    assert N < len(counted) < N + 900


def test_the_mean_over_what_the_parameters_may_be_is_between_them() -> None:
    mixed = tail(0.0).model_copy(update={"components": ((0.3, 0.5, 1.0), (0.7, -0.1, 1.0))})
    nelbo = CALIBRATION[-1] + np.linspace(0.5, 2, 50)
    low, found, high = (
        p_values(nelbo, CALIBRATION, one) for one in (tail(-0.1, 1.0), mixed, tail(0.5, 1.0))
    )
    assert (low < found).all()
    assert (found < high).all()


@pytest.mark.parametrize(
    ("alpha", "rows"), [(0.05, 19), (0.01, 99), (0.001, 999), (0.3, 3), (1 / 3, 2)]
)
def test_so_many_calibration_rows_can_flag_a_row_and_one_less_cannot(
    alpha: float, rows: int
) -> None:
    assert rows_for(alpha) == rows
    assert (
        p_values(np.array([9.0]), np.zeros(rows))[0]
        <= alpha
        < p_values(np.array([9.0]), np.zeros(rows - 1))[0]
    )


@pytest.mark.parametrize("tail", [None, tail(0.5)], ids=["counts", "tail"])
def test_an_alpha_that_no_row_can_reach_is_told(tail: Tail | None) -> None:
    calibration = Calibration(method="split", scores=tuple(CALIBRATION.tolist()), tail=tail)
    smallest = p_values(np.array([1e9]), CALIBRATION, calibration.used_tail)[0]
    assert smallest == calibration.smallest
    assert list(out_of_reach(smallest, None, calibration.smallest)) == []
    assert list(out_of_reach(1e-9, 0.5, calibration.smallest)) == []
    for alpha, fdr in ((smallest / 2, None), (0.5, smallest / 2)):
        (notice,) = out_of_reach(alpha, fdr, calibration.smallest)
        name = "alpha" if fdr is None else "fdr"
        assert notice.startswith(f"{name} {smallest / 2:g} can flag nothing: ")

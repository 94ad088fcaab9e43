"""Surprises of cells and rows, and the curves that give them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nelbo.surprise import ColumnSurprise, Curve, Surprise

CURVE = Curve(costs=(1.0, 2.0, 5.0), surprises=(0.0, 1.0, 4.0), rate=0.5)
NOVELTY = (0.0, 3.0, 1.0, 2.0, 6.0)


def surprise(nelbo_weight: float = 0.0) -> Surprise:
    column = ColumnSurprise(curves=(CURVE, CURVE), novelty=NOVELTY)
    return Surprise(
        members=(0.75, 0.25),
        columns=(column, column),
        most=CURVE,
        nelbo=CURVE,
        nelbo_weight=nelbo_weight,
    )


@given(st.lists(st.floats(-1e300, 1e300), min_size=2))
def test_a_surprise_rises_with_the_cost_and_is_finite_far_outside(costs: list[float]) -> None:
    surprises = CURVE(np.sort(costs))
    assert np.isfinite(surprises).all()
    assert (surprises >= 0).all()
    assert (np.diff(surprises) >= 0).all()


def test_beyond_the_highest_cost_the_surprise_rises_by_the_rate() -> None:
    np.testing.assert_allclose(CURVE(np.array([0.0, 1.5, 5.0, 7.0])), [0.0, 0.5, 4.0, 5.0])


def test_a_cell_s_surprise_is_the_weighted_mean_of_its_members() -> None:
    costs = np.array([[[2.0, 1.0], [5.0, 1.0]]])
    cells = surprise().of_cells(costs, np.zeros((1, 2), np.int8))
    np.testing.assert_allclose(cells, [[0.75 * 1.0 + 0.25 * 4.0, 0.0]])


@pytest.mark.parametrize("level", range(5))
def test_a_cell_is_at_least_as_surprising_as_its_novelty(level: int) -> None:
    costs = np.full((1, 2, 2), 1.0)
    levels = np.array([[level, 0]], np.int8)
    np.testing.assert_allclose(surprise().of_cells(costs, levels), [[NOVELTY[level], 0.0]])


def test_a_level_that_no_training_row_had_is_known_by_its_surprise() -> None:
    never_new = surprise().columns[0].model_copy(update={"novelty": (0.0, 6.0, 1.0, 6.0, 6.0)})
    fitted = surprise().model_copy(update={"columns": (never_new, surprise().columns[1])})
    assert [fitted.never(0, level) for level in range(5)] == [False, True, False, True, True]
    assert [fitted.never(1, level) for level in range(5)] == [False, False, False, False, True]


def test_a_row_is_as_surprising_as_its_most_surprising_cell_and_its_nelbo() -> None:
    cells = np.array([[0.0, 2.0]])
    nelbo = np.array([5.0])
    assert surprise(0.0).of_rows(cells, nelbo) == CURVE(np.array([2.0]))
    assert surprise(1.0).of_rows(cells, nelbo) == CURVE(nelbo)
    np.testing.assert_allclose(surprise(0.25).of_rows(cells, nelbo), 0.75 * 1.0 + 0.25 * 4.0)


@pytest.mark.parametrize(
    ("costs", "surprises"),
    [((1.0, 1.0), (0.0, 1.0)), ((1.0, 2.0), (1.0, 0.0)), ((1.0,), (0.0, 1.0)), ((), ())],
)
def test_a_curve_that_does_not_ascend_is_refused(
    costs: tuple[float, ...], surprises: tuple[float, ...]
) -> None:
    with pytest.raises(ValidationError):
        Curve(costs=costs, surprises=surprises, rate=1.0)

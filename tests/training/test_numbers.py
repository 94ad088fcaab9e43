"""Number columns: which values are atoms, where bins begin and end, and how round the numbers are."""

import numpy as np
import pytest

from training.fields import Field
from training.numbers import Floats, fit_number

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("digits", "found"), [(0, 0), (2, 2), (6, 6), (9, -1)])
def test_the_digits_after_the_point_are_those_of_the_table(digits: int, found: int) -> None:
    values = np.round(RNG.normal(size=3_000) * 10, digits)
    assert fit_number(values, Field(0)).decimals == found


@pytest.mark.parametrize(
    ("values", "grid"), [([3, 8, 18], 5), ([3, 8, 19], 1), ([7], 1), ([-4_000, 0, 10_000], 2_000), ([], 1)]
)
def test_the_grid_of_whole_numbers_is_that_of_the_table(values: list[int], grid: int) -> None:
    assert fit_number(np.array(values * 30, dtype=np.float64), Field(1)).grid == grid


@pytest.mark.parametrize("sign", [1, -1])
def test_a_heavy_tail_is_drawn_as_heavy_as_it_is(sign: int) -> None:
    values = sign * (1 + np.random.default_rng(0).pareto(1.2, 6_000))
    number = fit_number(values, Field(0))
    middles = (number.knots[:, :-1] + number.knots[:, 1:]) / 2
    assert number.counts @ middles.mean(1) / len(values) == pytest.approx(values.mean(), rel=0.3)


def test_light_tails_take_no_further_bins() -> None:
    values = np.random.default_rng(0).normal(size=6_000)
    assert fit_number(values, Field(0)).known == 64


def test_a_gap_inside_a_bin_is_not_filled() -> None:
    values = np.concatenate([RNG.uniform(0, 1, 1_020), RNG.uniform(1_000, 1_001, 1_000)])
    number = fit_number(values, Field(0))
    widths = np.diff(number.knots, axis=1)
    assert (widths > 10).sum() == 1


def test_a_spike_becomes_an_atom_and_repeated_noise_does_not() -> None:
    values = np.concatenate([np.zeros(500), RNG.normal(size=2_500)])
    number = fit_number(values, Field(0))
    atoms = number.knots[number.knots[:, 0] == number.knots[:, -1]][:, 0]
    assert atoms.tolist() == [0.0]


@pytest.mark.parametrize(("values", "field", "ordered"), [
    (np.arange(17, 90), Field(1), True),
    (np.arange(30) * 500 + 3, Field(1), True),
    (np.arange(100) / 10, Field(0), True),
    (np.arange(30) ** 2, Field(1), False),
    (np.arange(7), Field(1), False),
    (np.sqrt(np.arange(30)), Field(0), False),
])  # fmt: skip
def test_many_atoms_that_fill_their_grid_learn_as_neighbours(values: Floats, field: Field, ordered: bool) -> None:
    number = fit_number(np.repeat(values.astype(np.float64), 40), field)
    assert number.bins == []
    assert number.ordered == (list(range(len(values))) if ordered else [])

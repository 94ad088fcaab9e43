"""Associations of all kinds of columns are 1 or -1 where one column tells the other, and 0 where
chance alone decides."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from training.associations import (
    CORRELATION_RATIO,
    CRAMERS_V,
    RANK_CORRELATION,
    associations,
    measure_of,
)

RNG = np.random.default_rng(0)
NO_NUMBERS, NO_LEVELS = np.empty((500, 0)), np.empty((500, 0), dtype=np.int64)


def test_two_numbers_have_the_rank_correlation_of_the_rows_that_have_both() -> None:
    numbers = RNG.normal(size=(500, 2)) @ [[1, 0.5], [0, 1]]
    numbers[:50, 0] = np.nan
    numbers[450:, 1] = np.nan
    table = associations(np.column_stack([numbers, -np.exp(numbers[:, 0])]), NO_LEVELS)
    expected = spearmanr(numbers[50:450, 0], numbers[50:450, 1]).statistic
    assert table[0, 1] == pytest.approx(expected, abs=0.01)
    assert table[0, 2] == pytest.approx(-1)
    assert (table == table.T).all()
    assert not table.diagonal().any()


def test_a_category_that_tells_the_other_has_one() -> None:
    category = RNG.integers(0, 4, 500)
    table = associations(NO_NUMBERS, np.column_stack([category, 3 - category, category > 1]))
    assert table[0, 1] == pytest.approx(1)
    assert 0.9 < table[0, 2] <= 1


def test_a_category_that_tells_the_number_has_nearly_one() -> None:
    category = RNG.integers(0, 4, 500)
    number = np.where(np.arange(500) < 20, np.nan, 10.0 * category)
    table = associations(number[:, None], category[:, None])
    assert table[0, 1] == table[1, 0] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("rows", [30, 500])
def test_columns_that_chance_alone_joins_have_none(rows: int) -> None:
    tables = [
        associations(RNG.normal(size=(rows, 2)), RNG.integers(0, 10, (rows, 2))) for _ in range(50)
    ]
    mean_square = np.square(tables).mean(0)
    assert mean_square.max() < 2.5 / rows


def test_a_column_without_two_values_has_none() -> None:
    numbers = np.column_stack([np.full(500, 7.0), np.full(500, np.nan), RNG.normal(size=500)])
    levels = np.column_stack([np.zeros(500, dtype=np.int64), RNG.integers(0, 3, 500)])
    assert not associations(numbers, levels)[[0, 1, 3]].any()


def test_numbers_that_few_rows_have_are_left_to_chance() -> None:
    number = np.where(np.arange(500) < 45, np.arange(500.0), np.nan)
    assert not associations(np.column_stack([number, number]), NO_LEVELS).any()
    assert not associations(number[:, None], (np.arange(500) % 45 > 20)[:, None] * 1).any()


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_a_table_may_have_no_more_than_a_row(rows: int) -> None:
    table = associations(np.ones((rows, 2)), np.zeros((rows, 2), dtype=np.int64))
    assert table.shape == (4, 4)
    assert not table.any()


def test_each_pair_names_its_measure() -> None:
    assert measure_of(0, 1, 2) == RANK_CORRELATION
    assert measure_of(1, 2, 2) == measure_of(2, 1, 2) == CORRELATION_RATIO
    assert measure_of(2, 3, 2) == CRAMERS_V

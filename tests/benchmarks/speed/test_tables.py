"""The tables of the measurements have the shape and the structure that they are asked for."""

import numpy as np

from tests.benchmarks.speed.tables import Shape, planted

SHAPE = Shape(2_000, 2, (3, 400), values=50)


def test_a_table_has_its_shape_and_equal_seeds_give_equal_tables() -> None:
    table = planted(SHAPE)
    assert str(SHAPE) == "2,000 × 4"
    assert table.shape == (2_000, 4)
    assert len(table["category_0"].unique()) == 3
    assert 100 < len(table["category_1"].unique()) <= 400
    assert 20 < len(table["number_0"].unique()) < 200
    assert table.equals(planted(SHAPE))
    assert not table.equals(planted(SHAPE, seed=1))


def test_columns_of_a_table_depend_on_each_other() -> None:
    numbers = planted(Shape(2_000, 12)).to_pandas().to_numpy()
    off_diagonal = np.corrcoef(numbers.T)[~np.eye(12, dtype=bool)]
    assert np.abs(off_diagonal).mean() > 0.15

"""Clean: the wrong cells of a table are found among the rows that the models are fitted to."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from nelbo.errors import InvalidInput
from nelbo.schema import Column, Schema
from tests.training.tables import QUICK
from training.clean import Cleaned, find_wrong_cells, outlying, q_values
from training.config import Config
from training.data import TrainingSource

ROWS = 1_200
DRAFT = Config.quick().model_copy(update={"min_steps": 300, "max_steps": 300})


def silent(*_: Any) -> None:
    pass


def orders(rows: int = ROWS) -> dict[str, list[Any]]:
    """Orders whose cells depend on each other."""
    rng = np.random.default_rng(0)
    product = rng.integers(0, 3, rows)
    return {
        "order": [f"N{number:05}" for number in range(rows)],
        "product": [("mug", "lamp", "desk")[each] for each in product],
        "price": [f"{value:.2f}" for value in (9.0, 48.0, 340.0) @ np.eye(3)[:, product] * 1.0],
        "weight": [f"{value:.2f}" for value in 1.0 + product + 0.1 * rng.normal(size=rows)],
        "country": [("DE", "France", "Italy")[each] for each in rng.integers(0, 3, rows)],
    }


WRONG = {
    100: ("product", "lmap"),
    201: ("country", "france"),
    302: ("weight", "1050.00"),
    403: ("country", ""),
    505: ("weight", "3.00"),
}
"""Row number, column and value; row 505 has the weight of another product."""


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory: pytest.TempPathFactory) -> Cleaned:
    columns = orders()
    columns["product"][505] = "mug"
    columns["price"][505] = "9.00"
    for row, (column, value) in WRONG.items():
        columns[column][row] = value
    columns["weight"][600] = "heavy"
    path = tmp_path_factory.mktemp("orders") / "orders.csv"
    pa.csv.write_csv(pa.table(columns), path)
    return find_wrong_cells(TrainingSource(path), DRAFT, 0, None, 0.05, silent)


def first_cells(cleaned: Cleaned) -> dict[int, dict[str, Any]]:
    """The first cell of each row, in the order of the rows."""
    cells: dict[int, dict[str, Any]] = {}
    for cell in cleaned.cells.to_pylist():
        cells.setdefault(cell["row"], cell)
    return cells


def test_the_wrong_cells_are_first_and_named(cleaned: Cleaned) -> None:
    cells = first_cells(cleaned)
    assert {600, *WRONG} <= set(list(cells)[:10]), "a half-known weight may not be the very first"
    assert {row: cells[row]["column"] for row in WRONG} == {
        row: column for row, (column, _) in WRONG.items()
    }
    assert all(cells[row]["q_value"] <= 0.1 for row in (600, 100, 201, 302, 403))


def test_each_cell_comes_with_its_value_what_it_should_be_and_the_row_s_identifier(
    cleaned: Cleaned,
) -> None:
    cells = first_cells(cleaned)
    assert cells[100]["order"] == "N00100"
    assert (cells[100]["value"], cells[100]["expected"]) == ("lmap", "lamp")
    assert cells[100]["reason"] == "did you mean lamp?"
    assert cells[201]["expected"] == "France"
    assert cells[403]["value"] is None
    assert cells[403]["reason"] == "missing, which it seldom is"
    assert float(cells[505]["low"]) < 1.3
    assert float(cells[505]["high"]) < 2.0


def test_a_row_that_cannot_be_read_is_the_first_one_with_the_reason(cleaned: Cleaned) -> None:
    first = cleaned.cells.to_pylist()[0]
    assert first["row"] == 600
    assert "heavy" in first["reason"]


def test_p_values_of_a_table_without_errors_are_about_uniform(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    pa.csv.write_csv(pa.table(orders()), path)
    every = find_wrong_cells(TrainingSource(path), DRAFT, 0, None, 1.0, silent)
    p_value = np.array([cell["p_value"] for cell in first_cells(every).values()])
    assert len(p_value) == ROWS
    for alpha in (0.01, 0.05, 0.2):
        error = np.sqrt(alpha * (1 - alpha) / ROWS)
        assert (p_value <= alpha).mean() < alpha + 5 * error
    assert np.mean([cell["q_value"] <= 0.1 for cell in first_cells(every).values()]) < 0.005


def test_many_errors_that_are_alike_do_not_make_each_other_usual() -> None:
    """Amounts in cents among amounts in euros, in one of a hundred rows."""
    rng = np.random.default_rng(0)
    amounts = rng.gamma(4, 10, size=(2_000, 1))
    amounts[::100] *= 1_000
    schema = Schema(columns=(Column(name="amount", kind="continuous"),))
    surprise = outlying(schema, amounts)[:, 0]
    is_wrong = np.arange(2_000) % 100 == 0
    assert surprise[is_wrong].min() > 2 * surprise[~is_wrong].max()


@pytest.mark.parametrize(
    "values", [np.full(100, 3.0), np.r_[np.zeros(95), np.ones(5)], np.full(100, np.nan)]
)
def test_a_column_without_spread_has_no_outlying_numbers(values: np.ndarray) -> None:
    schema = Schema(columns=(Column(name="x", kind="continuous"),))
    assert not outlying(schema, values[:, None]).any()


def test_q_values_are_benjamini_s_and_hochberg_s() -> None:
    p_values = np.array([0.04, 0.001, 0.5, 0.02])
    np.testing.assert_allclose(q_values(p_values), [0.16 / 3, 0.004, 0.5, 0.04])


def test_a_table_that_is_too_small_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    pa.csv.write_csv(pa.table(orders(5)), path)
    with pytest.raises(InvalidInput, match="too few to train on"):
        find_wrong_cells(TrainingSource(path), QUICK, 0, None, 0.05, silent)

"""The repair of an odd row, on an artifact whose model is known."""

import numpy as np
import pyarrow as pa
import pytest

from nelbo.engine import Engine
from nelbo.row_repair import ORDINARY_P, REPAIRED, repair_row, repaired
from nelbo.rows import Anomaly
from tests.artifacts import MEAN, linear_artifact


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine.load(linear_artifact(tmp_path_factory.mktemp("linear") / "a", surprise=True))


def row_of(**cells: float | str | None) -> pa.RecordBatch:
    """An ordinary row with some other cells."""
    length, width, weight = MEAN
    ordinary = {"id": "a", "length": length, "colour": "red", "width": width, "weight": weight}
    return pa.RecordBatch.from_pylist([ordinary | cells])


def scored(engine: Engine, row: pa.RecordBatch) -> Anomaly:
    (anomaly,) = engine.score(row).top(1)
    return anomaly


def test_an_ordinary_row_needs_no_repair(engine: Engine) -> None:
    row = row_of()
    assert scored(engine, row).p_value >= ORDINARY_P
    assert repair_row(engine, scored(engine, row), row, 0) == []


@pytest.mark.parametrize(
    "wrong", [{"weight": 100.0}, {"length": -40.0}, {"width": 30.0, "weight": 100.0}]
)
def test_only_the_wrong_cells_are_changed_and_the_row_is_ordinary_with_their_new_values(
    wrong: dict[str, float], engine: Engine
) -> None:
    row = row_of(**wrong)
    before = scored(engine, row)
    assert before.p_value < ORDINARY_P
    changes = repair_row(engine, before, row, seed=0)
    assert {cell.column: float(cell.value or "nan") for cell in changes} == wrong
    new = {cell.column: float(cell.repaired or "nan") for cell in changes}
    after = scored(engine, row_of(**new))
    assert after.p_value >= ORDINARY_P
    for cell in changes:
        assert cell.p_value_after == after.p_value
        np.testing.assert_allclose(cell.nelbo_after, after.nelbo)
        assert cell.nelbo_after < before.nelbo


def test_a_seed_gives_the_same_repair(engine: Engine) -> None:
    row = row_of(weight=100.0)
    first, again = (repair_row(engine, scored(engine, row), row, seed=3) for _ in range(2))
    assert first == again


def test_a_table_of_repairs_has_the_rows_with_their_identifiers(engine: Engine) -> None:
    rows = [(scored(engine, row), row) for row in (row_of(weight=100.0), row_of())]
    table = repaired(engine, rows, ["id"], seed=0)
    assert table.column_names == ["row", "id", *REPAIRED.names[1:]]
    assert table.select(["row", "id", "column"]).to_pylist() == [
        {"row": 0, "id": "a", "column": "weight"}
    ]

"""`nelbo clean`: the wrong cells of a table, with no model before it."""

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pytest

from nelbo.rows import LIKELY
from tests.nelbo.commands.running import done, read, run
from tests.training.test_clean import WRONG, orders


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    columns = orders()
    columns["product"][505] = "mug"
    columns["price"][505] = "9.00"
    for row, (column, value) in WRONG.items():
        columns[column][row] = value
    path = tmp_path_factory.mktemp("orders") / "orders.csv"
    pa.csv.write_csv(pa.table(columns), path)
    return path


def test_the_suspicious_cells_are_written_and_the_first_ones_shown(
    table: Path, tmp_path: Path
) -> None:
    ran = done("clean", table, "--quick", "-o", tmp_path / "suspicious.csv")
    written = pa.csv.read_csv(tmp_path / "suspicious.csv")
    assert written.column_names[:4] == ["row", "order", "surprise", "p_value"]
    assert set(WRONG) <= set(written["row"].to_pylist())
    assert "did you mean lamp?" in ran.out.decode()
    assert "probably wrong" in ran.err


def test_json_has_the_counts_and_without_a_file_the_cells(table: Path) -> None:
    summary = done("clean", table, "--quick", "--json").json
    assert summary["rows"] == 1_200
    assert len(WRONG) - 1 <= summary["probably_wrong"] <= summary["listed"]
    assert {cell["row"] for cell in summary["cells"]} >= set(WRONG)


def test_the_repaired_table_differs_in_the_probably_wrong_cells_alone(
    table: Path, tmp_path: Path
) -> None:
    paths = {name: tmp_path / f"{name}.csv" for name in ("suspicious", "repaired")}
    options = ("--quick", "-o", paths["suspicious"], "--repaired", paths["repaired"], "--json")
    summary = done("clean", table, *options).json
    before = read(table)
    after = read(paths["repaired"])
    cells = read(paths["suspicious"]).to_pylist()
    likely = {
        (int(cell["row"]), cell["column"]): cell["expected"]
        for cell in cells
        if float(cell["q_value"]) <= LIKELY and cell["expected"]
    }

    assert after.column_names == before.column_names
    differing = {
        (row, name): after[name][row].as_py()
        for name in before.column_names
        for row in range(before.num_rows)
        if before[name][row] != after[name][row]
    }
    assert differing.items() <= likely.items()
    assert len(differing) == summary["cells_replaced"]
    assert differing[100, "product"] == "lamp"
    assert differing[201, "country"] == "France"
    assert abs(float(differing[302, "weight"]) - 2) < 1.5


def test_the_repaired_table_needs_a_file_of_its_own(table: Path, tmp_path: Path) -> None:
    ran = run("clean", table, "-o", tmp_path / "out.csv", "--repaired", tmp_path / "out.csv")
    assert ran.code == 1
    assert "name two files" in ran.err
    assert run("clean", table, "--repaired", "-").code == 1


def test_a_missing_file_and_two_ways_to_configure_are_refused(table: Path, tmp_path: Path) -> None:
    assert run("clean", tmp_path / "none.csv").code == 3
    ran = run("clean", table, "--quick", "--config", tmp_path / "run.toml")
    assert ran.code == 1
    assert "exclude each other" in ran.err

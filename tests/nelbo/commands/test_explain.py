"""explain: the rows that score calls the least likely, with the cells that explain them and what
these should be."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from nelbo.explanation import AS_A_WHOLE, EXPLAINED
from nelbo.row_repair import REPAIRED
from tests.artifacts import linear_artifact
from tests.nelbo.commands.conftest import ROWS, Service
from tests.nelbo.commands.running import done, read, run, table, written


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Rows with a far outlier, a gap, an unseen category, and one that cannot be read."""
    text = table(ROWS).to_pylist()
    text[5]["weight"] = 100.0
    text[7]["colour"] = "a shade of violet that nobody has ever had a name for"
    text[9]["length"] = None
    text[140]["width"] = "abc"
    found = pa.table(
        {name: [None if row[name] is None else str(row[name]) for row in text] for name in text[0]}
    )
    return written(found, tmp_path / "odd.csv")


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With surprises, as present training makes it."""
    return linear_artifact(tmp_path_factory.mktemp("artifacts") / "linear", surprise=True)


@pytest.mark.parametrize("rank", ["surprise", "nelbo"])
def test_the_least_likely_rows_come_with_the_cells_that_explain_them(
    rank: str, judge: Path, odd: Path, tmp_path: Path
) -> None:
    score = ("score", judge, odd, "-o", tmp_path / "out.csv", "--rank", rank, "--json")
    least_likely = done(*score).json["least_likely"]
    ran = done("explain", judge, odd, "--columns", "3", "--rank", rank, "--json").json
    assert (ran["model"], ran["rows_failed"]) == (str(judge), 1)
    scores = pc.cast(read(tmp_path / "out.csv")[rank], pa.float64()).to_numpy()
    assert [row[rank] for row in least_likely] == sorted(scores.tolist(), reverse=True)[:3]

    shown = list(dict.fromkeys(cell["row"] for cell in ran["cells"]))
    assert len(shown) == 10
    assert shown[:3] == [row["row"] for row in least_likely]
    for row in least_likely:
        cells = [cell for cell in ran["cells"] if cell["row"] == row["row"]]
        assert 1 <= len(cells) <= 3
        for cell in cells:
            column = cell["column"]
            assert (cell["term"], cell["cell_surprise"]) == (
                row["terms"][column],
                row["surprises"][column],
            )
            assert [cell[name] for name in ("nelbo", "surprise", "p_value", "id")] == [
                *(row[name] for name in ("nelbo", "surprise", "p_value")),
                f"row {cell['row']}",
            ]


def test_an_artifact_of_an_older_nelbo_explains_rows_by_terms(artifact: Path, odd: Path) -> None:
    cells = done("explain", artifact, odd, "--top", 1, "--json").json["cells"]
    assert (cells[0]["row"], cells[0]["column"]) == (5, "weight")
    for cell in cells:
        assert cell["term"] == cell["cell_surprise"]


def test_a_rank_that_does_not_exist_is_wrong_usage(judge: Path, odd: Path) -> None:
    for command in (("score", judge, odd, "-o", "-"), ("explain", judge, odd)):
        ran = run(*command, "--rank", "kl")
        assert (ran.code, ran.out) == (2, b"")
        assert "--rank: Input should be 'surprise' or 'nelbo', not 'kl'" in " ".join(
            ran.err.split()
        )


def test_a_value_stands_beside_what_it_should_be(judge: Path, odd: Path) -> None:
    rows = ("--row", 5, "--row", 7, "--row", 9)
    cells = done("explain", judge, odd, *rows, "--columns", 4, "--json").json["cells"]
    by_cell = {(cell["row"], cell["column"]): cell for cell in cells}
    assert {row for row, _ in by_cell} == {5, 7, 9}
    weight = by_cell[5, "weight"]
    assert weight["value"] == "100.0"
    assert float(weight["low"]) < float(weight["expected"]) < float(weight["high"]) < 20
    assert (weight["share"], weight["missing"], weight["reason"]) == (None, 0.0, None)
    colour = by_cell[7, "colour"]
    assert (colour["expected"], colour["low"], colour["high"]) == ("red", None, None)
    assert 0.3 < colour["share"] < 0.7
    assert colour["reason"] == "rare or not in training"
    length = by_cell[9, "length"]
    assert (length["value"], length["reason"]) == (None, None)


def test_the_table_can_be_read(judge: Path, odd: Path) -> None:
    ran = done("explain", judge, odd, "--top", "2", "--columns", "1")
    head, first, second = ran.out.decode().splitlines()
    assert (
        " ".join(head.split()) == "row id surprise p-value column value expected"
        " 90 % interval, or share cell surprise reason"
    )
    assert first.split()[:3] == ["5", "row", "5"]
    assert first.split()[5:7] == ["weight", "100.0"]
    assert " to " in first
    assert second.split()[0] != "5"
    assert "surprise: how odd the row is; its p-value is that of the surprise" in ran.err
    assert "cell surprise: how odd the value is beside the rest of its row" in ran.err
    assert "1 row could not be done" in ran.err
    by_nelbo = done("explain", judge, odd, "--top", "2", "--columns", "1", "--rank", "nelbo")
    assert by_nelbo.out.decode().split()[:4] == ["row", "id", "nelbo", "p-value"]
    assert "nelbo: how unlikely the row is: the bound on -log p(row), in nats" in by_nelbo.err
    seven = done("explain", judge, odd, "--row", 7, "--columns", "4").out.decode()
    assert "a shade of violet that nobody…" in seven
    assert " missing " in done("explain", judge, odd, "--row", 9, "--columns", "4").out.decode()


def test_a_row_without_a_wrong_cell_is_shown_with_its_two_most_surprising(
    judge: Path, rows: Path
) -> None:
    scores = done("explain", judge, rows, "--top", ROWS, "--json").json["cells"]
    whole = [cell for cell in scores if cell["reason"] == AS_A_WHOLE]
    last = [cell for cell in scores if cell["row"] == scores[-1]["row"]]
    assert len(last) == 2
    assert last == whole[-2:]


@pytest.mark.parametrize("suffix", ["csv", "parquet", "arrow", "jsonl"])
def test_the_cells_are_a_table_in_each_format(
    suffix: str, judge: Path, odd: Path, tmp_path: Path
) -> None:
    wanted = done("explain", judge, odd, "--top", 3, "--json").json["cells"]
    ran = done("explain", judge, odd, "--top", 3, "-o", tmp_path / f"why.{suffix}")
    assert ran.out == b""
    assert f"{len(wanted)} cells of 3 rows in" in ran.err
    found = read(tmp_path / f"why.{suffix}")
    assert found.column_names == ["row", "id", *EXPLAINED.names[1:]]
    assert [str(row) for row in found["row"].to_pylist()] == [str(cell["row"]) for cell in wanted]
    assert [str(name) for name in found["column"].to_pylist()] == [
        cell["column"] for cell in wanted
    ]
    if suffix == "parquet":
        assert found.drop_columns("id").schema.equals(EXPLAINED)
        assert found.to_pylist() == wanted


def test_a_row_that_cannot_be_read_is_told_and_leaves_nothing_to_explain(
    judge: Path, odd: Path, tmp_path: Path
) -> None:
    ran = run(
        "explain",
        judge,
        odd,
        "--row",
        140,
        "--errors",
        tmp_path / "bad.jsonl",
        "-o",
        tmp_path / "why.csv",
    )
    assert json.loads((tmp_path / "bad.jsonl").read_text())["row"] == 140
    assert (ran.code, (tmp_path / "why.csv").exists()) == (1, False)
    assert "the only row could not be done, so there is no output: column " in ran.err


def test_a_row_that_the_table_does_not_have_is_not_found(judge: Path, rows: Path) -> None:
    ran = run("explain", judge, rows, "--row", 3, "--row", ROWS)
    assert (ran.code, ran.out) == (3, b"")
    assert f"rows.csv has no row {ROWS}; it has {ROWS}, and the first is row 0" in ran.err


@pytest.mark.parametrize("options", [(), ("--row", 7, "--row", 2, "--seed", 1), ("--repair",)])
def test_a_service_and_a_catalog_say_what_a_folder_says(
    options: tuple[object, ...],
    artifact: Path,
    odd: Path,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = done("explain", artifact, odd, *options)
    there = done("explain", "linear", odd, *options)
    assert there.out == folder.out
    notes = ("row 140: column 'width'", "nelbo", "ignored")
    for note in notes:
        assert there.err.count(note) == folder.err.count(note), note
    monkeypatch.delenv("NELBO_URL")
    monkeypatch.setenv("NELBO_HOME", str(service.home))
    catalog = done("explain", "linear", odd, *options)
    assert catalog.out == folder.out, "the catalog of a data folder whose service runs"


def test_a_repair_makes_odd_rows_ordinary(judge: Path, odd: Path, tmp_path: Path) -> None:
    ran = done("explain", judge, odd, "--row", 5, "--row", 9, "--repair", "--json").json
    (weight,) = [cell for cell in ran["cells"] if cell["row"] == 5]
    assert (weight["column"], weight["value"], weight["id"]) == ("weight", "100.0", "row 5")
    assert float(weight["repaired"]) < 20
    assert weight["p_value"] < 0.05 <= weight["p_value_after"]
    done("explain", judge, odd, "--row", 5, "--row", 9, "--repair", "-o", tmp_path / "cells.csv")
    written_cells = read(tmp_path / "cells.csv")
    assert written_cells.column_names == ["row", "id", *REPAIRED.names[1:]]
    assert written_cells.num_rows == len(ran["cells"])


def test_the_table_of_repairs_can_be_read(judge: Path, odd: Path) -> None:
    ran = done("explain", judge, odd, "--top", "1", "--repair")
    head, first = ran.out.decode().splitlines()
    assert " ".join(head.split()) == "row id nelbo p-value column value repaired"
    assert first.split()[:3] == ["5", "row", "5"]
    assert "weight" in first
    assert "before and after" in ran.err

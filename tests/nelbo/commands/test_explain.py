"""explain: the rows that score calls the least likely, with the cells that it calls the most
surprising and what they should be."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from nelbo.commands.local import EXPLAINED
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


@pytest.mark.parametrize("rank", ["surprise", "nelbo"])
@pytest.mark.usefixtures("surprising")
def test_the_least_likely_rows_come_with_their_most_surprising_cells(
    rank: str, artifact: Path, odd: Path, tmp_path: Path
) -> None:
    score = ("score", artifact, odd, "-o", tmp_path / "out.csv", "--rank", rank, "--json")
    told = done(*score).json["least_likely"]
    ran = done("explain", artifact, odd, "--columns", "2", "--rank", rank, "--json").json
    assert (ran["model"], ran["rows_failed"]) == (str(artifact), 1)
    scores = pc.cast(read(tmp_path / "out.csv")[rank], pa.float64()).to_numpy()
    assert [row[rank] for row in told] == sorted(scores.tolist(), reverse=True)[:3]

    row_figures = ("row", "nelbo", "surprise", "p_value")
    cells = [
        tuple(cell[name] for name in (*row_figures, "column", "term", "cell_surprise"))
        for cell in ran["cells"]
    ]
    assert len(cells) == 20
    for i, row in enumerate(told):
        highest = sorted(row["surprises"], key=row["surprises"].get, reverse=True)[:2]
        assert cells[2 * i : 2 * i + 2] == [
            (
                *(row[name] for name in row_figures),
                *(column, row["terms"][column], row["surprises"][column]),
            )
            for column in highest
        ]


def test_a_rank_that_does_not_exist_is_wrong_usage(artifact: Path, odd: Path) -> None:
    for command in (("score", artifact, odd, "-o", "-"), ("explain", artifact, odd)):
        ran = run(*command, "--rank", "kl")
        assert (ran.code, ran.out) == (2, b"")
        assert "--rank: Input should be 'surprise' or 'nelbo', not 'kl'" in " ".join(
            ran.err.split()
        )


def test_a_value_stands_beside_what_it_should_be(artifact: Path, odd: Path) -> None:
    cells = done(
        "explain", artifact, odd, "--row", 5, "--row", 7, "--row", 9, "--columns", 4, "--json"
    ).json["cells"]
    found = {(cell["row"], cell["column"]): cell for cell in cells}
    assert {row for row, _ in found} == {5, 7, 9}
    weight = found[5, "weight"]
    assert weight["value"] == "100.0"
    assert float(weight["low"]) < float(weight["expected"]) < float(weight["high"]) < 20
    assert (weight["share"], weight["missing"]) == (None, 0.0)
    colour = found[7, "colour"]
    assert (colour["expected"], colour["low"], colour["high"]) == ("red", None, None)
    assert 0.3 < colour["share"] < 0.7
    assert found[9, "length"]["value"] is None


def test_the_table_can_be_read(artifact: Path, odd: Path) -> None:
    ran = done("explain", artifact, odd, "--top", "2", "--columns", "1")
    head, first, second = ran.out.decode().splitlines()
    assert (
        " ".join(head.split())
        == "row surprise p-value column value expected 90 % interval, or share cell surprise"
    )
    assert first.split()[0] == "5"
    assert first.split()[3:5] == ["weight", "100"]
    assert " to " in first
    assert second.split()[0] != "5"
    assert "surprise: how odd the row is; its p-value is that of the surprise" in ran.err
    assert "cell surprise: how odd the value is given the columns before it and z" in ran.err
    assert "1 row could not be done" in ran.err
    by_nelbo = done("explain", artifact, odd, "--top", "2", "--columns", "1", "--rank", "nelbo")
    assert by_nelbo.out.decode().split()[:3] == ["row", "nelbo", "p-value"]
    assert "nelbo: how unlikely the row is: the bound on -log p(row), in nats" in by_nelbo.err
    seven = done("explain", artifact, odd, "--row", 7, "--columns", "4").out.decode()
    assert "a shade of violet that nobody…" in seven
    assert seven.count(" %") == 2, "of the head and of the colour"
    assert " missing " in done("explain", artifact, odd, "--row", 9, "--columns", "4").out.decode()


@pytest.mark.parametrize("suffix", ["csv", "parquet", "arrow", "jsonl"])
def test_the_cells_are_a_table_in_each_format(
    suffix: str, artifact: Path, odd: Path, tmp_path: Path
) -> None:
    wanted = done("explain", artifact, odd, "--top", 3, "--json").json["cells"]
    ran = done("explain", artifact, odd, "--top", 3, "-o", tmp_path / f"why.{suffix}")
    assert ran.out == b""
    assert "9 cells of 3 rows in" in ran.err
    found = read(tmp_path / f"why.{suffix}")
    assert found.column_names == EXPLAINED.names
    assert [str(row) for row in found["row"].to_pylist()] == [str(cell["row"]) for cell in wanted]
    assert [str(name) for name in found["column"].to_pylist()] == [
        cell["column"] for cell in wanted
    ]
    if suffix == "parquet":
        assert found.schema.equals(EXPLAINED)
        assert found.to_pylist() == wanted


def test_a_row_that_cannot_be_read_is_told_and_leaves_nothing_to_explain(
    artifact: Path, odd: Path, tmp_path: Path
) -> None:
    ran = run(
        "explain",
        artifact,
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


def test_a_row_that_the_table_does_not_have_is_not_found(artifact: Path, rows: Path) -> None:
    ran = run("explain", artifact, rows, "--row", 3, "--row", ROWS)
    assert (ran.code, ran.out) == (3, b"")
    assert f"rows.csv has no row {ROWS}; it has {ROWS}, and the first is row 0" in ran.err


def test_it_runs_on_the_catalog_and_says_that_no_service_does_it(
    artifact: Path, rows: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = run("explain", "linear", rows)
    assert ran.code == 1
    assert (
        f"no service does this, so 'linear' at {service.url} does not serve; name an artifact's"
        " folder" in ran.err
    )
    folder = done("explain", artifact, rows).out
    monkeypatch.delenv("NELBO_URL")
    monkeypatch.setenv("NELBO_HOME", str(service.home))
    assert done("explain", "linear", rows).out == folder, (
        "the catalog of a data folder whose service runs"
    )

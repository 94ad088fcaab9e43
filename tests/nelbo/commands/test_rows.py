"""score, generate, augment, reconstruct: on a folder, from the catalog of the data folder, as jobs
of a service."""

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pytest

from nelbo.commands.rows import least_likely
from nelbo.commands.shown_rows import ShownRows
from nelbo.files import Digest, open_table
from nelbo.rows import Anomaly
from tests.artifacts import SCHEMA
from tests.nelbo.commands.conftest import ROWS, Service
from tests.nelbo.commands.running import Ran, done, read, run, table, written

VERBS: dict[str, list[str]] = {
    "score": ["FILE"],
    "score with terms": ["FILE", "--explain"],
    "score with a bound on false discoveries": ["FILE", "--fdr", "0.5"],
    "generate": ["--rows", "150", "--seed", "3"],
    "generate without identifiers": ["--rows", "150", "--seed", "3", "--without-identifiers"],
    "generate where": [
        *("--rows", "150", "--seed", "3"),
        *("--where", "length > 1 and colour != red", "--where", "width < -1"),
    ],
    "generate rare": ["--rows", "150", "--seed", "3", "--rarity", "90:99"],
    "generate rare where": [
        *("--rows", "150", "--seed", "3", "--rarity", "50:99.5", "--where", "length > 1"),
    ],
    "generate balanced": ["--rows", "150", "--seed", "3", "--balance", "colour"],
    "augment": ["FILE", "--per-row", "2", "--seed", "3"],
    "augment with spread": ["FILE", "--per-row", "2", "--spread", "0.3", "--seed", "3"],
    "augment and keep columns": ["FILE", "--keep", "colour, length", "--seed", "3"],
    "augment until balanced": ["FILE", "--balance", "colour", "--seed", "3"],
    "reconstruct": ["FILE", "--seed", "3"],
    "reconstruct the mode": ["FILE", "--mode", "--denoise"],
    "explain": ["FILE", "--top", "20", "--rank", "nelbo", "--seed", "3"],
    "explain and repair": ["FILE", "--repair", "--row", "5", "--row", "7"],
    "reconstruct some columns": ["FILE", "--columns", "colour", "--leave-usual", "--seed", "3"],
}
DRAWING: dict[str, list[str]] = {
    "generate": ["--rows", "40"],
    "augment": ["FILE"],
    "reconstruct": ["FILE", "--denoise"],
}


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """Rows with a gap, a far outlier, an unseen category, a column too many, and one that cannot be
    read."""
    text = table(ROWS).to_pylist()
    text[3]["length"] = None
    text[5]["weight"] = 100.0
    text[7]["colour"] = "violet"
    text[140]["width"] = "abc"
    found = pa.table(
        {name: [None if row[name] is None else str(row[name]) for row in text] for name in text[0]}
    )
    return written(found.append_column("extra", pa.array(["x"] * ROWS)), tmp_path / "faulty.csv")


def verb(name: str, model: object, file: Path, output: object, *more: str) -> Ran:
    arguments = [str(file) if word == "FILE" else word for word in VERBS[name]]
    return done(name.split()[0], model, *arguments, "-o", output, *more)


@pytest.mark.parametrize("name", VERBS)
def test_a_folder_and_a_service_give_the_same_bits(
    name: str, artifact: Path, faulty: Path, service: Service, tmp_path: Path
) -> None:
    here = verb(name, artifact, faulty, tmp_path / "here.parquet", "--json").json
    there = verb(name, "linear", faulty, tmp_path / "there.parquet", "--json").json
    assert read(tmp_path / "here.parquet").equals(read(tmp_path / "there.parquet"))
    where = ("job", "model", "output")
    assert {key: value for key, value in here.items() if key not in where} == {
        key: value for key, value in there.items() if key not in where
    }
    assert (here["job"], there["model"]) == (None, "linear@1")


@pytest.mark.parametrize("name", VERBS)
def test_the_catalog_of_the_data_folder_serves_what_was_pushed(
    name: str, artifact: Path, faulty: Path, tmp_path: Path
) -> None:
    done("push", artifact)
    verb(name, artifact, faulty, tmp_path / "folder.parquet")
    verb(name, "linear@1", faulty, tmp_path / "catalog.parquet")
    assert read(tmp_path / "folder.parquet").equals(read(tmp_path / "catalog.parquet"))


@pytest.mark.parametrize("suffix", ["csv", "parquet", "arrow", "jsonl", "csv.gz"])
def test_a_table_scores_the_same_in_each_format_here_and_as_a_job(
    suffix: str, artifact: Path, rows: Path, service: Service, tmp_path: Path
) -> None:
    given = written(table(ROWS), tmp_path / f"rows.{suffix}")
    done("score", artifact, rows, "-o", tmp_path / "wanted.arrow")
    for model in (str(artifact), "linear"):
        done("score", model, given, "-o", tmp_path / f"scores.{suffix}")
        found, wanted = read(tmp_path / f"scores.{suffix}"), read(tmp_path / "wanted.arrow")
        nelbo = pc.cast(found["nelbo"], pa.float64())
        assert np.array_equal(nelbo.to_numpy(), wanted["nelbo"].to_numpy())


@pytest.mark.parametrize("where", ["folder", "service"])
def test_a_row_that_cannot_be_scored_is_counted_shown_and_written(
    where: str, artifact: Path, faulty: Path, service: Service, tmp_path: Path
) -> None:
    model = artifact if where == "folder" else "linear"
    ran = done(
        "score", model, faulty, "-o", tmp_path / "out.csv", "--errors", tmp_path / "bad.jsonl"
    )
    [error] = map(json.loads, (tmp_path / "bad.jsonl").read_text().splitlines())
    message = "column 'width' holds 'abc'; the model wants a number"
    assert error == {"row": 140, "column": "width", "code": "not-a-number", "message": message}
    assert "1 row could not be done" in ran.err
    assert message in ran.err
    assert ran.err.count("ignored the column 'extra'") == 1
    assert read(tmp_path / "out.csv").num_rows == ROWS - 1


@pytest.mark.parametrize("where", ["folder", "service"])
def test_the_least_likely_rows_are_told_with_their_most_surprising_cells(
    where: str, artifact: Path, faulty: Path, service: Service, tmp_path: Path
) -> None:
    ran = done(
        "score", artifact if where == "folder" else "linear", faulty, "-o", tmp_path / "out.csv"
    )
    lines = ran.err.partition("least likely:")[2].splitlines()
    scores = r"surprise [\d.]+, nelbo [\d.]+, p-value 0.01; most surprising: weight 100.0 \("
    assert re.match(rf"  row 5 \(id row 5\): {scores}", lines[1])
    assert f"{ROWS - 1} rows scored" in ran.err


def test_a_row_is_told_with_its_identifiers_and_a_misspelt_cell_with_what_was_meant(
    tmp_path: Path,
) -> None:
    cells = table(9).to_pylist()
    cells[4] |= {"colour": "gren", "length": None}
    path = written(pa.Table.from_pylist(cells), tmp_path / "rows.parquet")
    shown = ShownRows(SCHEMA)
    with open_table(path) as opened:
        shown.read(opened, [4])
    surprises = {"width": 1.0, "colour": 9.04, "length": 3.0}
    row = Anomaly(
        row=4,
        nelbo=7.0,
        surprise=8.0,
        p_value=0.01,
        anomaly=True,
        kl=0,
        terms={},
        surprises=surprises,
    )
    assert least_likely(row, shown) == (
        "row 4 (id row 4): surprise 8.0, nelbo 7.0, p-value 0.01; most surprising:"
        " colour gren (9.0, did you mean green?), length missing (3.0)"
    ), "a width so ordinary is left out"
    assert least_likely(row).endswith("most surprising: colour (9.0), length (3.0)")
    huge = row.model_copy(update={"surprise": 1.234e300})
    assert least_likely(huge).startswith("row 4: surprise 1.2e+300, nelbo 7.0, ")


@pytest.mark.usefixtures("surprising")
@pytest.mark.parametrize("fdr", [(), ("--fdr", "0.5")])
def test_the_rank_says_which_rows_are_told_and_changes_nothing_that_is_written(
    artifact: Path, faulty: Path, tmp_path: Path, fdr: tuple[str, ...]
) -> None:
    written_by = {}
    for rank in ("surprise", "nelbo"):
        ran = done("score", artifact, faulty, "-o", "-", "--rank", rank, "--explain", *fdr)
        told = re.findall(r"^  row (\d+) .*; most surprising: (\w+) ", ran.err, re.M)
        written_by[rank] = ran.out
        scores = csv.read_csv(io.BytesIO(ran.out))
        order = scores.sort_by([(rank, "descending")])["row"].to_pylist()
        assert [int(row) for row, _ in told] == order[:3]
        by_row = {row["row"]: row for row in scores.to_pylist()}
        row = by_row[order[0]]
        cells = {name: row[name] for name in row if name.startswith("surprise_")}
        assert max(cells, key=lambda name: cells[name]) == f"surprise_{told[0][1]}"
    assert written_by["surprise"] == written_by["nelbo"]


def test_a_service_ranks_as_it_is_asked_to(rows: Path, service: Service, tmp_path: Path) -> None:
    scored = done(
        "score", "linear", rows, "-o", tmp_path / "out.csv", "--rank", "nelbo", "--json"
    ).json
    assert "rank nelbo" in " ".join(done("jobs", "show", scored["job"]).out.decode().split())


def test_terms_and_kl_add_up_to_the_nelbo(artifact: Path, rows: Path, tmp_path: Path) -> None:
    done("score", artifact, rows, "-o", tmp_path / "out.parquet", "--explain")
    found = read(tmp_path / "out.parquet")
    assert found.column_names == [
        *("row", "nelbo", "surprise", "p_value", "anomaly"),
        *("term_length", "term_colour", "term_width", "term_weight", "kl"),
        *("surprise_length", "surprise_colour", "surprise_width", "surprise_weight"),
    ]
    parts = np.sum([found[name].to_numpy() for name in found.column_names[5:10]], axis=0)
    assert np.allclose(parts, found["nelbo"].to_numpy(), rtol=1e-12)


def test_an_anomaly_is_a_row_whose_p_value_is_at_most_alpha(
    artifact: Path, rows: Path, tmp_path: Path
) -> None:
    ran = done(
        "score", artifact, rows, "-o", tmp_path / "out.parquet", "--alpha", "0.2", "--json"
    ).json
    found = read(tmp_path / "out.parquet")
    assert found["anomaly"].to_pylist() == [
        p_value <= 0.2 for p_value in found["p_value"].to_numpy()
    ]
    assert ran["anomalies"] == pc.sum(found["anomaly"]).as_py() > 0


@pytest.mark.parametrize("where", ["folder", "service"])
def test_an_alpha_below_the_smallest_p_value_is_told_with_what_to_do(
    where: str, artifact: Path, rows: Path, service: Service, tmp_path: Path
) -> None:
    model = artifact if where == "folder" else "linear"
    ran = done("score", model, rows, "-o", tmp_path / "out.csv", "--alpha", "0.001")
    assert (
        ran.err.count("note: alpha 0.001 can flag nothing: this model's smallest p-value is 0.01.")
        == 1
    )
    assert "999 calibration rows are needed), or set peaks_over_threshold" in ran.err
    assert (
        "can flag nothing"
        not in done("score", model, rows, "-o", tmp_path / "out.csv", "--alpha", "0.01").err
    )
    assert (
        "fdr 0.005 can flag nothing" in done("score", model, rows, "-o", "-", "--fdr", "0.005").err
    )


@pytest.fixture
def trained_on_rows(artifact: Path, rows: Path, tmp_path: Path) -> Path:
    """The artifact as if it had been trained on `rows`."""
    folder = shutil.copytree(artifact, tmp_path / "trained")
    digest = Digest()
    with open_table(rows) as opened:
        for batch in opened.batches(100):
            digest.update(batch)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["data"]["table_sha256"] = digest.hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize("where", ["folder", "service"])
def test_scoring_the_training_table_says_that_the_model_knows_its_rows(
    where: str, trained_on_rows: Path, rows: Path, service: Service, tmp_path: Path
) -> None:
    model: object = trained_on_rows
    if where == "service":
        done("push", trained_on_rows, "--name", "known")
        model = "known"
    said = "the model was trained on these very rows"
    commands = [["score", model, rows, "-o", "-"]]
    commands += (
        [["score", model, rows, "-o", "-", "--fdr", "0.1"]]
        if where == "service"
        else [["explain", model, rows]]
    )
    for command in commands:
        assert done(*command).err.count(said) == 1
    other = written(table(ROWS, seed=8), tmp_path / "other.csv")
    assert said not in done("score", model, other, "-o", "-").err
    assert said not in done("reconstruct", model, rows, "-o", "-").err


def test_the_first_rows_of_a_longer_generation_are_the_shorter_one(artifact: Path) -> None:
    short, long = (
        done("generate", artifact, "--rows", n, "--seed", 5, "-o", "-").out for n in (7, 40)
    )
    assert long.startswith(short)
    assert done("generate", artifact, "--rows", 7, "--seed", 6, "-o", "-").out != short


def test_generated_rows_have_new_identifiers_unless_they_are_left_out(artifact: Path) -> None:
    command = ("generate", artifact, "--rows", 3, "--seed", 1, "-o", "-")
    lines = done(*command).out.decode().splitlines()
    assert lines[0] == "id,length,colour,width,weight"
    assert [line.split(",")[0] for line in lines[1:]] == ["1000", "1001", "1002"]
    without = done(*command, "--without-identifiers").out.decode().splitlines()
    assert without == [line.partition(",")[2] for line in lines]


def test_a_reconstruction_keeps_what_was_observed(
    artifact: Path, faulty: Path, tmp_path: Path
) -> None:
    done("reconstruct", artifact, faulty, "-o", tmp_path / "out.parquet")
    found = read(tmp_path / "out.parquet").to_pylist()
    assert found[3]["id"] == "row 3"
    assert found[3]["length"] is not None
    assert found[7]["colour"] == "violet"
    assert found[5]["weight"] == 100.0


@pytest.mark.parametrize("where", ["folder", "service"])
def test_a_pipe_with_a_dialect_of_its_own_is_read_as_told(
    where: str, artifact: Path, rows: Path, service: Service, tmp_path: Path
) -> None:
    comma = "\n".join(
        line.replace(",", ";").replace(".", ",") for line in rows.read_text().splitlines()
    )
    comma = f"a title\n{comma}"
    options = [
        "--delimiter",
        ";",
        "--decimal",
        ",",
        "--encoding",
        "utf-16",
        "--header",
        "--skip-lines",
        1,
    ]
    model = artifact if where == "folder" else "linear"
    ran = done("score", model, "-", "-o", "-", *options, given=comma.encode("utf-16"))
    done("score", artifact, rows, "-o", tmp_path / "wanted.csv")
    assert ran.out == (tmp_path / "wanted.csv").read_bytes()


def test_a_file_that_was_uploaded_for_a_job_is_gone_when_it_has_succeeded(
    rows: Path, service: Service, tmp_path: Path
) -> None:
    from nelbo.client import Client

    done("score", "linear", rows, "-o", tmp_path / "out.csv")
    with Client(service.url) as client:
        assert [file for file in client.files.list() if file.name == rows.name] == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["score", "linear", "absent.csv", "-o", "out.csv"], 3, "no file"),
        (["score", "unknown", "rows.csv", "-o", "out.csv"], 3, "no model 'unknown'"),
        (["score", "linear@7", "rows.csv", "-o", "out.csv"], 3, "7"),
        (["score", "linear", "rows.csv", "-o", "out.xlsx"], 1, "wrong suffix"),
        (["score", "linear", "rows.csv", "-o", "absent/out.csv"], 3, "no folder absent"),
        (["score", "linear", "rows.csv", "-o", "out.csv", "--output-format", "xlsx"], 1, "'xlsx'"),
        (["score", "linear", "few.csv", "-o", "out.csv"], 1, "lacks"),
        (["generate", "linear", "--rows", "1000000000", "-o", "out.csv"], 1, "100,000,000"),
        (["results", "0198c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11"], 3, "no job"),
    ],
)
def test_a_service_and_a_catalog_refuse_with_the_same_exit_code(
    arguments: list[str],
    code: int,
    words: str,
    artifact: Path,
    rows: Path,
    service: Service,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "rows.csv").write_bytes(rows.read_bytes())
    written(table(3).select(["id", "length"]), tmp_path / "few.csv")
    there = run(*arguments)
    assert (there.code, there.out) == (code, b""), there.err
    assert words in there.err
    assert not (tmp_path / "out.csv").exists()
    if arguments[0] != "results":
        monkeypatch.delenv("NELBO_URL")
        done("push", artifact)
        here = run(*arguments)
        assert (here.code, here.out) == (code, b""), here.err
        assert words in here.err


def test_a_service_that_is_gone_is_no_reason_to_work_here_instead(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NELBO_URL", "http://127.0.0.1:9")
    ran = run("score", "linear", rows, "-o", tmp_path / "out.csv")
    assert ran.code == 1
    assert "no Nelbo service answers at http://127.0.0.1:9" in ran.err


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("command", ["generate", "augment", "reconstruct"])
def test_a_service_makes_columns_in_the_form_of_the_table_and_scores_them(
    command: str, suffix: str, artifact: Path, service: Service, tmp_path: Path
) -> None:
    """The same bytes as without a service, which tests/nelbo/test_round_trip.py compares with the
    table."""
    folder = shutil.copytree(artifact, tmp_path / "german")
    manifest = json.loads((folder / "manifest.json").read_text())
    for column in manifest["table_schema"]["columns"]:
        if column["kind"] == "continuous":
            column["number"] = {"decimal": ",", "group": ".", "suffix": " kg", "digits": 2}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    name = f"german-{command}-{suffix}"
    done("push", folder, "--name", name)
    text = {"colour": ["red", "blue"] * 20, "id": [str(n) for n in range(40)]}
    kilograms = [f"1.{n:03},50 kg" for n in range(100, 140)]
    given = written(
        pa.table(text | {other: kilograms for other in ("length", "width", "weight")}),
        tmp_path / "given.csv",
    )
    more = ["--rows", "40"] if command == "generate" else [given]
    for model, output in (
        (str(folder), tmp_path / f"here.{suffix}"),
        (name, tmp_path / f"there.{suffix}"),
    ):
        done(command, model, *more, "-o", output, "--seed", "2")
    assert (tmp_path / f"here.{suffix}").read_bytes() == (tmp_path / f"there.{suffix}").read_bytes()
    if suffix == "csv":
        assert all(
            str(cell).endswith(" kg") for cell in read(tmp_path / "there.csv")["length"].to_pylist()
        )
    scored = done(
        "score", name, tmp_path / f"there.{suffix}", "-o", tmp_path / "scores.csv", "--json"
    ).json
    assert (scored["rows_written"], scored["rows_failed"]) == (40, 0)


def test_csv_for_people_holds_no_formula_here_or_from_a_service(
    artifact: Path, service: Service, tmp_path: Path
) -> None:
    text = table(ROWS).to_pylist()
    text[7]["colour"] = "=1+1"
    given = written(pa.Table.from_pylist(text), tmp_path / "formula.csv")
    for model in (artifact, "linear"):
        done("reconstruct", model, given, "-o", tmp_path / "exact.csv")
        done("reconstruct", model, given, "-o", tmp_path / "safe.csv", "--safe-csv")
        assert ",=1+1" in (tmp_path / "exact.csv").read_text()
        assert ",'=1+1" in (tmp_path / "safe.csv").read_text()


@pytest.mark.parametrize("where", ["folder", "service"])
@pytest.mark.parametrize("name", DRAWING)
def test_each_call_has_a_fresh_seed_which_it_prints_and_which_repeats_it(
    where: str, name: str, artifact: Path, rows: Path, service: Service, tmp_path: Path
) -> None:
    model = artifact if where == "folder" else "linear"
    arguments = [str(rows) if word == "FILE" else word for word in DRAWING[name]]
    outputs = [tmp_path / f"{number}.parquet" for number in range(3)]
    first, second = (
        done(name, model, *arguments, "-o", output, "--json") for output in outputs[:2]
    )
    assert first.json["seed"] != second.json["seed"]
    assert f"--seed {first.json['seed']} makes the same rows again" in first.err
    assert not read(outputs[0]).equals(read(outputs[1]))

    seed = second.json["seed"]
    again = done(name, model, *arguments, "-o", outputs[2], "--seed", seed, "--json")
    assert again.json["seed"] == seed
    assert "makes the same rows" not in again.err
    assert read(outputs[2]).equals(read(outputs[1]))


def test_nothing_is_said_of_a_seed_where_nothing_is_drawn(
    artifact: Path, rows: Path, tmp_path: Path
) -> None:
    ran = done("reconstruct", artifact, rows, "--mode", "-o", tmp_path / "out.csv")
    assert "--seed" not in ran.err


@pytest.mark.parametrize("where", ["folder", "service"])
def test_rows_meet_their_conditions_and_their_probability_is_told(
    where: str, artifact: Path, service: Service, tmp_path: Path
) -> None:
    model = artifact if where == "folder" else "linear"
    conditions = ["--where", "colour in (red, blue)", "--where", "length between 0.5 and 1.5"]
    ran = done("generate", model, "--rows", "90", *conditions, "-o", tmp_path / "out.parquet")
    cells = read(tmp_path / "out.parquet")
    assert set(cells["colour"].to_pylist()) == {"red", "blue"}
    lengths = np.asarray(cells["length"])
    assert (lengths >= 0.5).all()
    assert (lengths <= 1.5).all()
    assert re.search(r"probability of the conditions: 0\.\d+ \([\d,]+ of 16,384 rows", ran.err)
    assert re.search(r"effective sample size [\d,]+\n", ran.err)


def test_shares_and_cells_come_from_files_that_people_write(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "weights.json").write_text('{"colour": {"red": 1, "blue": 3}}')
    (tmp_path / "row.json").write_text('{"width": -2.5, "weight": null}')
    files = ["--weights", tmp_path / "weights.json", "--like", tmp_path / "row.json"]
    done("generate", artifact, "--rows", "100", *files, "-o", tmp_path / "out.parquet")
    cells = read(tmp_path / "out.parquet")
    assert abs(cells["colour"].to_pylist().count("blue") - 75) <= 2
    assert set(cells["width"].to_pylist()) == {-2.5}


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl", "csv.gz"])
def test_shares_and_cells_come_from_tables_too(suffix: str, artifact: Path, tmp_path: Path) -> None:
    weights = pa.table({"colour": ["red", "blue"], "how often": [1.0, 3.0]})
    row = pa.table({"width": [-2.5], "length": pa.array([None], pa.float64())})
    files = [
        *("--weights", written(weights, tmp_path / f"weights.{suffix}")),
        *("--like", written(row, tmp_path / f"row.{suffix}")),
    ]
    done("generate", artifact, "--rows", "100", *files, "-o", tmp_path / "out.parquet")
    cells = read(tmp_path / "out.parquet")
    assert abs(cells["colour"].to_pylist().count("blue") - 75) <= 2
    assert set(cells["width"].to_pylist()) == {-2.5}
    assert cells["length"].null_count < 100


@pytest.mark.parametrize(
    ("option", "content", "message"),
    [
        ("--like", "width\n1\n2\n", "has 2 rows; the file of --like has one"),
        ("--weights", "colour\nred\n", "has 1 columns; the file of --weights has two"),
        ("--weights", "colour,n\nred,1\nred,2\n", "has two weights of 'red'; write one"),
        ("--weights", "colour,n\nred,much\n", "has the weight 'much' of 'red'"),
        ("--weights", "colour,n\nviolet,1\n", "no category 'violet'"),
    ],
)
def test_a_table_that_does_not_serve_is_refused(
    option: str, content: str, message: str, artifact: Path, tmp_path: Path
) -> None:
    (tmp_path / "file.csv").write_text(content)
    ran = run(
        *("generate", artifact, "--rows", "5", option, tmp_path / "file.csv"),
        *("-o", tmp_path / "out.csv"),
    )
    assert ran.code == 1
    assert message in ran.err
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("option", "content", "message"),
    [
        ("--like", "[1]", "does not hold a JSON object; write"),
        ("--like", "{", "is not JSON; write"),
        ("--weights", '{"colour": {"violet": 1}}', "no category 'violet'"),
        ("--weights", None, "no file at"),
    ],
)
def test_a_file_that_does_not_serve_is_refused_with_an_example(
    option: str, content: str | None, message: str, artifact: Path, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "file.json").write_text(content)
    ran = run(
        *("generate", artifact, "--rows", "5", option, tmp_path / "file.json"),
        *("-o", tmp_path / "out.csv"),
    )
    assert ran.code in (1, 3)
    assert message in ran.err
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("where", ["folder", "service"])
def test_a_condition_that_no_row_can_meet_is_refused_and_no_table_is_written(
    where: str, artifact: Path, service: Service, tmp_path: Path
) -> None:
    model = artifact if where == "folder" else "linear"
    output = tmp_path / "out.csv"
    ran = run("generate", model, "--rows", "9", "--where", "colour = violet", "-o", output)
    assert ran.code == 1
    assert "no category 'violet'; those that may be made are 'red', 'green', 'blue'" in ran.err
    assert not output.exists()

"""Laws of the engine, on an artifact whose exact answers are known in closed form."""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nelbo.artifact import FORMAT
from nelbo.encoding import encode
from nelbo.engine import Engine, Floats, Integers
from nelbo.errors import InvalidArtifact, InvalidInput, NotFound
from nelbo.expectations import DRAWS
from tests.artifacts import (
    BATCH,
    LOADINGS,
    MEAN,
    NOISE,
    SCHEMA,
    exact_nelbo,
    linear_artifact,
    sample,
)

ROWS = 3 * BATCH + 5


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine.load(linear_artifact(tmp_path_factory.mktemp("artifact")))


@pytest.fixture(scope="module")
def rows() -> pa.RecordBatch:
    return _batch(*sample(ROWS, seed=7))


def test_onnx_runtime_leaves_nothing_in_the_folder_for_temporary_files(tmp_path: Path) -> None:
    """With its telemetry it writes a file there when it is loaded, and sends events when a session
    is made."""
    env = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    artifact = linear_artifact(tmp_path / "artifact")
    script = (
        "from pathlib import Path; from nelbo.engine import Engine;"
        f" Engine.load(Path({str(artifact)!r}))"
    )
    (tmp_path / "temporary").mkdir()
    subprocess.run(
        [sys.executable, "-c", script],
        env=env | {"TMPDIR": str(tmp_path / "temporary")},
        check=True,
    )
    assert list((tmp_path / "temporary").iterdir()) == []


def test_rows_that_cannot_be_encoded_at_all_are_errors_and_no_row_is_made(
    engine: Engine, rows: pa.RecordBatch
) -> None:
    bad = rows.set_column(1, "length", pa.array(["far"] * len(rows)))
    for made in (engine.reconstruct(bad, 0, 1), engine.augment(bad, 0, 2, 1), engine.score(bad)):
        assert len(made.errors) == len(rows)
    assert engine.reconstruct(bad, 0, 1).batch.num_rows == 0


def _batch(numbers: Floats, codes: Integers) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {
            "id": [f"row {i}" for i in range(len(numbers))],
            "length": numbers[:, 0],
            "colour": [SCHEMA.categoricals[0].categories[code] for code in codes[:, 0]],
            "width": numbers[:, 1],
            "weight": numbers[:, 2],
        }
    )


def _numbers(batch: pa.RecordBatch) -> Floats:
    return np.column_stack([batch.column(name) for name in ("length", "width", "weight")])


def test_nelbo_of_a_linear_model_is_the_exact_negative_log_likelihood(
    engine: Engine, rows: pa.RecordBatch
) -> None:
    np.testing.assert_allclose(
        engine.score(rows).nelbo, exact_nelbo(*sample(ROWS, seed=7)), rtol=1e-12
    )


def test_terms_and_kl_add_up_to_the_nelbo(engine: Engine, rows: pa.RecordBatch) -> None:
    scored = engine.score(rows)
    np.testing.assert_allclose(scored.terms.sum(1) + scored.kl, scored.nelbo, rtol=1e-12)


def test_a_model_without_surprises_ranks_by_nelbo_and_its_cells_by_their_terms(
    engine: Engine, rows: pa.RecordBatch
) -> None:
    scored = engine.score(rows)
    assert np.array_equal(scored.surprise, scored.nelbo)
    assert np.array_equal(scored.surprises, scored.terms)
    assert np.array_equal(scored.p_value, engine.scorer.p_value(scored.surprise))


def test_a_score_depends_on_the_row_alone(engine: Engine, rows: pa.RecordBatch) -> None:
    whole = engine.score(rows).nelbo
    one_by_one = np.concatenate([engine.score(rows.slice(i, 1), i).nelbo for i in range(ROWS)])
    order = np.random.default_rng(0).permutation(ROWS)
    assert np.array_equal(whole, one_by_one)
    assert np.array_equal(engine.score(rows.take(order)).nelbo, whole[order])


def test_a_longer_generation_begins_with_the_shorter_one(engine: Engine) -> None:
    long = engine.generate(5, 0, ROWS).batch
    assert long.slice(0, 10).equals(engine.generate(5, 0, 10).batch)
    assert long.slice(20).equals(engine.generate(5, 20, ROWS - 20).batch)
    assert not long.equals(engine.generate(6, 0, ROWS).batch)


def test_generated_rows_have_the_moments_of_the_model(engine: Engine) -> None:
    made = engine.generate(1, 0, 20_000).batch
    numbers = _numbers(made)
    wanted, _ = sample(200_000, seed=2)
    np.testing.assert_allclose(numbers.mean(0), wanted.mean(0), atol=0.05)
    np.testing.assert_allclose(np.cov(numbers.T), np.cov(wanted.T), atol=0.08)
    shares = {
        colour: count / 20_000
        for colour, count in Counter(made.column("colour").to_pylist()).items()
    }
    assert shares == pytest.approx({"red": 0.5263, "green": 0.3158, "blue": 0.1579}, abs=0.02)


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_a_copy_depends_on_the_seed_its_row_and_its_number_only(
    engine: Engine, rows: pa.RecordBatch, spread: float
) -> None:
    three = engine.augment(rows, 0, 3, seed=9, spread=spread).batch
    later = engine.augment(rows.slice(40), 40, 1, seed=9, spread=spread).batch
    assert three.take(list(range(3 * 40, 3 * ROWS, 3))).equals(later)
    assert three["row"].to_pylist()[:4] == [0, 0, 0, 1]
    assert three["id"].to_pylist()[:4] == ["row 0", "row 0", "row 0", "row 1"]


def test_copies_of_a_row_differ_from_each_other(engine: Engine, rows: pa.RecordBatch) -> None:
    made = engine.augment(rows.slice(0, 1), 0, 50, seed=0).batch
    assert len(set(made.column("length").to_pylist())) == 50


def test_copies_resemble_their_row_the_less_the_farther_they_spread(engine: Engine) -> None:
    given = _batch(*sample(4_000, seed=3))
    source, alike = _numbers(given)[:, 0], []
    for spread in (0.0, 0.25, 0.5, 0.75, 1.0):
        made = engine.augment(given, 0, 1, seed=4, spread=spread).batch
        alike.append(float(np.corrcoef(source, _numbers(made)[:, 0])[0, 1]))
    assert alike == sorted(alike, reverse=True)
    assert alike[0] > 0.6
    assert abs(alike[-1]) < 0.05


def test_copies_at_spread_one_are_distributed_as_the_model_whatever_their_row(
    engine: Engine, rows: pa.RecordBatch
) -> None:
    made = _numbers(engine.augment(rows.slice(0, 1), 0, 20_000, seed=1, spread=1.0).batch)
    wanted, _ = sample(200_000, seed=2)
    np.testing.assert_allclose(made.mean(0), wanted.mean(0), atol=0.05)
    np.testing.assert_allclose(np.cov(made.T), np.cov(wanted.T), atol=0.08)


def test_reconstruction_fills_missing_cells_and_leaves_the_others(
    engine: Engine, rows: pa.RecordBatch
) -> None:
    holes = rows.set_column(
        1,
        "length",
        pa.array([None if i % 2 else v for i, v in enumerate(rows["length"].to_pylist())]),
    )
    made = engine.reconstruct(holes, 0, seed=1).batch
    assert made["length"].null_count == 0
    assert made["length"].to_pylist()[::2] == rows["length"].to_pylist()[::2]
    for name in ("id", "colour", "width", "weight"):
        assert made[name].equals(rows[name])


def test_the_mode_fills_with_the_conditional_mean(engine: Engine, rows: pa.RecordBatch) -> None:
    holes = rows.set_column(1, "length", pa.nulls(ROWS, pa.float64()))
    errors = {
        mode: np.abs(
            np.array(engine.reconstruct(holes, 0, 1, mode=mode).batch["length"]) - rows["length"]
        ).mean()
        for mode in (True, False)
    }
    assert errors[True] < errors[False]


def test_denoising_replaces_observed_cells_too(engine: Engine, rows: pa.RecordBatch) -> None:
    made = engine.reconstruct(rows, 0, seed=1, denoise=True).batch
    assert not set(made["length"].to_pylist()) & set(rows["length"].to_pylist())


def test_columns_are_filled_as_without_the_others_and_all_other_cells_stay(
    engine: Engine, rows: pa.RecordBatch
) -> None:
    holes = rows.set_column(1, "length", pa.nulls(ROWS, pa.float64()))
    holes = holes.set_column(3, "width", pa.nulls(ROWS, pa.float64()))
    colours = ["purple", None, *rows["colour"].to_pylist()[2:]]
    holes = holes.set_column(2, "colour", pa.array(colours))
    for denoise in (False, True):
        every = engine.reconstruct(holes, 0, seed=1, denoise=denoise).batch
        some = engine.reconstruct(holes, 0, seed=1, denoise=denoise, columns=["width"]).batch
        assert some["width"].null_count == 0
        for name in ("id", "length", "colour", "weight"):
            assert some[name].to_pylist() == holes[name].to_pylist()
        if not denoise:
            assert some["width"].equals(every["width"])
    with pytest.raises(InvalidInput, match="no column 'id' to fill; it makes length, colour"):
        engine.reconstruct(holes, 0, seed=1, columns=["id"])


def test_where_the_model_draws_no_gap_none_is_left(engine: Engine, rows: pa.RecordBatch) -> None:
    holes = rows.set_column(1, "length", pa.nulls(ROWS, pa.float64()))
    left = engine.reconstruct(holes, 0, seed=1, leave_usual=True).batch
    assert left.equals(engine.reconstruct(holes, 0, seed=1).batch)
    assert engine.reconstruct(rows, 0, seed=1, leave_usual=True).batch.num_rows == ROWS


COLUMNS = ("length", "colour", "width", "weight")
OTHERS: dict[str, list[Any]] = {
    "length": [1e6, None],
    "colour": ["blue", "purple", None],
    "width": [-1e6, None],
    "weight": [0.0, None],
}


@pytest.mark.parametrize("column", COLUMNS)
def test_what_a_cell_should_be_does_not_depend_on_what_it_is(
    engine: Engine, rows: pa.RecordBatch, column: str
) -> None:
    made, at = engine.explain(rows, column).batch, rows.schema.get_field_index(column)
    for value in OTHERS[column]:
        others = pa.array([value] * ROWS, rows.schema.field(column).type)
        assert engine.explain(rows.set_column(at, column, others), column).batch.equals(made)


@pytest.mark.parametrize("column", COLUMNS)
def test_what_a_cell_should_be_depends_on_its_row_its_number_and_the_seed_only(
    engine: Engine, rows: pa.RecordBatch, column: str
) -> None:
    made = engine.explain(rows, column).batch
    alone = [engine.explain(rows.slice(row, 1), column, row).batch for row in range(ROWS)]
    assert made.equals(pa.Table.from_batches(alone).combine_chunks().to_batches()[0])
    assert not made.equals(engine.explain(rows, column, seed=1).batch)


def test_what_a_number_should_be_is_that_of_the_model(engine: Engine, rows: pa.RecordBatch) -> None:
    """The hand-made encoder sets a missing number to its mean, so that z and the draws have a
    distribution in closed form."""
    made = engine.explain(rows, "length").batch
    numbers = np.column_stack([rows[name] for name in ("length", "width", "weight")]) - MEAN
    precision = LOADINGS.T @ LOADINGS + NOISE**2 * np.eye(2)
    mean = MEAN[0] + LOADINGS[0] @ np.linalg.solve(precision, LOADINGS.T @ (numbers * [0, 1, 1]).T)
    sigma = np.sqrt(NOISE**2 + LOADINGS[0] ** 2 @ (NOISE**2 / np.diag(precision)))
    low, middle, high = (
        (np.array(made[name]) - mean) / sigma for name in ("low", "expected", "high")
    )
    error = 1.25 / np.sqrt(DRAWS)  # of a median; the interval's ends are less sure
    assert (np.abs(middle) < 5 * error).all()
    assert np.mean(middle) == pytest.approx(0, abs=4 * error / np.sqrt(ROWS))
    assert (np.mean(low), np.mean(high)) == pytest.approx((-1.645, 1.645), abs=0.15)


def test_a_category_has_its_most_frequent_draw_and_no_interval(
    engine: Engine, rows: pa.RecordBatch
) -> None:
    made = engine.explain(rows, "colour").batch
    assert set(made["expected"].to_pylist()) == {"red"}
    assert np.mean(np.array(made["share"])) == pytest.approx(0.5263, abs=0.03)
    assert made["low"].null_count == made["high"].null_count == ROWS
    assert set(made["missing"].to_pylist()) == {0.0}


def test_redrawn_rows_keep_the_cells_that_are_not_hidden(
    engine: Engine, rows: pa.RecordBatch
) -> None:
    encoded = encode(rows, engine.schema)
    hidden = np.zeros((ROWS, len(engine.manifest.order)), dtype=np.bool_)
    hidden[:, engine.manifest.order.index("width")] = True
    hidden[0] = True
    numbers, codes = engine.redraw(encoded, hidden, 3, seed=0)
    assert len(numbers) == len(codes) == 3 * ROWS
    width = [column.name for column in engine.schema.numbers].index("width")
    others = np.delete(numbers[3:], width, axis=1)
    assert np.array_equal(others, np.delete(np.repeat(encoded.numbers[1:], 3, 0), width, axis=1))
    assert np.array_equal(codes[3:], np.repeat(encoded.codes[1:], 3, 0))
    assert not np.isin(numbers[:, width], encoded.numbers[:, width]).any()
    assert not np.isin(numbers[:3], encoded.numbers[0]).any()


def test_what_cannot_be_hidden_is_refused_and_what_cannot_be_read_is_an_error(
    engine: Engine, rows: pa.RecordBatch
) -> None:
    for column in ("id", "height"):
        with pytest.raises(
            InvalidInput, match=f"no column '{column}' to hide; it models length, colour"
        ):
            engine.explain(rows, column)
    text = rows.set_column(
        1, "length", pa.array(["a lot" if i == 3 else "1.5" for i in range(ROWS)])
    )
    made = engine.explain(text, "width", 100)
    assert [error.row for error in made.errors] == [103]
    assert made.batch["row"].to_pylist() == [row for row in range(100, 100 + ROWS) if row != 103]
    assert engine.explain(rows.slice(0, 0), "length").batch.num_rows == 0
    assert engine.explain(rows.slice(0, 0), "colour").batch.num_rows == 0


def test_an_unknown_category_is_scored_and_kept(engine: Engine, rows: pa.RecordBatch) -> None:
    purple = rows.set_column(2, "colour", pa.array(["purple"] * ROWS))
    assert (engine.score(purple).nelbo > engine.score(rows).nelbo).all()
    assert set(engine.reconstruct(purple, 0, seed=0).batch["colour"].to_pylist()) == {"purple"}


def test_a_row_that_cannot_be_encoded_is_an_error_and_the_others_are_scored(
    engine: Engine, rows: pa.RecordBatch
) -> None:
    text = rows.set_column(
        1,
        "length",
        pa.array(["a lot" if i == 3 else str(v) for i, v in enumerate(rows["length"].to_pylist())]),
    )
    scored = engine.score(text, first_row=100)
    assert [(error.row, error.column) for error in scored.errors] == [(103, "length")]
    assert scored.rows.tolist() == [row for row in range(100, 100 + ROWS) if row != 103]
    assert np.array_equal(scored.nelbo, np.delete(engine.score(rows).nelbo, 3))


def test_a_score_that_is_not_finite_is_an_error(engine: Engine, rows: pa.RecordBatch) -> None:
    far = rows.set_column(1, "length", pa.array([1e200] * ROWS))
    scored = engine.score(far)
    assert len(scored.rows) == 0
    assert {error.code for error in scored.errors} == {"not-finite"}


def test_no_rows_give_no_scores(engine: Engine, rows: pa.RecordBatch) -> None:
    scored = engine.score(rows.slice(0, 0))
    assert scored.terms.shape == scored.surprises.shape == (0, 4)
    assert engine.generate(0, 0, 0).batch.num_rows == 0
    assert engine.augment(rows.slice(0, 0), 0, 2, 0).batch.num_rows == 0


def test_work_stops_between_two_batches_when_the_check_raises(
    engine: Engine, rows: pa.RecordBatch
) -> None:
    calls: list[None] = []

    def check() -> None:
        calls.append(None)
        if len(calls) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        engine.score(rows, check=check)
    assert len(calls) == 2


def test_a_folder_without_an_artifact_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no manifest\.json"):
        Engine.load(tmp_path)


def test_a_graph_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    linear_artifact(tmp_path)
    manifest = (tmp_path / "manifest.json").read_text()
    old = Engine.load(tmp_path).manifest.graphs["score"].sha256
    (tmp_path / "score.onnx").write_bytes(b"no graph")
    (tmp_path / "manifest.json").write_text(
        manifest.replace(old, hashlib.sha256(b"no graph").hexdigest())
    )
    with pytest.raises(InvalidArtifact, match="is not an ONNX model"):
        Engine.load(tmp_path).score(_batch(*sample(1, 0)))


KEPT = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize("number", range(1, FORMAT))
def test_artifacts_of_every_older_format_are_read_and_score_as_they_did(number: int) -> None:
    kept = Engine.load(KEPT / f"artifact-format-{number}")
    numbers, codes = sample(ROWS, seed=7)
    np.testing.assert_allclose(
        kept.score(_batch(numbers, codes)).nelbo, exact_nelbo(numbers, codes), rtol=1e-12
    )
    assert kept.generate(1, 0, 3).batch.num_rows == 3


def test_a_model_of_before_the_spread_gives_the_same_copies_and_refuses_others(
    engine: Engine, rows: pa.RecordBatch
) -> None:
    kept = Engine.load(KEPT / "artifact-format-1")
    assert kept.augment(rows, 0, 2, seed=9).batch.equals(engine.augment(rows, 0, 2, seed=9).batch)
    with pytest.raises(InvalidInput, match="train it again"):
        kept.augment(rows, 0, 2, seed=9, spread=0.3)

"""Laws of a model in this process: frames in, frames of the same library out, and the rows of the
engine."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import nelbo
from nelbo import data_folder
from nelbo.errors import Conflict, InvalidInput, InvalidRequest, NotFound
from nelbo.model import BATCH_ROWS, NelboWarning, TableModel
from nelbo.rows import SCORES, Scores
from nelbo.settings import Settings
from tests.artifacts import linear_artifact, sample

N = 40
COLOURS = np.array(["red", "green", "blue"])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TableModel:
    return nelbo.load(linear_artifact(tmp_path_factory.mktemp("model") / "linear"))


def frame(rows: int = N) -> pd.DataFrame:
    """A frame with an index of its own and types that only pandas has."""
    numbers, codes = sample(rows, seed=7)
    return pd.DataFrame(
        {
            "id": pd.array([f"row {i}" for i in range(rows)], dtype="string"),
            "length": numbers[:, 0],
            "colour": pd.Categorical(COLOURS[codes[:, 0]]),
            "width": numbers[:, 1].astype("float32"),
            "weight": pd.array(numbers[:, 2], dtype="Float64"),
        },
        index=pd.Index(range(100, 100 + rows), name="number"),
    )


def of_pandas(table: pd.DataFrame) -> Any:
    return table


def of_polars(table: pd.DataFrame) -> Any:
    return pytest.importorskip("polars").from_arrow(of_arrow(table))


def of_arrow(table: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(table, preserve_index=False)


def of_batch(table: pd.DataFrame) -> pa.RecordBatch:
    return pa.RecordBatch.from_pandas(table, preserve_index=False)


def plain(made: Any) -> list[dict[str, Any]]:
    """The rows of any frame."""
    return (
        pa.table(made).to_pylist()
        if not isinstance(made, pd.DataFrame)
        else (pa.Table.from_pandas(made, preserve_index=False).to_pylist())
    )


LIBRARIES = (of_pandas, of_polars, of_arrow, of_batch)


@pytest.mark.parametrize("wrap", LIBRARIES)
def test_what_comes_out_is_of_the_library_of_what_came_in(wrap: Any, model: TableModel) -> None:
    data = wrap(frame())
    kind = pa.Table if isinstance(data, pa.RecordBatch) else type(data)
    gaps = frame()
    gaps.loc[105, ["width", "colour"]] = None
    for made in (
        model.score(data),
        model.explain(data, top=2),
        model.augment(data, seed=1),
        model.reconstruct(wrap(gaps), seed=1),
    ):
        assert type(made) is kind


@pytest.mark.parametrize("wrap", LIBRARIES)
def test_every_library_gives_the_same_rows(wrap: Any, model: TableModel) -> None:
    gaps = frame()
    gaps.loc[105, ["width", "colour"]] = None
    ways: tuple[Callable[[Any], Any], ...] = (
        lambda data: model.score(data, explain=True),
        lambda data: model.explain(data, top=3),
        lambda data: model.augment(data, per_row=2, spread=0.5, keep=["colour"], seed=3),
        lambda data: model.reconstruct(data, seed=3),
    )
    for way in ways:
        assert plain(way(wrap(gaps))) == plain(way(gaps))


def test_scores_are_those_of_the_engine_with_the_index_of_the_frame(model: TableModel) -> None:
    scores = model.score(frame(), alpha=0.3)
    (batch,) = of_arrow(frame()).combine_chunks().to_batches()
    expected = model.engine.score(batch)
    assert list(scores.columns) == SCORES.names
    assert scores.index.equals(frame().index)
    assert (scores["row"] == np.arange(N)).all()
    np.testing.assert_array_equal(scores["nelbo"], expected.nelbo)
    np.testing.assert_array_equal(scores["surprise"], expected.surprise)
    assert scores["anomaly"].equals(scores["p_value"] <= 0.3)
    assert scores["anomaly"].dtype == bool
    explained = model.score(frame(), explain=True)
    assert list(explained.columns) == Scores.schema(model.engine.manifest.order).names


def test_a_bound_on_the_false_discovery_rate_flags_no_more_rows_than_it_allows(
    model: TableModel,
) -> None:
    scores = model.score(frame(), fdr=0.5)
    ordered = np.sort(scores["p_value"])
    passing = ordered * N <= 0.5 * np.arange(1, N + 1)
    assert scores["anomaly"].sum() == (np.flatnonzero(passing).max() + 1 if passing.any() else 0)


def test_a_row_that_cannot_be_scored_has_missing_scores_and_a_reason(model: TableModel) -> None:
    odd = frame()
    odd.loc[103, "length"] = np.inf
    with pytest.warns(NelboWarning, match="1 row could not be done; row 3: column 'length'"):
        scores = model.score(odd)
    assert len(scores) == N
    assert scores["row"].tolist() == list(range(N))
    assert scores.drop(columns="row").isna().all(axis=1).tolist() == [i == 3 for i in range(N)]
    assert [(error.row, error.column) for error in model.errors] == [(3, "length")]
    assert scores[scores["anomaly"]].index.isin(odd.index).all()
    model.score(frame())
    assert model.errors == []


def test_columns_that_the_model_does_not_know_are_told_and_absent_ones_refused(
    model: TableModel,
) -> None:
    with pytest.warns(NelboWarning, match="ignored the column 'more'"):
        model.score(frame().assign(more=1))
    with pytest.raises(InvalidInput, match="the table lacks the column 'width'"):
        model.score(frame().drop(columns="width"))
    with pytest.raises(InvalidInput, match="column mixes values of several types"):
        model.score(frame().assign(width=["a", 1] * (N // 2)))
    with pytest.raises(InvalidInput, match="duplicate column names: 'width'"):
        model.score(pd.concat([frame(), frame()[["width"]]], axis=1))
    with pytest.raises(InvalidInput, match="set is not a data frame"):
        model.score({1, 2})


def test_a_warning_names_the_line_of_the_user(model: TableModel) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.score(frame().assign(more=1), alpha=1e-9)
        model.reconstruct(frame().assign(more=1))
    assert len(caught) == 3
    assert {Path(warning.filename).name for warning in caught} == {Path(__file__).name}


def test_filled_frames_keep_their_columns_types_index_and_cells(model: TableModel) -> None:
    gaps = frame().assign(more=pd.array([None, *range(1, N)], dtype="Int8"))
    gaps.loc[105, ["width", "colour"]] = None
    gaps.loc[103, "length"] = np.inf
    with pytest.warns(NelboWarning, match=r"ignored the column 'more'|could not be done"):
        filled = model.reconstruct(gaps)
    assert filled.dtypes.equals(gaps.dtypes)
    assert filled.loc[105, ["width", "colour"]].notna().all()
    present = gaps.notna()
    assert (filled.where(present) == gaps.where(present)).where(present, True).all(axis=None)
    assert filled["more"].isna().sum() == 1


def test_names_with_blanks_around_them_are_those_of_the_model(model: TableModel) -> None:
    blanks = frame().rename(columns={"width": " width "})
    blanks.loc[105, " width "] = None
    blanks.loc[103, "length"] = np.inf
    with pytest.warns(NelboWarning, match="could not be done"):
        filled = model.reconstruct(blanks)
    assert list(filled.columns) == list(blanks.columns)
    assert filled[" width "].notna().all()


def test_chosen_columns_alone_are_filled(model: TableModel) -> None:
    gaps = frame()
    gaps.loc[105, ["width", "length"]] = None
    filled = model.reconstruct(gaps, columns=["width"], leave_usual=True, seed=1)
    assert filled.loc[105, ["width", "length"]].isna().tolist() == [False, True]
    assert filled.drop(columns="width").equals(gaps.drop(columns="width"))
    assert filled["width"].equals(model.reconstruct(gaps, seed=1)["width"])
    with pytest.raises(InvalidInput, match="no column 'height' to fill"):
        model.reconstruct(gaps, columns=["height"])


def test_copies_have_the_columns_of_the_frame_and_the_index_of_their_row(model: TableModel) -> None:
    copies = model.augment(frame(), per_row=3, keep=["length"])
    assert list(copies.columns) == list(frame().columns)
    assert copies.dtypes.equals(frame().dtypes)
    assert copies.index.tolist() == np.repeat(frame().index, 3).tolist()
    assert copies["id"].tolist() == np.repeat(frame()["id"], 3).tolist()
    assert copies["length"].tolist() == np.repeat(frame()["length"], 3).tolist()


def test_rows_are_fresh_without_a_seed_and_the_same_with_it(model: TableModel) -> None:
    ways: tuple[Callable[[Any], Any], ...] = (
        lambda seed: model.generate(20, seed=seed),
        lambda seed: model.augment(frame(), seed=seed),
        lambda seed: model.reconstruct(frame().assign(width=np.nan), seed=seed),
    )
    for way in ways:
        first, second = way(None), way(None)
        assert not first.equals(second)
        assert model.seed is not None
        assert way(model.seed).equals(second)


def test_generated_rows_are_those_of_the_engine_in_the_library_asked_for(model: TableModel) -> None:
    rows = 2 * BATCH_ROWS + 5
    made_rows = model.generate(rows, seed=5, as_="arrow")
    expected = pa.Table.from_batches([model.engine.generate(5, 0, rows).batch])
    assert made_rows.equals(expected)
    assert isinstance(model.generate(3), pd.DataFrame)
    assert model.generate(3, seed=5).equals(made_rows.slice(0, 3).to_pandas())
    with pytest.raises(InvalidInput, match="'duckdb' is no library of data frames"):
        model.generate(3, as_="duckdb")  # type: ignore[arg-type]
    for n in (0, -1, 2.5):
        with pytest.raises(InvalidRequest, match="n: "):
            model.generate(n)  # type: ignore[arg-type]


def test_the_requests_of_jobs_check_what_a_model_is_asked(model: TableModel) -> None:
    asked: tuple[tuple[Callable[[], Any], str], ...] = (
        (lambda: model.score(frame(), alpha=0), "alpha: "),
        (lambda: model.augment(frame(), per_row=0), "per_row: "),
        (lambda: model.augment(frame(), spread=2), "spread: "),
        (lambda: model.reconstruct(frame(), seed=-1), "seed: "),
    )
    for way, words in asked:
        with pytest.raises(InvalidRequest, match=words):
            way()


def test_rows_in_any_batches_are_the_same(
    model: TableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways: tuple[Callable[[Any], Any], ...] = (
        model.score,
        lambda data: model.explain(data, top=3),
        lambda data: model.augment(data, per_row=2, seed=1),
        lambda data: model.reconstruct(data.assign(width=np.nan), seed=1),
    )
    whole = [way(frame()) for way in ways]
    monkeypatch.setattr("nelbo.model.BATCH_ROWS", 7)
    for way, expected in zip(ways, whole, strict=True):
        pd.testing.assert_frame_equal(way(frame()), expected)


def test_copies_balance_the_categories_of_a_column(model: TableModel) -> None:
    data = frame()
    data = data[(data["colour"] != "red") | (np.arange(N) % 4 == 0)]
    copies = model.augment(data, balance="colour", seed=1)
    both = pd.concat([data["colour"], copies["colour"]]).dropna().value_counts()
    assert both.nunique() == 1
    assert both.iloc[0] == data["colour"].value_counts().max()
    assert (copies["colour"] == data["colour"].loc[copies.index]).all()


def test_rows_between_two_percentiles_are_rare_but_plausible(model: TableModel) -> None:
    rare = model.generate(200, rarity=(90, 99), seed=1)
    nelbo = model.score(rare)["nelbo"]
    assert model.odds is not None
    assert model.odds.nelbo is not None
    assert nelbo.between(*model.odds.nelbo).all()
    assert nelbo.min() > model.score(model.generate(200, seed=1))["nelbo"].median()


def test_explained_rows_are_the_least_likely_ones_or_those_asked_for(model: TableModel) -> None:
    scores = model.score(frame()).sort_values("surprise", ascending=False)
    cells = model.explain(frame(), top=3)
    assert cells["row"].unique().tolist() == scores["row"].head(3).tolist()
    assert (cells.groupby("row").size() <= 3).all()
    assert set(model.explain(frame(), rows=[7, 2])["row"]) == {2, 7}
    with pytest.raises(NotFound, match=f"the data has no row {N}; it has {N}"):
        model.explain(frame(), rows=[2, N])


def test_repaired_rows_are_told_with_their_scores_before_and_after(tmp_path: Path) -> None:
    model = nelbo.load(linear_artifact(tmp_path / "linear", surprise=True))
    odd = frame()
    odd.loc[105, "weight"] = 100.0
    cells = model.explain(odd, rows=[5], repair=True)
    assert cells[["row", "id", "column"]].to_numpy().tolist() == [[5, "row 5", "weight"]]
    repaired = odd.assign(weight=odd["weight"].mask(odd.index == 105, float(cells["repaired"][0])))
    after = model.score(repaired).loc[105]
    assert after["p_value"] == cells["p_value_after"][0] >= 0.05


def test_a_file_is_read_and_a_frame_of_pandas_comes_out(model: TableModel, tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "rows.csv", index=False)
    scores = model.score(tmp_path / "rows.csv")
    np.testing.assert_allclose(scores["nelbo"], model.score(frame())["nelbo"], rtol=1e-6)
    filled = model.reconstruct(str(tmp_path / "rows.csv"))
    assert list(filled.columns) == list(frame().columns)
    assert filled["length"].dtype == np.float64


def test_an_array_stands_for_the_columns_in_order(tmp_path: Path) -> None:
    model = nelbo.load(linear_artifact(tmp_path / "linear"))
    with pytest.raises(InvalidInput, match=r"shape \(3, 2\); give one column for each of length"):
        model.score(np.zeros((3, 2)))
    scores = model.score(np.array([[1.0, np.nan, -2.0, 10.0]] * 3))
    assert scores["nelbo"].notna().all()


@pytest.mark.parametrize("wrap", LIBRARIES)
def test_no_rows_in_are_no_rows_out(wrap: Any, model: TableModel) -> None:
    data = wrap(frame()[:0])
    for made in (model.score(data), model.augment(data), model.reconstruct(data)):
        assert len(plain(made)) == 0


def test_a_saved_model_is_loaded_again(model: TableModel, tmp_path: Path) -> None:
    saved = model.save(tmp_path / "deep" / "copy")
    again = nelbo.load(saved)
    assert again.engine.artifact.digest == model.engine.artifact.digest
    assert again.generate(5, seed=1).equals(model.generate(5, seed=1))
    with pytest.raises(Conflict, match="is not empty; name a new folder"):
        model.save(saved)
    (tmp_path / "empty").mkdir()
    model.save(tmp_path / "empty")


def test_a_model_says_what_it_is_and_what_it_can_do(model: TableModel) -> None:
    words = repr(model)
    assert words.startswith("Nelbo model 'linear': 5 columns (id, length, colour, width, …)")
    assert "trained on 99 rows" in words
    for method in ("score", "explain", "generate", "augment", "reconstruct"):
        assert f".{method}(" in words
        assert callable(getattr(model, method))
    assert model.columns == ("id", "length", "colour", "width", "weight")
    assert model.schema.names == model.columns
    assert model.report is None


def test_a_model_of_the_data_folder_is_loaded_by_name_version_and_alias(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NELBO_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NELBO_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFound, match="no model is registered"):
        nelbo.load("linear")
    first = linear_artifact(tmp_path / "first")
    second = linear_artifact(tmp_path / "second", calibration=50)
    with data_folder.opened(Settings(home=tmp_path / "home"), make=True) as here:
        for folder in (first, second):
            data_folder.register(here, folder, "linear")
    digests = {
        name: nelbo.load(name).engine.artifact.digest
        for name in ("linear", "linear@1", "linear@2", "linear@champion", "first")
    }
    assert digests["linear@1"] == digests["first"] != digests["linear@2"]
    assert digests["linear"] == digests["linear@champion"]
    with pytest.raises(NotFound, match="no model 'liner'"):
        nelbo.load("liner")


def test_generated_rows_meet_conditions_and_their_odds_are_kept(model: TableModel) -> None:
    made = model.generate(60, where=["length between 0.5 and 1.5"], balance="colour", seed=1)
    assert made["length"].between(0.5, 1.5).all()
    assert made["colour"].value_counts().tolist() == [20, 20, 20]
    assert model.odds is not None
    assert 0 < model.odds.met < model.odds.rows
    like = model.generate(5, like={"width": np.float64(-2.5)}, weights={"colour": {"red": 1}})
    assert (like["width"] == -2.5).all()
    assert (like["colour"] == "red").all()
    with pytest.raises(InvalidInput, match="no category 'violet'"):
        model.generate(5, where="colour = violet")

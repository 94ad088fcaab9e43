"""NelboDetector on data frames: columns by name, mixed kinds, missing values."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from training.config import Config
from training.estimator import NelboDetector

N = 200
RNG = np.random.default_rng(0)
NUMBERS = pd.DataFrame(RNG.normal(size=(N, 3)) * (1, 10, 100), columns=["a", "b", "c"])


def some(*values: Any) -> list[Any]:
    """N of the values by chance."""
    return [values[at] for at in RNG.integers(0, len(values), N)]


MIXED = pd.DataFrame(
    {
        "number": RNG.normal(size=N),
        "count": pd.array(some(None, 1, 2, 3, 5, 8), dtype="Int64"),
        "text": some("left", "right"),
        "string": pd.array(some("x", "y", None), dtype="string"),
        "arrow": pd.array(some("k", "l"), dtype="string[pyarrow]"),
        "category": pd.Categorical(some("p", "q", None)),
        "code": pd.Categorical(some(1000, 1001, 1002)),
        "flag": some(True, False),
        "maybe": pd.array(some(True, False, None), dtype="boolean"),
        "when": pd.Timestamp("2024-01-01") + pd.to_timedelta(RNG.integers(0, 1000, N), unit="h"),
        "zoned": pd.date_range("2024-01-01", periods=N, tz="Europe/Berlin"),
        "took": pd.to_timedelta(RNG.integers(0, 1000, N), unit="s"),
        "empty": [None] * N,
    }
)
QUICK = Config(min_steps=20, max_steps=20, threads=1)


class Stream:
    """A data frame of another library, as this one sees it: columns, a shape and a stream of Arrow
    batches."""

    def __init__(self, table: pa.Table) -> None:
        self.table, self.columns = table, table.column_names

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.table.__arrow_c_stream__(requested_schema)


@pytest.fixture(scope="module")
def numbers() -> NelboDetector:
    return NelboDetector(config=QUICK).fit(NUMBERS)


@pytest.fixture(scope="module")
def mixed() -> NelboDetector:
    return NelboDetector(config=QUICK).fit(MIXED)


@pytest.mark.parametrize(
    "type_",
    ["float64", "float32", "int64", "uint8", "object", "Float64", "Int64", "float64[pyarrow]"],
)
def test_a_frame_of_numbers_scores_as_its_array_does(type_: Any) -> None:
    frame = NUMBERS.abs().round().clip(0, 255).astype(type_)
    array = frame.to_numpy(dtype="float64")
    by_frame, by_array = (
        NelboDetector(config=QUICK).fit(x).score_samples(x) for x in (frame, array)
    )
    np.testing.assert_array_equal(by_frame, by_array)


def of_polars(frame: pd.DataFrame) -> Any:
    return pytest.importorskip("polars").DataFrame(frame.to_dict("list"))


def of_arrow_batch(frame: pd.DataFrame) -> pa.RecordBatch:
    return pa.RecordBatch.from_pandas(frame)


def of_another_library(frame: pd.DataFrame) -> Stream:
    return Stream(pa.Table.from_pandas(frame))


def with_an_index(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.set_index(pd.Index(range(1, len(frame) + 1), name="index"))


LIBRARIES = (with_an_index, of_polars, pa.Table.from_pandas, of_arrow_batch, of_another_library)


@pytest.mark.parametrize("wrap", LIBRARIES)
def test_every_library_gives_the_same_scores(wrap: Any, numbers: NelboDetector) -> None:
    frame = wrap(NUMBERS)
    np.testing.assert_array_equal(numbers.score_samples(frame), numbers.score_samples(NUMBERS))
    again = NelboDetector(config=QUICK).fit(frame)
    np.testing.assert_array_equal(again.score_samples(frame), numbers.score_samples(NUMBERS))
    assert list(again.feature_names_in_) == ["a", "b", "c"]


@pytest.mark.parametrize("wrap", LIBRARIES)
def test_columns_in_another_order_missing_or_unknown_are_refused(
    wrap: Any, numbers: NelboDetector
) -> None:
    for columns, words in ((["b", "a", "c"], "same order"), (["a", "b"], "now missing:\n- c")):
        with pytest.raises(ValueError, match=words):
            numbers.score_samples(wrap(NUMBERS[columns]))
    with pytest.raises(ValueError, match="unseen at fit time:\n- d"):
        numbers.score_samples(wrap(NUMBERS.assign(d=1)))


def test_names_that_are_no_text_are_no_feature_names() -> None:
    detector = NelboDetector(config=QUICK).fit(NUMBERS.set_axis([0, 1, 2], axis=1))
    assert not hasattr(detector, "feature_names_in_")
    assert detector.n_features_in_ == 3


def test_all_kinds_of_columns_are_scored(mixed: NelboDetector) -> None:
    assert np.isfinite(mixed.score_samples(MIXED)).all()
    assert {column.name: column.kind for column in mixed._schema.columns} == {
        **dict.fromkeys(("number", "count", "took"), "continuous"),
        **dict.fromkeys(("text", "string", "arrow", "category", "code", "empty"), "categorical"),
        **dict.fromkeys(("flag", "maybe"), "boolean"),
        **dict.fromkeys(("when", "zoned"), "datetime"),
    }


def test_a_category_that_does_not_go_with_the_numbers_is_odd() -> None:
    rng = np.random.default_rng(1)
    group = rng.integers(0, 2, 600)
    text = np.array(["left", "right"])
    right = pd.DataFrame({"number": rng.normal(10.0 * group), "text": text[group]})
    detector = NelboDetector(config=Config(min_steps=200, max_steps=200, threads=1)).fit(right)
    turned = right.assign(text=text[1 - group])
    assert (detector.score_samples(turned) < detector.score_samples(right)).mean() > 0.9


def test_a_category_never_seen_and_missing_values_are_scored(mixed: NelboDetector) -> None:
    rows = MIXED[:2].astype({"text": "string"})
    rows.loc[0, "text"], rows.loc[1, ["text", "number", "when"]] = "up", None
    assert np.isfinite(mixed.score_samples(rows)).all()


def test_a_row_scores_alike_in_any_company(mixed: NelboDetector) -> None:
    alone = np.concatenate([mixed.score_samples(MIXED[at : at + 1]) for at in range(5)])
    np.testing.assert_allclose(alone, mixed.score_samples(MIXED)[:5], rtol=1e-12)


def test_of_new_rows_of_a_small_mixed_table_about_the_contamination_is_flagged() -> None:
    def table(n: int, seed: int) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        group = rng.integers(0, 3, n)
        return pd.DataFrame(
            {
                "x": rng.normal(group),
                "g": np.array(list("uvw"))[group],
                "s": rng.choice(list("abcdefgh"), n),
            }
        )

    detector = NelboDetector(config=Config.quick(), contamination=0.2).fit(table(100, 0))
    assert 0.05 < (detector.predict(table(1_000, 1)) == -1).mean() < 0.35


def test_text_that_differs_in_every_row_is_left_out_with_a_warning() -> None:
    named = NUMBERS.assign(name=[f"name {row}" for row in range(N)])
    with pytest.warns(UserWarning, match="column 'name' looks like an identifier"):
        detector = NelboDetector(config=QUICK).fit(named)
    np.testing.assert_array_equal(
        detector.score_samples(named), detector.score_samples(named.assign(name="someone"))
    )
    with pytest.raises(ValueError, match="no column is left to score"):
        NelboDetector(config=QUICK).fit(named[["name"]])


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([[1, 2]] * N, "column 'odd' holds list"),
        ([b"bytes"] * N, "column 'odd' holds binary"),
        ([1, "one"] * (N // 2), "give each column one type"),
        (
            [np.inf, *[1.0] * (N - 1)],
            "row 0: column 'odd' holds 'inf'; the model wants a finite number",
        ),
    ],
)
def test_a_column_that_cannot_be_scored_is_refused_in_words(cells: list[Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        NelboDetector(config=QUICK).fit(NUMBERS.assign(odd=cells))


def test_cells_of_another_kind_are_refused_with_their_row_and_column(mixed: NelboDetector) -> None:
    with pytest.raises(
        ValueError, match="row 1: column 'flag' holds 'perhaps'; the model wants true or false"
    ):
        mixed.score_samples(MIXED[:3].assign(flag=["true", "perhaps", "no"]))


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_an_array_cannot_stand_for_mixed_columns(mixed: NelboDetector) -> None:
    with pytest.raises(ValueError, match="give a data frame with the columns 'number', 'count'"):
        mixed.score_samples(np.zeros((2, MIXED.shape[1])))


def test_a_frame_that_is_too_small_is_refused(numbers: NelboDetector) -> None:
    with pytest.raises(
        ValueError, match="5 rows and 3 columns; the minimum is 1 column and 10 rows"
    ):
        NelboDetector(config=QUICK).fit(NUMBERS[:5])
    with pytest.raises(ValueError, match="0 rows"):
        numbers.score_samples(NUMBERS[:0])

"""Data frames of other libraries as Arrow tables, and back."""

from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from nelbo.errors import InvalidInput
from nelbo.frames import LIBRARIES, alike, from_arrow, library_of, to_arrow

FRAME = pd.DataFrame(
    {
        "count": pd.array([1, None, 3], dtype="Int64"),
        "text": pd.array(["x", None, "y"], dtype="string"),
        "category": pd.Categorical(["p", "q", None]),
        "small": pd.Series([1, 2, 3], dtype="int8"),
        "flag": pd.array([True, None, False], dtype="boolean"),
        "zoned": pd.date_range("2024-01-01", periods=3, tz="Europe/Berlin"),
    }
).set_index(pd.Index([5, 7, 9]))


def test_a_frame_of_pandas_comes_back_with_its_types_and_index() -> None:
    table = to_arrow(FRAME)
    assert table.column_names == list(FRAME.columns)
    pd.testing.assert_frame_equal(alike(FRAME, from_arrow(table, "pandas")), FRAME)
    twice = alike(FRAME, from_arrow(table.take([2, 2]), "pandas"), [2, 2])
    assert twice.index.tolist() == [9, 9]


def test_a_frame_of_polars_comes_back() -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"a": [1, None], "b": ["x", "y"]})
    assert library_of(frame) == "polars"
    assert from_arrow(to_arrow(frame), "polars").equals(frame)


def test_any_library_with_a_stream_of_arrow_batches_is_read() -> None:
    class Streamed:
        columns = ("a",)

        def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
            table: Any = pa.table({"a": [1, 2]})
            return table.__arrow_c_stream__(requested_schema)

    assert to_arrow(Streamed()).equals(pa.table({"a": [1, 2]}))
    assert library_of(Streamed()) == "arrow"


def test_what_is_no_frame_has_the_library_of_frames_that_nobody_asked_for() -> None:
    assert library_of("table.csv") == "pandas"
    assert library_of(pa.table({"a": [1]})) == "arrow"
    for absent in (FRAME["count"], [1, 2], None):
        with pytest.raises(InvalidInput, match="is not a data frame"):
            to_arrow(absent)


def test_a_column_of_several_types_and_a_name_that_is_there_twice_are_refused() -> None:
    with pytest.raises(InvalidInput, match="give each column one type"):
        to_arrow(pd.DataFrame({"odd": [1, "one"]}))
    with pytest.raises(InvalidInput, match="duplicate column names: 'small'"):
        to_arrow(pd.concat([FRAME, FRAME[["small"]]], axis=1))


def test_a_library_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInput, match=f"{', '.join(LIBRARIES)} are"):
        from_arrow(pa.table({"a": [1]}), "duckdb")  # type: ignore[arg-type]

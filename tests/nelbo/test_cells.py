"""What a cell means does not depend on the Arrow type that holds it."""

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nelbo import cells
from nelbo.schema import MISSING

SPELLED: list[tuple[Any, list[str | None]]] = [
    (pa.array([" a ", None, ""]), [" a ", None, ""]),
    (pa.array(["a", None], pa.large_string()), ["a", None]),
    (pa.array(["a", None]).dictionary_encode(), ["a", None]),
    (
        pa.DictionaryArray.from_arrays(pa.array([0, None]), pa.array(["a"], pa.string_view())),
        ["a", None],
    ),
    (pa.array([2**63 - 1, None]), ["9223372036854775807", None]),
    (pa.array([3.0, 0.1, 1e20, float("nan"), None]), ["3", "0.1", "1e+20", None, None]),
    (pa.array([0.1, None], pa.float32()), ["0.1", None]),
    (pa.array(np.array([0.5], np.float16)), ["0.5"]),
    (pa.array([Decimal("1.50"), None]), ["1.50", None]),
    (pa.array([True, None]), ["true", None]),
    (pa.array([dt.date(2024, 2, 29), None]), ["2024-02-29", None]),
    (pa.array([dt.datetime(2024, 2, 29, 1, 2, 3, 400_000)]), ["2024-02-29T01:02:03.4"]),
    (pa.array([0, None], pa.timestamp("s", "Europe/Berlin")), ["1970-01-01T00:00:00Z", None]),
    (pa.array([10_000_000_000], pa.timestamp("ns")), ["1970-01-01T00:00:10"]),
    (pa.array([dt.time(12, 30)], pa.time32("s")), ["12:30:00"]),
    (pa.nulls(2), [None, None]),
]


@pytest.mark.parametrize(("array", "expected"), SPELLED)
def test_every_type_has_one_spelling(array: Any, expected: list[str | None]) -> None:
    assert cells.spelled(array).to_pylist() == expected


def test_text_is_trimmed_and_what_means_missing_is_null() -> None:
    array = pa.array([" a b\t", "", "  ", "NA", " null ", None, "\u00a0x", "na"])
    assert cells.texts(array, MISSING).to_pylist() == [
        "a b",
        None,
        None,
        None,
        None,
        None,
        "x",
        "na",
    ]
    assert cells.texts(array, ("a b",)).to_pylist()[:4] == [None, "", "", "NA"]


@pytest.mark.parametrize("text", ["7", "+7", " 7 ", "7.0", "7.", "0.7e1", "70E-1", "007"])
@pytest.mark.parametrize("beside", ["1", "junk"])
def test_a_number_is_read_in_any_spelling_beside_numbers_and_beside_junk(
    text: str, beside: str
) -> None:
    assert cells.numbers(pa.array([text, beside]), MISSING).values[0] == 7


@pytest.mark.parametrize("missing", ["", "NaN", "nan", "NAN", "null", None])
@pytest.mark.parametrize("beside", ["1", "junk"])
def test_a_missing_number_is_no_fault(missing: str | None, beside: str) -> None:
    column = cells.numbers(pa.array([missing, beside]), MISSING)
    assert np.isnan(column.values[0])
    assert not any(mask[0] for mask in column.faults.values())


def test_the_values_can_be_written_to_without_touching_the_column() -> None:
    array = pa.array([1.5, 2.5])
    cells.numbers(array, MISSING).values[:] = 0
    assert array.to_pylist() == [1.5, 2.5]


def test_a_slice_means_what_its_own_rows_mean() -> None:
    array = pa.array(["1", "x", "3", None, "5"]).slice(2)
    assert cells.numbers(array, MISSING).values.tolist()[0::2] == [3, 5]
    assert cells.codes(pa.array(["a", "b", None, "a"]).slice(1), MISSING, ("a", "b")).tolist() == [
        1,
        3,
        0,
    ]
    assert cells.booleans(pa.array([True, False, None]).slice(1), MISSING).values[0] == 0

"""Arrow types by their names, and values in a type."""

import datetime as dt
import io
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nelbo.schema import Column
from nelbo.spelling.types import as_type, named, type_of

TYPES: list[tuple[pa.DataType, Any, list[Any]]] = [
    (pa.int8(), [1, 300, None], [1, 127, None]),
    (pa.uint16(), [-1, 5, None], [0, 5, None]),
    (pa.uint64(), [1, None], [1, None]),
    (pa.float16(), [1.5, None], [1.5, None]),
    (pa.float32(), [1.5, None], [1.5, None]),
    (pa.decimal128(5, 2), [1.234, None], [Decimal("1.23"), None]),
    (pa.decimal256(50, 0), [7, None], [Decimal(7), None]),
    (pa.duration("ms"), [5, None], [dt.timedelta(milliseconds=5), None]),
    (pa.time32("s"), ["12:30:00", None], [dt.time(12, 30), None]),
    (pa.time64("us"), ["12:30:00.5", None], [dt.time(12, 30, 0, 500_000), None]),
    (pa.large_string(), ["a", None], ["a", None]),
    (pa.string_view(), ["a", None], ["a", None]),
    (pa.dictionary(pa.int8(), pa.string()), ["a", None, "a"], ["a", None, "a"]),
    (pa.dictionary(pa.int32(), pa.int64(), ordered=True), [5, None], [5, None]),
]
MOMENTS: list[tuple[pa.DataType, list[Any]]] = [
    (pa.date32(), [dt.date(2023, 3, 7), None]),
    (pa.date64(), [dt.date(2023, 3, 7), None]),
    (pa.timestamp("s"), [dt.datetime(2023, 3, 7), None]),
    (pa.timestamp("ns"), [dt.datetime(2023, 3, 7), None]),
]


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    TYPES,
    ids=lambda value: str(value) if isinstance(value, pa.DataType) else "",
)
def test_a_type_is_known_by_its_name_and_values_are_cast_to_it(
    kind: pa.DataType, values: list[Any], expected: list[Any]
) -> None:
    assert named(str(kind)) == kind
    array = as_type(pa.array(values), kind)
    assert array.type == kind
    assert array.to_pylist() == expected


@pytest.mark.parametrize(("kind", "expected"), MOMENTS, ids=str)
def test_moments_are_cast_to_dates_and_times(kind: pa.DataType, expected: list[Any]) -> None:
    array = as_type(pa.array([dt.datetime(2023, 3, 7), None], pa.timestamp("us")), kind)
    assert array.type == named(str(kind)) == kind
    assert [
        value if value is None else type(expected[0])(value.year, value.month, value.day)
        for value in array.to_pylist()
    ] == expected


def test_a_moment_out_of_the_range_of_nanoseconds_is_the_nearest_in_it() -> None:
    array = as_type(
        pa.array([dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31)], pa.timestamp("us")),
        pa.timestamp("ns"),
    )
    assert [value.year for value in array.cast(pa.timestamp("us"), safe=False).to_pylist()] == [
        1677,
        2262,
    ]


@pytest.mark.parametrize(
    "name",
    ["list<item: int8>", "struct<a: int8>", "no type", "", "timestamp[xs]", "decimal128(99, 2)"],
)
def test_a_name_that_is_no_type_of_a_column_is_none(name: str) -> None:
    assert named(name) is None


@pytest.mark.parametrize(
    "name", ["decimal128(5, 2)", "decimal128(5, 5)", "decimal128(5, -2)", "decimal128(10, 37)"]
)
def test_made_numbers_have_a_type_that_parquet_can_hold(name: str) -> None:
    kind = type_of(Column(name="x", kind="continuous", type=name)) or pa.float64()
    pq.write_table(pa.table({"x": as_type(pa.array([0.0, None]), kind)}), io.BytesIO())

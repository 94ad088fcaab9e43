"""Every Arrow type in every file that can hold it: read as a column, or left out with a notice,
never the table refused."""

import base64
import datetime as dt
import decimal
import hashlib
import io
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nelbo.encoding import encode
from nelbo.errors import InvalidInput
from nelbo.files import FORMATS, open_table, part_name, read_into_parts, read_parts, write_parts
from nelbo.schema import Kind, Schema
from nelbo.schema_inference import infer
from tests.nelbo.files.tables import opened, rows_of, written

D = decimal.Decimal
UUIDS = ["12345678-9abc-def0-1234-56789abcdef0", "00000000-0000-0000-0000-000000000000"]
RAW_UUIDS = [uuid.UUID(text).bytes for text in UUIDS]
NOON = [dt.time(12), dt.time(0, 0, 1)]
DAYS = [dt.date(2024, 2, 29), dt.date(1969, 12, 31)]
TIMES = [dt.datetime(2024, 2, 29, 12), dt.datetime(1969, 12, 31)]
ZONED = [time.replace(tzinfo=dt.UTC) for time in TIMES]


def _coded(values: Any, index: Any = pa.int32()) -> Any:  # noqa: B008  # immutable
    return pa.DictionaryArray.from_arrays(pa.array([0, 1, None], index), values)


def _runs(values: Any) -> Any:
    """Three rows: the first value, the second, nothing."""
    return pa.RunEndEncodedArray.from_arrays(
        pa.array([1, 2, 3], pa.int16()), pa.concat_arrays([values, pa.nulls(1, values.type)])
    )


def _extended(kind: Any, storage: Any) -> Any:
    return pa.ExtensionArray.from_storage(kind, storage)


Values = list[Any]
TYPES: dict[str, tuple[Any, Values | str]] = {
    # Three rows each, the last one null. Then the first two as they are read, or what the notice
    # calls them.
    **{
        str(kind): (pa.array([1, 100, None], kind), [1, 100])
        for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64())
    },
    **{
        str(kind): (pa.array([1, 200, None], kind), [1, 200])
        for kind in (pa.uint8(), pa.uint16(), pa.uint32())
    },
    "uint64": (pa.array([1, 2**64 - 1, None], pa.uint64()), [1, 2**64 - 1]),
    **{
        str(kind): (pa.array([1.5, -2.0, None], kind), [1.5, -2.0])
        for kind in (pa.float16(), pa.float32(), pa.float64())
    },
    "bool": (pa.array([True, False, None]), [True, False]),
    "decimal32": (
        pa.array([D("1.50"), D("-2.25"), None], pa.decimal32(5, 2)),
        [D("1.50"), D("-2.25")],
    ),
    "decimal64": (
        pa.array([D("1.50"), D("-2.25"), None], pa.decimal64(15, 2)),
        [D("1.50"), D("-2.25")],
    ),
    "decimal128": (
        pa.array([D("1.50"), D("-2.25"), None], pa.decimal128(38, 2)),
        [D("1.50"), D("-2.25")],
    ),
    "decimal256": (
        pa.array([D("1.50"), D("-2.25"), None], pa.decimal256(60, 2)),
        [D("1.50"), D("-2.25")],
    ),
    "128-bit integer": (
        pa.array([D(10**37), D(-1), None], pa.decimal128(38, 0)),
        [D(10**37), D(-1)],
    ),
    "hundreds": (pa.array([D("1E+2"), D("3E+2"), None], pa.decimal128(5, -2)), [100.0, 300.0]),
    "very small decimals": (
        pa.array([D("1E-30"), D("-1E-30"), None], pa.decimal128(10, 37)),
        [1e-30, -1e-30],
    ),
    "text": (pa.array(["a", "b", None]), ["a", "b"]),
    "large text": (pa.array(["a", "b", None], pa.large_string()), ["a", "b"]),
    "text view": (pa.array(["a", "b", None], pa.string_view()), ["a", "b"]),
    "nothing": (pa.nulls(3), [None, None]),
    "bytes of text": (pa.array(["ü".encode(), b"b", None]), ["ü", "b"]),
    "bytes": (pa.array([b"\xff\x00", b"\x01", None]), ["ff00", "01"]),
    "large bytes": (pa.array([b"\xff\x00", b"b", None], pa.large_binary()), ["ff00", "b"]),
    "view of bytes": (pa.array([b"\xff\x00", b"b", None], pa.binary_view()), ["ff00", "b"]),
    "bytes of one length": (pa.array([b"\xff\x00", b"ab", None], pa.binary(2)), ["ff00", "ab"]),
    "long bytes": (
        pa.array([b"\xff" * 3_000_000, b"\xff" * 1_024, None]),
        ["sha256:" + hashlib.sha256(b"\xff" * 3_000_000).hexdigest(), "ff" * 1_024],
    ),
    "16 bytes": (pa.array([*RAW_UUIDS, None], pa.binary(16)), UUIDS),
    "uuid": (_extended(pa.uuid(), pa.array([*RAW_UUIDS, None], pa.binary(16))), UUIDS),
    "json": (_extended(pa.json_(), pa.array(['{"a": 1}', "[]", None])), ['{"a": 1}', "[]"]),
    "bool8": (_extended(pa.bool8(), pa.array([1, 0, None], pa.int8())), [1, 0]),
    "opaque": (
        _extended(pa.opaque(pa.binary(), "name", "vendor"), pa.array([b"\xff", b"b", None])),
        ["ff", "b"],
    ),
    "tensor": (
        _extended(
            pa.fixed_shape_tensor(pa.int8(), [2]),
            pa.array([[1, 2], [3, 4], None], pa.list_(pa.int8(), 2)),
        ),
        "lists",
    ),
    "date32": (pa.array([*DAYS, None], pa.date32()), DAYS),
    "date64": (pa.array([*DAYS, None], pa.date64()), DAYS),
    "time32 in s": (pa.array([*NOON, None], pa.time32("s")), NOON),
    "time32 in ms": (pa.array([*NOON, None], pa.time32("ms")), NOON),
    "time64 in us": (pa.array([*NOON, None], pa.time64("us")), NOON),
    "time64 in ns": (pa.array([*NOON, None], pa.time64("ns")), NOON),
    **{
        f"{name} in {unit}": (pa.array([*times, None], pa.timestamp(unit, zone)), times)
        for unit in ("s", "ms", "us", "ns")
        for name, zone, times in (
            ("naive time", None, TIMES),
            ("zoned time", "Europe/Paris", ZONED),
        )
    },
    **{
        f"duration in {unit}": (pa.array([5, -1, None], pa.duration(unit)), [5, -1])
        for unit in ("s", "ms", "us", "ns")
    },
    "interval": (
        pa.array([(1, 2, 3), (0, 0, 1), None], pa.month_day_nano_interval()),
        "intervals of months, days and nano",
    ),
    "coded text": (_coded(pa.array(["a", "b"])), ["a", "b"]),
    **{
        f"coded by {kind}": (_coded(pa.array(["a", "b"]), kind), ["a", "b"])
        for kind in (pa.uint8(), pa.uint32(), pa.uint64())
    },
    "coded integers": (_coded(pa.array([7, 8])), [7, 8]),
    "coded dates": (_coded(pa.array(DAYS)), DAYS),
    "coded decimals": (_coded(pa.array([D("1.5"), D("2.5")])), [D("1.5"), D("2.5")]),
    "coded bytes": (_coded(pa.array([b"\xff", b"b"])), ["ff", "b"]),
    "coded views": (_coded(pa.array(["a", "b"], pa.string_view())), ["a", "b"]),
    "coded null": (_coded(pa.array(["a", None])), ["a", None]),
    "coded lists": (_coded(pa.array([[1], [2]])), "lists"),
    "runs of text": (_runs(pa.array(["a", "b"])), ["a", "b"]),
    "runs of views": (_runs(pa.array(["a", "b"], pa.string_view())), ["a", "b"]),
    "runs of integers": (_runs(pa.array([7, 8])), [7, 8]),
    "runs of lists": (_runs(pa.array([[7], [8]])), "lists"),
    "lists": (pa.array([[1], [2, 3], None]), "lists"),
    "lists of nulls": (pa.array([[None], [], None], pa.list_(pa.null())), "lists"),
    "lists of structs": (pa.array([[{"a": 1}], [], None]), "lists"),
    "large lists": (pa.array([[1], [], None], pa.large_list(pa.int8())), "lists"),
    "lists of one length": (pa.array([[1, 2], [3, 4], None], pa.list_(pa.int8(), 2)), "lists"),
    "list views": (pa.array([[1], [2], None], pa.list_view(pa.int8())), "lists"),
    "structs": (pa.array([{"a": 1, "b": "x"}, {"a": 2, "b": None}, None]), "structs"),
    "structs of nothing": (pa.array([{}, {}, None], pa.struct([])), "structs"),
    "maps": (pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int8())), "maps"),
    "sparse union": (
        pa.UnionArray.from_sparse(
            pa.array([0, 1, 0], pa.int8()), [pa.array([1, 2, 3]), pa.array(["x", "y", "z"])]
        ),
        "unions",
    ),
    "dense union": (
        pa.UnionArray.from_dense(
            pa.array([0, 1, 0], pa.int8()),
            pa.array([0, 0, 1], pa.int32()),
            [pa.array([1, 2]), pa.array(["x"])],
        ),
        "unions",
    ),
}
ARROW_ALONE = {
    "very small decimals",
    *(
        "hundreds",
        "interval",
        "coded views",
        "coded null",
        "coded lists",
        "structs of nothing",
        "sparse union",
        "dense union",
    ),
    *("runs of text", "runs of views", "runs of integers", "runs of lists"),
}
"""What Parquet cannot hold."""


def _parquet(table: pa.Table, with_arrow_schema: bool = True) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, store_schema=with_arrow_schema)
    return file.getvalue()


def _arrow(table: pa.Table, new: Any = pa.ipc.new_stream) -> bytes:
    file = io.BytesIO()
    with new(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()


def _files(table: pa.Table, parquet: bool) -> Iterator[tuple[str, bytes]]:
    """The table in each kind of file, with its format."""
    if parquet:
        yield "parquet", _parquet(table)
        yield "parquet", _parquet(table, with_arrow_schema=False)
    yield "arrow", _arrow(table, pa.ipc.new_file)
    yield "arrow", _arrow(table)


@pytest.mark.parametrize("name", TYPES)
def test_every_type_is_read_or_left_out_with_a_notice_and_the_other_columns_are_untouched(
    name: str,
) -> None:
    array, expected = TYPES[name]
    table = pa.table({"before": [1, 2, 3], "x.y": array, "after": ["p", "q", "r"]})
    for format, content in _files(table, parquet=name not in ARROW_ALONE):
        with opened(content, format) as read:
            batches = list(read.batches())
        (batch,) = batches
        assert batch.column("before").to_pylist() == [1, 2, 3]
        assert batch.column("after").to_pylist() == ["p", "q", "r"]
        if isinstance(expected, str):
            assert read.names == ("before", "after")
            assert len(read.notices) == 1
            assert f"column 'x.y' holds {expected}" in read.notices[0]
        else:
            assert read.names == ("before", "x.y", "after")
            assert read.notices == () or name.startswith("duration")
            assert batch.column("x.y").to_pylist() == [*expected, None]


@pytest.mark.parametrize("name", TYPES)
def test_what_is_read_can_be_inferred_uploaded_and_written_in_every_format(name: str) -> None:
    table = pa.table({"n": [1, 2, 3], "x": TYPES[name][0]})
    with opened(_arrow(table), "arrow") as read:
        (batch,) = read.batches()
    assert infer([batch]).names == read.names
    assert write_parts([batch], lambda number, path: None).rows == 3
    for format in FORMATS:
        assert len(rows_of(opened(written(batch, format), format))) == 3


EXTREMES = {
    **{str(kind): kind for kind in (pa.int64(), pa.uint64(), pa.date32())},
    **{
        str(kind): kind
        for unit in ("s", "ms", "us", "ns")
        for kind in (pa.timestamp(unit), pa.timestamp(unit, "UTC"))
    },
    **{str(kind): kind for kind in (pa.float16(), pa.float32(), pa.float64())},
}


@pytest.mark.parametrize("name", EXTREMES)
def test_the_least_and_the_largest_number_of_each_type_reach_the_engine_or_are_errors_of_their_rows(
    name: str, tmp_path: Path
) -> None:
    kind = EXTREMES[name]
    bits: Any = np.array(
        [1 << kind.bit_width - 1, 0, (1 << kind.bit_width - 1) - 1], f"uint{kind.bit_width}"
    )
    array = pa.array(bits).view(kind)
    with opened(_arrow(pa.table({"x": array})), "arrow") as table:
        reading = read_into_parts(table, tmp_path)
    (batch,) = read_parts(lambda number: (tmp_path / part_name(number)).open("rb"), 0, 3)
    for kind_of_column in get_args(Kind):
        column = reading.columns[0].model_copy(
            update={"kind": kind_of_column, "categories": ("0",)}
        )
        encoded = encode(batch, Schema(columns=(column,)))
        assert len(encoded.rows) + len(encoded.errors) == 3


@pytest.mark.parametrize(
    "name", [name for name, (_, expected) in TYPES.items() if not isinstance(expected, str)]
)
def test_what_is_read_in_several_batches_can_be_inferred_and_encoded_as_any_kind(name: str) -> None:
    array = TYPES[name][0]
    columns: Any = {"x": pa.chunked_array([array.slice(1, 1), array.slice(0, 1)])}
    with opened(_arrow(pa.table(columns)), "arrow") as read:
        batches = list(read.batches())
    assert len(batches) == 2
    column = infer(batches).columns[0]
    for kind in get_args(Kind):
        schema = Schema(
            columns=(column.model_copy(update={"kind": kind, "categories": ("a", "1")}),)
        )
        for batch in batches:
            assert len(encode(batch, schema).rows) <= 1


def test_a_parquet_file_whose_footer_counts_rows_that_no_row_group_has_is_refused() -> None:
    empty = pa.table({"x": pa.array([], pa.int64())})
    content = _parquet(empty, with_arrow_schema=False)
    size = int.from_bytes(content[-8:-4], "little")
    footer = content[-8 - size : -8]
    count = footer.index(
        b"\x16\x00"
    )  # the third field of the footer, a number of 64 bits: the rows
    lying = footer[:count] + b"\x16\x0a" + footer[count + 2 :]
    with pytest.raises(InvalidInput, match="no rows"):
        opened(content[: -8 - size] + lying + content[-8:], "parquet")


def test_dictionaries_that_grow_or_change_within_a_stream_are_followed() -> None:
    first, second = (
        pa.array(["a", "b"]).dictionary_encode(),
        pa.array(["c", "b", "a"]).dictionary_encode(),
    )
    for deltas in (True, False):
        file = io.BytesIO()
        schema = pa.schema([("x", first.type)])
        options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=deltas)
        grown = pa.DictionaryArray.from_arrays(
            pa.array([2, 0], pa.int32()), pa.array(["a", "b", "c"])
        )
        with pa.ipc.new_stream(file, schema, options=options) as writer:
            for array in (first, grown, *([] if deltas else [second])):
                writer.write_batch(pa.record_batch([array], schema=schema))
        rows = [row["x"] for row in rows_of(opened(file.getvalue(), "arrow"))]
        assert rows == ["a", "b", "c", "a", *([] if deltas else ["c", "b", "a"])]


def test_a_text_is_the_same_whatever_stands_beside_it_in_a_column_of_bytes() -> None:
    """So that a row's score does not depend on the other rows of its table."""
    alone, beside = pa.table({"x": pa.array([b"ab"])}), pa.table({"x": pa.array([b"ab", b"\xff"])})
    read = [rows_of(opened(_parquet(table), "parquet"))[0]["x"] for table in (alone, beside)]
    assert read == ["ab", "ab"]


def test_the_notice_names_ten_columns_of_a_kind_and_counts_the_others() -> None:
    table = pa.table({"a": [1]} | {f"l{at}": [[1]] for at in range(12)} | {"s": [{"b": 1}]})
    with opened(_parquet(table), "parquet") as read:
        assert read.names == ("a",)
    first, second = read.notices
    assert first.startswith("the columns 'l0', 'l1',")
    assert (
        "and 2 more hold lists, which have no meaning as a column here: they are left out" in first
    )
    assert second.startswith("the column 's' holds structs")


@pytest.mark.parametrize(
    ("unit", "word"),
    [("s", "seconds"), ("ms", "milliseconds"), ("us", "microseconds"), ("ns", "nano")],
)
def test_the_unit_of_durations_is_told(unit: Any, word: str) -> None:
    with opened(_arrow(pa.table({"wait": pa.array([1, 2], pa.duration(unit))})), "arrow") as read:
        (notice,) = read.notices
    assert notice.startswith(
        f"the column 'wait' holds durations: they are read as numbers of {word}"
    )


def test_the_parts_of_a_struct_are_not_taken_for_a_column_whose_name_has_a_point() -> None:
    table = pa.table(
        [pa.array([1]), pa.array([{"b": 2}]), pa.array([[3]]), pa.array([4])],
        names=["a.b", "a", "l", "l.list.element"],
    )
    assert rows_of(opened(_parquet(table), "parquet")) == [{"a.b": 1, "l.list.element": 4}]


def test_the_index_that_pandas_hides_in_parquet_comes_under_its_name(tmp_path: Path) -> None:
    import pandas as pd

    path = tmp_path / "t.parquet"
    pd.DataFrame({"a": [1.5, None]}, index=[7, 3]).to_parquet(path)
    assert rows_of(open_table(path)) == [
        {"a": 1.5, "__index_level_0__": 7},
        {"a": None, "__index_level_0__": 3},
    ]
    pd.DataFrame({"a": [1.5, None]}).to_parquet(path)
    assert rows_of(open_table(path)) == [{"a": 1.5}, {"a": None}]


def test_a_column_that_is_left_out_is_not_decoded() -> None:
    """Neither its damage nor its size matters: 5 million nulls in three rows are gone past."""
    file = io.BytesIO()
    nulls = pa.ListArray.from_arrays(
        pa.array([0, 0, 0, 5_000_000], pa.int32()), pa.nulls(5_000_000, pa.int64())
    )
    pq.write_table(pa.table({"a": [1, 2, 3], "l": nulls}), file, compression="zstd")
    before = pa.total_allocated_bytes()
    with opened(file.getvalue(), "parquet") as read:
        for batch in read.batches():
            assert batch.to_pydict() == {"a": [1, 2, 3]}
            assert pa.total_allocated_bytes() - before < 5 * 2**20

    marker = b"a text that is long enough to be found again"
    content = _arrow(pa.table({"a": [1], "l": [[marker.decode()]]}))
    damaged = content.replace(marker, marker[:-1] + b"\xff")
    assert rows_of(opened(damaged, "arrow")) == [{"a": 1}]


def test_a_time_zone_that_is_not_utf_8_is_a_broken_encoding() -> None:
    zone, broken = b"Europe/Paris", b"Europe/\xffaris"
    table = pa.table({"x": pa.array(TIMES, pa.timestamp("us", zone.decode()))})
    coded: Any = {"x": table.column("x").dictionary_encode()}
    parquet = _parquet(table)
    schema: bytes = pq.read_schema(io.BytesIO(parquet)).serialize().to_pybytes()
    sound, changed = (base64.b64encode(one) for one in (schema, schema.replace(zone, broken)))
    assert sound in parquet
    contents = [
        ("parquet", parquet.replace(sound, changed)),
        ("arrow", _arrow(table).replace(zone, broken)),
        ("arrow", _arrow(pa.table(coded)).replace(zone, broken)),
    ]
    for format, content in contents:
        with pytest.raises(InvalidInput, match="broken encoding"):
            opened(content, format)


def test_text_that_is_not_utf_8_is_called_so_and_names_its_column() -> None:
    content = _arrow(pa.table({"a": [1], "word": ["marker"]}))
    with pytest.raises(
        InvalidInput,
        match="column 'word' of the table has a broken encoding: its text is not UTF-8",
    ):
        rows_of(opened(content.replace(b"marker", b"mark\xffr"), "arrow"))

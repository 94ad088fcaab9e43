"""Parquet and Arrow IPC for the fuzzer: tables of all types, footers, page headers and messages."""

import copy
import io
import struct
import uuid
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz import mutations, tables, thrift
from tests.fuzz.tables import Opening

MODULES = ("columnar",)
PARQUET = (
    *[Opening("parquet")] * 8,
    Opening(None, name=None),
    Opening("parquet", pipe=True),
    Opening("csv"),
)
ARROW = (
    *[Opening("arrow")] * 8,
    Opening(None, name=None),
    Opening("arrow", pipe=True),
    Opening("jsonl"),
)
_DAY = datetime(2024, 2, 29, 12, 30, 15, 123_456)
_VALUES: tuple[tuple[Any, tuple[Any, ...]], ...] = (
    *((kind, (0, 1, 2, 100, 127)) for kind in (pa.int8(), pa.uint8(), pa.int16(), pa.uint32())),
    (pa.int64(), (0, 1, -1, 2**53, 2**63 - 1, -(2**63))),
    (pa.uint64(), (0, 1, 2**64 - 1)),
    *(
        (kind, (0.0, 1.5, -0.0, float("nan"), float("inf")))
        for kind in (pa.float16(), pa.float32(), pa.float64())
    ),
    (pa.bool_(), (True, False)),
    *(
        (kind, (Decimal("1.50"), Decimal("-9.99")))
        for kind in (pa.decimal128(10, 2), pa.decimal256(40, 2), pa.decimal32(5, 2))
    ),
    (pa.decimal128(10, -2), (Decimal("1200"), Decimal("-100"))),
    (pa.date32(), (date(2024, 2, 29), date(1, 1, 1), date(9999, 12, 31))),
    (pa.date64(), (date(2024, 2, 29), date(1969, 12, 31))),
    *((pa.timestamp(unit), (_DAY, datetime(1970, 1, 1))) for unit in ("s", "ms", "us", "ns")),
    (pa.timestamp("us", "UTC"), (_DAY, datetime(1, 1, 1), datetime(9999, 12, 31))),
    (pa.timestamp("ms", "Europe/Berlin"), (_DAY,)),
    (pa.timestamp("ms", "Nowhere/None"), (_DAY,)),
    (pa.timestamp("s"), (2**62, -(2**62))),
    *(
        (kind, (time(12, 30), time(0, 0, 1)))
        for kind in (pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"))
    ),
    *((pa.duration(unit), (timedelta(seconds=5), timedelta(days=-1))) for unit in ("s", "ns")),
    *(
        (kind, ("a", "b", "", " 1,5 ", "é"))
        for kind in (pa.string(), pa.large_string(), pa.string_view())
    ),
    (pa.string(), ("1.234,5", "12,5", "7")),
    (pa.string(), ("2024-01-31", "2024-02-01")),
    *(
        (kind, (b"a", b"\xff", b"\0", b"x" * 2_000))
        for kind in (pa.binary(), pa.large_binary(), pa.binary_view())
    ),
    (pa.binary(16), (uuid.UUID(int=5).bytes, b"\xff" * 16)),
    (pa.binary(3), (b"abc", b"\xff\0\1")),
    (pa.null(), (None,)),
    (pa.dictionary(pa.int8(), pa.string()), ("a", "b")),
    (pa.dictionary(pa.int32(), pa.int64()), (5, 6)),
    (pa.list_(pa.int64()), ([1], [])),
    (pa.list_(pa.int64(), 2), ([1, 2],)),
    (pa.large_list(pa.string()), (["a"],)),
    (pa.struct([("x", pa.int64())]), ({"x": 1},)),
    (pa.map_(pa.string(), pa.int64()), ([("a", 1)],)),
    (pa.month_day_nano_interval(), ((1, 2, 3),)),
    (pa.uuid(), (uuid.UUID(int=7).bytes,)),
    (pa.json_(pa.string()), ("{}",)),
    (pa.bool8(), (1, 0)),
)


def read_parquet(content: bytes, folder: Path) -> None:
    tables.read(content, folder, PARQUET)


def read_arrow(content: bytes, folder: Path) -> None:
    tables.read(content, folder, ARROW)


def parquet_seeds() -> list[bytes]:
    rng = Random(3)
    return tables.inputs([as_parquet(rng) for _ in range(60)])


def arrow_seeds() -> list[bytes]:
    rng = Random(4)
    return tables.inputs([as_arrow(rng) for _ in range(60)])


def mutate_parquet(rng: Random, content: bytes) -> bytes:
    return tables.changed(rng, content, _changed_parquet)


def mutate_arrow(rng: Random, content: bytes) -> bytes:
    return tables.changed(rng, content, _changed_arrow)


def table(rng: Random, only_arrow: bool) -> pa.Table:
    """A small table of random types, some of its cells null."""
    rows, columns = rng.choice((0, 1, 3, 25, 80)), {}
    for at in range(rng.choice((1, 1, 2, 4, 8))):
        kind, values = rng.choice(_VALUES)
        array: Any = pa.array([rng.choice((*values, None)) for _ in range(rows)], kind)
        if only_arrow and rng.random() < 0.1:
            array = rng.choice((_run_ends, _union, _nested))(array)
        columns[
            rng.choice(
                (
                    f"c{at}",
                    f"c{at}",
                    f"c{at}",
                    f"a.{at}",
                    f" {at}",
                    "",
                    "index",
                    "id",
                    "__index_level_0__",
                )
            )
        ] = array
    if only_arrow or not any(
        pa.types.is_decimal(array.type) and array.type.scale < 0 for array in columns.values()
    ):
        return pa.table(columns)
    return table(rng, only_arrow)


def _run_ends(array: Any) -> Any:
    size = len(array)
    return (
        pa.RunEndEncodedArray.from_arrays(pa.array(range(1, size + 1), pa.int32()), array)
        if size
        else array
    )


def _union(array: Any) -> Any:
    return pa.UnionArray.from_sparse(pa.array([0] * len(array), pa.int8()), [array])


def _nested(array: Any) -> Any:
    return pa.StructArray.from_arrays([array], ["inner"])


def as_parquet(rng: Random) -> bytes:
    file = io.BytesIO()
    options: dict[str, Any] = {
        "compression": rng.choice(("none", "snappy", "gzip", "zstd", "lz4", "brotli")),
        "row_group_size": rng.choice((None, 1, 7)),
        "use_dictionary": rng.random() < 0.5,
        "data_page_version": rng.choice(("1.0", "2.0")),
        "version": rng.choice(("1.0", "2.4", "2.6")),
        "write_statistics": rng.random() < 0.5,
        "store_schema": rng.random() < 0.7,
        "write_page_index": rng.random() < 0.2,
        "write_page_checksum": rng.random() < 0.2,
        "use_byte_stream_split": rng.random() < 0.1,
        "data_page_size": rng.choice((None, 64)),
    }
    if options["use_byte_stream_split"]:
        options["use_dictionary"] = False
    for _ in range(20):
        try:
            pq.write_table(table(rng, only_arrow=False), file, **options)
            break
        except (pa.ArrowException, OSError):  # Parquet does not have all of Arrow's types
            file = io.BytesIO()
            options["use_byte_stream_split"] = False
    return file.getvalue()


def as_arrow(rng: Random) -> bytes:
    file = io.BytesIO()
    codec: Any = rng.choice((None, None, "lz4", "zstd"))
    batches = table(rng, only_arrow=True)
    make = rng.choice((pa.ipc.new_stream, pa.ipc.new_file))
    with make(
        file,
        batches.schema,
        options=pa.ipc.IpcWriteOptions(compression=codec, emit_dictionary_deltas=True),
    ) as writer:
        writer.write_table(batches, max_chunksize=rng.choice((5, 1_000)))
    return file.getvalue()


def _changed_parquet(rng: Random, content: bytes) -> bytes:
    choice = rng.random()
    if choice < 0.1:
        return as_parquet(rng)
    if choice < 0.35 or len(content) < 12:
        return mutations.changed(rng, content)
    try:
        return _changed_page(rng, content) if choice < 0.55 else _changed_footer(rng, content)
    except (ValueError, IndexError):
        return mutations.changed(rng, content)


def _footer(content: bytes) -> tuple[int, thrift.Struct]:
    start = len(content) - 8 - struct.unpack("<I", content[-8:-4])[0]
    if not 0 < start < len(content):
        raise ValueError("no footer")
    return start, thrift.read(content, start)[0]


def _changed_footer(rng: Random, content: bytes) -> bytes:
    start, fields = _footer(content)
    fields = copy.deepcopy(fields)
    thrift.change(rng, fields)
    footer = thrift.written(fields)
    return content[:start] + footer + struct.pack("<I", len(footer)) + b"PAR1"


def _changed_page(rng: Random, content: bytes) -> bytes:
    """A page header is changed, or a byte of the page behind it; the offsets of later pages move
    along if it can be."""
    start, fields = _footer(content)
    numbers = [
        value
        for struct_ in thrift._structs(fields)
        for _, kind, value in struct_
        if kind == thrift.I64
    ]
    at = rng.choice([value for value in numbers if 4 <= value < start])
    page, end = thrift.read(content, at)
    if rng.random() < 0.3:
        return content[:end] + mutations.integer(rng, content[end : end + 24]) + content[end + 24 :]
    thrift.change(rng, page)
    return content[:at] + thrift.written(page) + content[end:]


def _changed_arrow(rng: Random, content: bytes) -> bytes:
    choice = rng.random()
    if choice < 0.1:
        return as_arrow(rng)
    if choice < 0.35:
        return mutations.changed(rng, content)
    head = 8 if content.startswith(b"ARROW1") else 0
    pieces = content[head:].split(b"\xff\xff\xff\xff")
    at = rng.randrange(len(pieces))
    if choice < 0.5:
        pieces = mutations.taken(rng, pieces)
    elif choice < 0.9 or not head:
        pieces[at] = _with_number(rng, pieces[at])
    else:  # the footer, which is at the end of a file
        pieces[-1] = mutations.integer(rng, pieces[-1], max(0, len(pieces[-1]) - 200))
    return content[:head] + b"\xff\xff\xff\xff".join(pieces)


def _with_number(rng: Random, message: bytes) -> bytes:
    """A number of the message's metadata, most of which have four or eight bytes and stand at
    multiples of their size."""
    size = rng.choice((1, 2, 4, 4, 8))
    length = struct.unpack_from("<I", message.ljust(4, b"\0"))[0]
    places = range(4, min(len(message), 4 + length) - size, size)
    if not places:
        return mutations.changed(rng, message)
    at = rng.choice(places)
    value: int = int.from_bytes(message[at : at + size], "little")
    return (
        message[:at]
        + (mutations.number(rng, value) % (1 << 8 * size)).to_bytes(size, "little")
        + message[at + size :]
    )

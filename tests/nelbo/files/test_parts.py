"""Parts hold the rows of a table in their order, and any range of rows can be read from those that
it needs."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pytest

from nelbo.files import Digest, parts, read_parts, write_parts
from nelbo.files.parts import Content

TABLE = pa.table(
    {"n": list(range(95)), "text": [None if at % 7 == 0 else f"t{at}" for at in range(95)]}
)


@pytest.fixture
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_ROWS", 10)


class Kept:
    """Parts in memory, and which of them were opened."""

    def __init__(self) -> None:
        self.parts: dict[int, bytes] = {}
        self.opened: list[int] = []

    def put(self, number: int, path: Path) -> None:
        self.parts[number] = path.read_bytes()

    def open(self, number: int) -> BinaryIO:
        self.opened.append(number)
        return io.BytesIO(self.parts[number])


def cut(rows: int) -> Iterator[pa.RecordBatch]:
    return iter(TABLE.to_batches(max_chunksize=rows))


def kept(rows: int) -> tuple[Kept, Content]:
    store = Kept()
    return store, write_parts(cut(rows), store.put)


@pytest.mark.usefixtures("short_parts")
@pytest.mark.parametrize("rows", [1, 3, 10, 25, 1_000])
def test_any_range_of_rows_reads_as_it_was_however_the_table_was_cut(rows: int) -> None:
    store, content = kept(rows)
    assert (content.parts, content.rows) == (10, 95)
    for start, stop in [(0, 95), (0, 1), (9, 11), (10, 20), (37, 94), (94, 95), (5, 5)]:
        batches = list(read_parts(store.open, start, stop, rows=4))
        assert pa.Table.from_batches(batches, TABLE.schema).equals(TABLE.slice(start, stop - start))
        assert all(batch.num_rows <= 4 for batch in batches)


@pytest.mark.usefixtures("short_parts")
def test_only_the_parts_that_hold_the_rows_are_opened() -> None:
    store, _ = kept(25)
    list(read_parts(store.open, 19, 31))
    assert store.opened == [1, 2, 3]


@pytest.mark.usefixtures("short_parts")
def test_the_digest_is_that_of_the_content_however_it_is_cut() -> None:
    digests = {kept(rows)[1].digest for rows in (1, 3, 10, 1_000)}
    digest = Digest()
    for batch in cut(7):
        digest.update(batch)
    assert digests == {digest.hexdigest()}


@pytest.mark.parametrize(
    "other",
    [
        {"a": ["x", "y", ""]},
        {"a": ["xy", "", None]},
        {"b": ["x", "y", None]},
        {"a": ["y", "x", None]},
        {"a": ["x", "y"]},
        {"a": ["x", None, "y"]},
        {"a": ["x", "y", None], "b": ["", "", ""]},
    ],
)
def test_another_name_value_null_or_order_has_another_digest(
    other: dict[str, list[str | None]],
) -> None:
    assert _digest(pa.record_batch(other)) != _digest(pa.record_batch({"a": ["x", "y", None]}))


def test_every_type_has_a_digest_that_ignores_what_lies_below_null() -> None:
    columns: dict[str, Any] = {
        "b": pa.array([True, None]),
        "d": pa.array([1, None], pa.decimal128(5, 2)),
        "t": pa.array([1, None], pa.timestamp("us", "UTC")),
        "f": pa.array([1.5, None]),
        "n": pa.nulls(2),
    }
    batch = pa.record_batch(columns)
    assert _digest(batch) == _digest(pa.record_batch(batch.columns, schema=batch.schema))
    hidden = pa.array([1, 2]).cast(pa.int64())
    masked = pa.Array.from_buffers(pa.int64(), 2, [pa.py_buffer(b"\x01"), hidden.buffers()[1]])
    assert masked.to_pylist() == [1, None]
    assert _digest(pa.record_batch({"a": masked})) == _digest(
        pa.record_batch({"a": pa.array([1, None])})
    )


def _digest(batch: pa.RecordBatch) -> str:
    digest = Digest()
    digest.update(batch)
    return digest.hexdigest()

"""What comes out is what went in: a table of every kind of column comes back as it was written, in
every format."""

import datetime as dt
import io
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nelbo import cells
from nelbo.encoding import check_columns, decode, encode
from nelbo.files import FORMATS, Format, Table, open_table, open_writer
from nelbo.schema import Column, Schema
from nelbo.schema_inference import Inspector

ROWS = 60
NUMBERS = [(-1) ** n * (n % 7 * 1234.5 + n / 4) for n in range(ROWS)]
DAYS = [
    dt.datetime(2021, 1, 1) + dt.timedelta(days=n * 17 % 900, hours=n % 24, minutes=n * 7 % 60)
    for n in range(ROWS)
]


def german(value: float) -> str:
    return f"{value:,.2f}".translate(str.maketrans(",.", ".,"))


WRITTEN: dict[str, list[str]] = {
    "whole numbers": [str(n % 9) for n in range(ROWS)],
    "whole numbers with a point": [f"{n % 9}.0" for n in range(ROWS)],
    "fractions": [str(value) for value in NUMBERS],
    "two digits always": [f"{value:.2f}" for value in NUMBERS],
    "decimal commas": [str(value).replace(".", ",") for value in NUMBERS],
    "english thousands": [f"{value:,.2f}" for value in NUMBERS],
    "german thousands": [german(value) for value in NUMBERS],
    "french thousands": [
        f"{value:,.1f}".replace(",", "\u202f").replace(".", ",") for value in NUMBERS
    ],
    "swiss thousands": [f"{value:,.2f}".replace(",", "'") for value in NUMBERS],
    "whole thousands": [f"{n * 457 % 5000:,}" for n in range(ROWS)],
    "dollars": [f"-${-value:,.2f}" if value < 0 else f"${value:,.2f}" for value in NUMBERS],
    "euros": [f"{german(value)} €" for value in NUMBERS],
    "percent": [f"{n % 9 * 12.5}%" for n in range(ROWS)],
    "kilograms": [f"{n % 9} kg" for n in range(ROWS)],
    "yes and no": [("No", "Yes")[n % 3 == 0] for n in range(ROWS)],
    "Y and N": ["NY"[n % 3 == 0] for n in range(ROWS)],
    "true and false": [("false", "true")[n % 3 == 0] for n in range(ROWS)],
    "True and False": [("False", "True")[n % 3 == 0] for n in range(ROWS)],
    "flags": [str(n % 3 // 2) for n in range(ROWS)],
    "words": [("red", "green, blue", 'a "quoted" one', "2,3", "007")[n % 5] for n in range(ROWS)],
    "codes": [f"{n % 7:03}" for n in range(ROWS)],
    "days": [f"{day:%Y-%m-%d}" for day in DAYS],
    "american days": [f"{day:%m/%d/%Y}" for day in DAYS],
    "german days": [f"{day:%d.%m.%Y}" for day in DAYS],
    "days without zeros": [f"{day.month}/{day.day}/{day.year}" for day in DAYS],
    "days as digits": [f"{day:%Y%m%d}" for day in DAYS],
    "named months": [f"{day:%d %b %Y}" for day in DAYS],
    "times": [f"{day:%Y-%m-%dT%H:%M:%S}" for day in DAYS],
    "times after a blank": [f"{day:%Y-%m-%d %H:%M:%S}" for day in DAYS],
    "times in UTC": [f"{day:%Y-%m-%d %H:%M:%S} UTC" for day in DAYS],
    "times with a Z": [f"{day:%Y-%m-%dT%H:%M:%S}Z" for day in DAYS],
    "times of half a day": [f"{day:%m/%d/%Y %I:%M %p}" for day in DAYS],
    "times to the millisecond": [f"{day:%Y-%m-%d %H:%M:%S}.{n:03}" for n, day in enumerate(DAYS)],
    "open ends": ["9999-12-31" if n % 3 else f"{day:%Y-%m-%d}" for n, day in enumerate(DAYS)],
}
TYPED: dict[str, Any] = {
    "int8": pa.array([n % 9 for n in range(ROWS)], pa.int8()),
    "uint32": pa.array([n % 9 for n in range(ROWS)], pa.uint32()),
    "int64": pa.array([n % 9 * 2**40 for n in range(ROWS)], pa.int64()),
    "float32": pa.array(NUMBERS, pa.float32()),
    "double": pa.array(NUMBERS, pa.float64()),
    "decimal": pa.array([Decimal(str(value)) for value in NUMBERS], pa.decimal128(18, 2)),
    "whole decimal": pa.array([Decimal(n % 9) for n in range(ROWS)], pa.decimal128(38, 0)),
    "bool": pa.array([n % 3 == 0 for n in range(ROWS)]),
    "string": pa.array([f"w{n % 5}" for n in range(ROWS)]),
    "large string": pa.array([f"w{n % 5}" for n in range(ROWS)], pa.large_string()),
    "dictionary": pa.array([f"w{n % 5}" for n in range(ROWS)]).cast(
        pa.dictionary(pa.int8(), pa.string())
    ),
    "date32": pa.array([day.date() for day in DAYS], pa.date32()),
    "timestamp s": pa.array(DAYS, pa.timestamp("s")),
    "timestamp ns": pa.array(DAYS, pa.timestamp("ns")),
    "zoned timestamp": pa.array(DAYS, pa.timestamp("us", "Europe/Berlin")),
    "time of day": pa.array([dt.time(n % 5, 30) for n in range(ROWS)], pa.time32("s")),
    "duration": pa.array([dt.timedelta(seconds=n % 9) for n in range(ROWS)], pa.duration("s")),
}


def saved(batch: pa.RecordBatch, format: Format) -> bytes:
    file = io.BytesIO()
    with open_writer(file, format) as writer:
        writer.write(batch)
    return file.getvalue()


def opened(content: bytes, format: Format) -> Table:
    return open_table(io.BytesIO(content), format)


def trained_on(table: Table) -> tuple[Schema, pa.RecordBatch]:
    """The schema that training finds, with all categories known, and the rows."""
    inspector = Inspector()
    (batch,) = pa.Table.from_batches(list(table.batches())).combine_chunks().to_batches()
    inspector.update(batch)
    found = inspector.finish().schema
    columns = [_with_categories(column, batch, found) for column in found.columns]
    return Schema(columns=tuple(columns), missing=found.missing), batch


def _with_categories(column: Column, batch: pa.RecordBatch, schema: Schema) -> Column:
    if column.kind != "categorical":
        return column
    texts = cells.texts(batch.column(column.name), schema.missing).drop_null().unique().to_pylist()
    return column.model_copy(update={"categories": tuple(sorted(str(text) for text in texts))})


def made(schema: Schema, batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows as a model would make them, and with a missing cell in each column."""
    given = encode(batch, schema)
    assert given.errors == []
    numbers, codes = given.numbers.copy(), given.codes.copy()
    numbers[-1] = np.nan
    codes[-1] = [len(column.categories) + 1 for column in schema.categoricals]
    return decode(numbers, codes, schema)


def _cells(batches: Iterator[pa.RecordBatch], name: str) -> list[Any]:
    return [value for batch in batches for value in batch.column(name).to_pylist()]


@pytest.mark.parametrize("name", WRITTEN)
def test_a_column_of_text_comes_back_as_it_was_written(name: str) -> None:
    given = saved(
        pa.record_batch({"n": [str(n % 5 + 0.5) for n in range(ROWS)], name: WRITTEN[name]}), "csv"
    )
    with opened(given, "csv") as table:
        schema, batch = trained_on(table)
    again = saved(made(schema, batch), "csv")
    with opened(again, "csv") as table:
        assert _cells(table.batches(), name) == [*WRITTEN[name][:-1], ""]


@pytest.mark.parametrize("name", TYPED)
@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_a_typed_column_comes_back_in_its_type(name: str, format: Format) -> None:
    given = pa.record_batch({"n": [n % 5 + 0.5 for n in range(ROWS)], name: TYPED[name]})
    content = saved(given, format)
    if format == "parquet":  # which has no seconds
        given = pq.read_table(io.BytesIO(content)).to_batches()[0]
    with opened(content, format) as table:
        schema, batch = trained_on(table)
    again = made(schema, batch)
    assert again.schema.field(name).type == given.schema.field(name).type
    assert again.column(name).to_pylist() == [*given.column(name).to_pylist()[:-1], None]


@pytest.mark.parametrize("source", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("target", FORMATS)
def test_rows_that_a_model_makes_are_rows_that_it_takes(source: Format, target: Format) -> None:
    """All kinds of columns at once; the same cells from every format."""
    given = pa.record_batch(WRITTEN if source != "parquet" else TYPED)
    with opened(saved(given, source), source) as table:
        schema, batch = trained_on(table)
    rows = made(schema, batch)
    wanted = encode(rows, schema)
    with opened(saved(rows, target), target) as table:
        check_columns(table.names, schema)
        (read,) = pa.Table.from_batches(list(table.batches())).combine_chunks().to_batches()
    found = encode(read, schema)
    assert found.errors == []
    np.testing.assert_array_equal(found.numbers, wanted.numbers)
    np.testing.assert_array_equal(found.codes, wanted.codes)


def test_a_few_made_rows_are_read_as_the_model_reads_them() -> None:
    """Few values leave open how numbers and dates are written; the model's own table decides
    then."""
    given = pa.record_batch({name: WRITTEN[name] for name in WRITTEN})
    with opened(saved(given, "csv"), "csv") as table:
        schema, batch = trained_on(table)
    rows = made(schema, batch)
    for at in range(ROWS):
        with opened(saved(rows.slice(at, 1), "csv"), "csv") as table:
            found = encode(next(table.batches()), schema)
        assert found.errors == []
        np.testing.assert_array_equal(found.numbers, encode(rows.slice(at, 1), schema).numbers)


@pytest.mark.parametrize("flag", [("0", "1"), ("false", "true"), ("False", "TRUE")])
def test_flags_mean_the_same_as_numbers_and_as_words(flag: tuple[str, str]) -> None:
    schema = Schema(
        columns=(
            Column(name="n", kind="integer"),
            Column(name="b", kind="boolean", categories=("false", "true")),
        )
    )
    for values in (list(flag), pa.array([False, True])):
        found = encode(pa.record_batch({"n": values, "b": values}), schema)
        assert found.errors == []
        assert found.numbers.tolist() == [[0.0], [1.0]]
        assert found.codes.tolist() == [[0], [1]]

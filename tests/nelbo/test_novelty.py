"""Novelty levels of cells."""

from collections.abc import Sequence

import pyarrow as pa
import pytest

from nelbo.encoding import encode
from nelbo.novelty import (
    CACHED,
    MISSING,
    MISSPELT,
    MOST_COLUMNS,
    NEW,
    ORDINARY,
    RESPELT,
    Novelty,
)
from nelbo.schema import Column, Schema

SCHEMA = Schema(
    columns=(
        Column(name="id", kind="identifier"),
        Column(
            name="maker", kind="categorical", categories=("BOEING", "CESSNA"), rarer=(("PIPER", 9),)
        ),
        Column(name="seats", kind="integer"),
        Column(name="flies", kind="boolean", categories=("false", "true")),
    )
)
ORDER = ("seats", "maker", "flies")


def _rows(*columns: Sequence[str | None]) -> pa.RecordBatch:
    arrays = [pa.array(column, pa.string()) for column in columns]
    return pa.record_batch(arrays, names=list(SCHEMA.names))


@pytest.mark.parametrize(
    ("maker", "level"),
    [
        ("BOEING", ORDINARY),
        ("PIPER", ORDINARY),
        (None, MISSING),
        ("", MISSING),
        ("AIRBUS", NEW),
        ("CESNA", MISSPELT),
        ("PIPRE", MISSPELT),
        ("cessna", RESPELT),
        ("x" * 1_000_000, NEW),
    ],
)
def test_a_cell_has_the_level_of_its_text(maker: str | None, level: int) -> None:
    batch = _rows(["a"], [maker], ["4"], ["true"])
    levels = Novelty(SCHEMA, ORDER).levels(batch, encode(batch, SCHEMA, 7), 7)
    assert levels.tolist() == [[ORDINARY, level, ORDINARY]]


def test_levels_are_those_of_the_rows_that_can_be_encoded() -> None:
    makers = ["AIRBUS", "CESSNA", "CESNA"]
    batch = _rows(["a", "b", "c"], makers, ["many", None, "4"], [None, "true", "false"])
    encoded = encode(batch, SCHEMA, 100)
    assert encoded.rows.tolist() == [101, 102]
    levels = Novelty(SCHEMA, ORDER).levels(batch, encoded, 100)
    assert levels.tolist() == [[MISSING, ORDINARY, ORDINARY], [ORDINARY, MISSPELT, ORDINARY]]


def test_few_columns_and_texts_are_held_ready() -> None:
    columns = tuple(
        Column(name=f"c{number}", kind="categorical", categories=("a", "b"))
        for number in range(2 * MOST_COLUMNS)
    )
    novelty = Novelty(Schema(columns=columns), [column.name for column in columns])
    for column in columns:
        assert novelty.known(column).level("new") == NEW
    assert len(novelty._known) == MOST_COLUMNS
    last = novelty.known(columns[-1])
    for number in range(2 * CACHED):
        last.level(f"new {number}")
    assert last._remembered.cache_info().currsize == CACHED

"""The schema of a table as pure data."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from nelbo.errors import InvalidInput, NotFound
from nelbo.schema import Column, Schema

SCHEMA = Schema(
    columns=(
        Column(name="age", kind="integer"),
        Column(name="sex", kind="categorical", categories=("Female", "Male")),
        Column(name="seen", kind="datetime", zone="utc", step=1_000_000),
        Column(name="id", kind="identifier"),
        Column(name="member", kind="boolean", categories=("false", "true")),
        Column(name="height", kind="continuous"),
    )
)


def test_columns_are_grouped_by_how_they_enter_the_graphs_in_schema_order() -> None:
    assert [column.name for column in SCHEMA.numbers] == ["age", "seen", "height"]
    assert [column.name for column in SCHEMA.categoricals] == ["sex", "member"]
    assert [column.name for column in SCHEMA.identifiers] == ["id"]
    assert [column.name for column in SCHEMA.modelled] == ["age", "sex", "seen", "member", "height"]


def test_a_schema_file_reads_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(SCHEMA.model_dump_json(indent=2))
    assert Schema.read(path) == SCHEMA


def test_a_schema_with_a_name_twice_is_refused_and_says_which() -> None:
    column = Column(name="age", kind="integer")
    with pytest.raises(ValidationError, match="age"):
        Schema(columns=(column, column))


@pytest.mark.parametrize("since", ["nowhere", "age", "seen", "left"])
def test_only_a_datetime_is_counted_since_another_that_is_not(since: str) -> None:
    seen = Column(name="seen", kind="datetime", since=since)
    left = Column(name="left", kind="datetime", since="came")
    with pytest.raises(ValidationError, match=f"'seen' cannot be counted since '{since}'"):
        Schema(columns=(Column(name="came", kind="datetime"), left, seen, Column(name="age", kind="integer")))


def test_a_schema_file_that_is_not_there_or_no_schema_says_so(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    with pytest.raises(NotFound, match=r"schema\.json"):
        Schema.read(path)
    path.write_text('{"columns": [{"name": "age", "kind": "number"}]}')
    with pytest.raises(InvalidInput, match="continuous"):
        Schema.read(path)

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
        Schema(
            columns=(
                Column(name="came", kind="datetime"),
                left,
                seen,
                Column(name="age", kind="integer"),
            )
        )


def test_a_schema_file_that_is_not_there_or_no_schema_says_so(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    with pytest.raises(NotFound, match=r"schema\.json"):
        Schema.read(path)
    path.write_text('{"columns": [{"name": "age", "kind": "number"}]}')
    with pytest.raises(
        InvalidInput, match=r"schema\.json is not a schema: columns\[0\]\.kind: .*'continuous'"
    ):
        Schema.read(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"columns", "the file: Invalid JSON"),
        (b"{}", "columns: Field required"),
        (
            b'{"columns": [{"name": "age"}, {"kind": "integer"}]}',
            r"columns\[0\]\.kind: Field required",
        ),
        (
            b'{"columns": [{"name": "age", "kind": "integer", "hue": 1}]}',
            r"columns\[0\]\.hue: Extra inputs",
        ),
        (
            b'{"columns": [{"name": "a", "kind": "integer"}, {"name": "a", "kind": "integer"}]}',
            "the file: .* must be unique",
        ),
        ('{"columns": []}'.encode("utf-16"), "UTF-16 text; save it as UTF-8"),
        ('{"columns": ["größe"]}'.encode("cp1252"), r"not UTF-8 text \(line 1\); save it as UTF-8"),
    ],
)
def test_a_wrong_schema_file_is_told_in_one_sentence_that_names_the_first_wrong_key(
    content: bytes, words: str, tmp_path: Path
) -> None:
    (tmp_path / "schema.json").write_bytes(content)
    with pytest.raises(InvalidInput, match=rf"schema\.json is .*{words}") as caught:
        Schema.read(tmp_path / "schema.json")
    assert "\n" not in caught.value.message
    assert "http" not in caught.value.message


def test_a_byte_order_mark_in_a_schema_file_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(SCHEMA.model_dump_json(), encoding="utf-8-sig")
    assert Schema.read(path) == SCHEMA
    with pytest.raises(InvalidInput, match="cannot be read: Is a directory"):
        Schema.read(tmp_path)

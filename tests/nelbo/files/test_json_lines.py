"""JSON Lines, and JSON arrays of objects: one meaning, and a nested value costs its column
alone."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.nelbo.files.tables import opened, rows_of

ROWS: list[dict[str, Any]] = [
    {"a": 1, "b": 'x "y", [z]'},
    {"a": None, "late": True},
    {"b": "größe\n", "a": 1.5},
]
READ = [
    {"a": "1", "b": 'x "y", [z]', "late": None},
    {"a": None, "b": None, "late": "true"},
    {"a": "1.5", "b": "größe\n", "late": None},
]
ARRAYS = {
    "in one line": json.dumps(ROWS),
    "an object in a line": "[" + ",\n".join(map(json.dumps, ROWS)) + "]\n",
    "indented": json.dumps(ROWS, indent=2),
    "indented, in UTF-8": json.dumps(ROWS, indent=2, ensure_ascii=False),
    "with blanks before it": "\n\t " + json.dumps(ROWS, indent="\t") + "\r\n",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("form", ARRAYS)
def test_an_array_of_objects_reads_like_lines(form: str, encoding: str) -> None:
    assert rows_of(opened(ARRAYS[form].encode(encoding), "jsonl")) == READ


@pytest.mark.parametrize("form", ARRAYS)
def test_an_array_is_known_without_a_name(form: str) -> None:
    assert rows_of(opened(ARRAYS[form].encode())) == READ
    assert rows_of(opened(b"[unit],b\n1,2\n")) == [{"[unit]": "1", "b": "2"}]


def test_an_array_longer_than_a_piece_is_read_to_its_end() -> None:
    rows = [{"n": str(at), "text": "ü]},{[" * (at % 2_000)} for at in range(1_000)]
    content = json.dumps(rows, ensure_ascii=False, indent=1).encode()
    assert len(content) > 3 * 2**20
    assert rows_of(opened(content)) == rows


VALUES: list[Any] = [
    None,
    1,
    2.5,
    "x",
    "[1]",
    '{"y": 1}',
    [],
    {},
    [1, [2]],
    {"x": {"y": []}},
    [{"a": 1}],
]
TABLES = st.lists(
    st.dictionaries(st.sampled_from("abc"), st.sampled_from(VALUES)), min_size=1, max_size=5
)


@given(TABLES)
def test_a_column_with_a_nested_value_anywhere_is_left_out_and_no_other(
    rows: list[dict[str, Any]],
) -> None:
    rows = [{"plain": at, **row} for at, row in enumerate(rows)]
    nested = {key for row in rows for key, value in row.items() if isinstance(value, list | dict)}
    kept = list(dict.fromkeys(key for row in rows for key in row if key not in nested))
    for content in ("\n".join(map(json.dumps, rows)), json.dumps(rows)):
        with opened(content.encode(), "jsonl") as table:
            assert list(table.names) == kept
            read = [row for batch in table.batches() for row in batch.to_pylist()]
        assert all(any(f"{key!r}" in notice for notice in table.notices) for key in nested)
        assert len(table.notices) <= 2
        assert read == [
            {key: None if row.get(key) is None else str(row[key]) for key in kept} for row in rows
        ]


def test_the_notice_says_what_the_column_holds_and_what_to_do() -> None:
    with opened(b'{"a": 1, "tags": [1], "place": {"x": 1}}\n{"a": 2, "tags": 3}\n') as table:
        assert table.notices == (
            "the column 'tags' holds lists, which have no meaning as a column here: it is left out;"
            " "
            "give each part a column of its own",
            "the column 'place' holds objects, which have no meaning as a column here: it is left"
            " out; "
            "give each part a column of its own",
        )

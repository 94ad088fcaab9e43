"""CSV as people write it: delimiters, encodings, decimal signs, quotes, line ends."""

import csv
import io

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nelbo.errors import InvalidInput
from tests.nelbo.files.tables import opened, rows_of, written

CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_delimiter_encoding_and_line_ends_are_detected(delimiter: str, newline: str, encoding: str) -> None:
    lines = [("größe", "text"), ("1", "a"), ("2", f"é{delimiter}"), ("3", 'say "no"')]
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, lineterminator=newline).writerows(lines)
    assert rows_of(opened(file.getvalue().encode(encoding))) == [{"größe": size, "text": text} for size, text in lines[1:]]


def test_what_is_given_is_not_detected() -> None:
    content = "a;b,c\n1;2,5\n".encode("utf-16-le")
    assert rows_of(opened(content, encoding="utf-16-le", delimiter=";")) == [{"a": "1", "b,c": "2,5"}]
    assert rows_of(opened(content, encoding="utf-16-le", delimiter=",")) == [{"a;b": "1;2", "c": "5"}]
    assert rows_of(opened(b"a\n\xe9\n", encoding="cp850")) == [{"a": "Ú"}]


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("delimiter", ",,", "one character"),
        ("decimal", "x", "neither"),
        ("encoding", "utf-9", "no encoding"),
        ("encoding", "zip", "no encoding"),
    ],
)
def test_an_option_without_a_meaning_is_refused(option: str, value: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        opened(b"a,b\n1,2\n", **{option: value})


def test_an_encoding_that_is_not_utf_8_is_a_notice() -> None:
    with opened("a;b\n3,14;é\n".encode("cp1252")) as table:
        assert len(table.notices) == 1
        assert "Windows-1252" in table.notices[0]
    with opened(b"a;b\n3.14;e\n") as table:
        assert table.notices == ()


def test_text_that_is_neither_utf_8_nor_windows_1252_is_broken() -> None:
    for content in (b"a,b\n\x81,1\n", "a,b\né,".encode() + b"\xe9\n"):
        with pytest.raises(InvalidInput, match=r"line 2 .* broken encoding"):
            opened(content)


def test_a_character_that_the_sample_cuts_in_two_is_whole() -> None:
    content = b"aa,b\n" + b"x,y\n" * (2**18 - 2) + "x,é\nx,y\n".encode()
    assert content[2**20 - 1 : 2**20 + 1] == "é".encode()
    assert rows_of(opened(content))[-2]["b"] == "é"


def test_cells_may_hold_line_ends_delimiters_and_two_million_characters() -> None:
    long = "z" * 1_900_000
    content = f'a,b\n"x\r\ny,""\n",{long}\n'.encode()
    assert rows_of(opened(content)) == [{"a": 'x\r\ny,"\n', "b": long}]


def test_quotes_across_the_blocks_that_arrow_reads_stay_whole() -> None:
    cell = "line\n" * 50
    content = b"a,b\n" + f'1,"{cell}"\n'.encode() * 20_000
    rows = rows_of(opened(content))
    assert len(rows) == 20_000
    assert {row["b"] for row in rows} == {cell}


def test_a_single_column_has_no_delimiter_and_blank_lines_are_no_rows() -> None:
    assert rows_of(opened(b'a\n1\n\n""\n2\n\n')) == [{"a": "1"}, {"a": ""}, {"a": "2"}]


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.none() | CELLS, st.none() | CELLS), min_size=1, max_size=5), CELLS, CELLS)
def test_any_text_reads_as_it_was_written_under_any_name(rows: list[tuple[str | None, ...]], first: str, second: str) -> None:
    names = [name.strip() or fallback for name, fallback in ((first, "unnamed_1"), (second, "unnamed_2"))]
    if len(set(names)) < 2:
        return
    columns = [pa.array([row[at] for row in rows], pa.string()) for at in (0, 1)]
    content = written(pa.RecordBatch.from_arrays(columns, names=[first, second]), "csv")
    assert rows_of(opened(content)) == [{name: value or "" for name, value in zip(names, row, strict=True)} for row in rows]

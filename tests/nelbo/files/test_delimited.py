"""CSV as people write it: delimiters, encodings, decimal signs, quotes, line ends."""

import contextlib
import csv
import io
import itertools
import random
import subprocess
import sys
import tracemalloc
from encodings.aliases import aliases
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nelbo.errors import InvalidInput
from nelbo.files import CsvOptions, delimited
from nelbo.files.source import open_source
from nelbo.spelling.columns import Spelling
from nelbo.spelling.numbers import NumberFormat
from tests.nelbo.files.tables import opened, rows_of, written

CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_delimiter_encoding_and_line_ends_are_detected(
    delimiter: str, newline: str, encoding: str
) -> None:
    lines = [("größe", "text"), ("1", "a"), ("2", f"é{delimiter}"), ("3", 'say "no"')]
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, lineterminator=newline).writerows(lines)
    assert rows_of(opened(file.getvalue().encode(encoding))) == [
        {"größe": size, "text": text} for size, text in lines[1:]
    ]


def test_what_is_given_is_not_detected() -> None:
    content = "a;b,c\n1;2,5\n".encode("utf-16-le")
    assert rows_of(opened(content, encoding="utf-16-le", delimiter=";")) == [
        {"a": "1", "b,c": "2,5"}
    ]
    assert rows_of(opened(content, encoding="utf-16-le", delimiter=",")) == [
        {"a;b": "1;2", "c": "5"}
    ]
    assert rows_of(opened(b"a\n\xe9\n", encoding="cp850")) == [{"a": "Ú"}]


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("delimiter", ",,", "one character"),
        ("delimiter", "§", "one character"),
        ("skip", -1, "give 0 or more"),
        ("decimal", "x", "neither"),
        ("encoding", "utf-9", "not a text encoding"),
        ("encoding", "zip", "not a text encoding"),
        ("encoding", "uu", "not a text encoding"),
        ("encoding", "idna", "not a text encoding"),
        ("encoding", "unicode_escape", "not a text encoding"),
    ],
)
def test_an_option_without_a_meaning_is_refused(option: str, value: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        opened(b"a,b\n1,2\n", **{option: value})


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_text_is_read_or_refused_in_each_encoding_that_python_has(format: str) -> None:
    numbers = random.Random(0)
    contents = [
        bytes(range(256)),
        b"a,b\n+2AA-,2\n",
        b"a+2AA-,b\n1,2\n",
        b"\0\xd8" * 8,
        b"a\n\\ud800",
        b"xn--\xc3\xa9\n",
    ]
    contents += [numbers.randbytes(60) for _ in range(20)]
    for encoding, content in itertools.product(
        sorted({*aliases.values(), "idna", "punycode"}), contents
    ):
        with contextlib.suppress(InvalidInput), opened(content, format, encoding=encoding) as table:
            list(table.batches())


def test_utf_16_without_a_byte_order_mark_says_which_encodings_need_none() -> None:
    with pytest.raises(InvalidInput, match=r"not utf-16 text .* such as utf-16-le"):
        opened("a,b\n1,2\n".encode("utf-16-be"), encoding="utf-16")


def test_a_mebibyte_of_very_short_lines_takes_little_memory_until_its_dialect_is_known() -> None:
    source = open_source(io.BytesIO(b"1\r" * (2**19 - 1)))
    assert source.whole
    tracemalloc.start()
    try:
        delimited.detect(source, CsvOptions())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100 * 2**20


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


@settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(
    st.lists(st.tuples(st.none() | CELLS, st.none() | CELLS), min_size=1, max_size=5), CELLS, CELLS
)
def test_any_text_reads_as_it_was_written_under_any_name(
    rows: list[tuple[str | None, ...]], first: str, second: str
) -> None:
    names = [
        name.strip() or fallback for name, fallback in ((first, "unnamed_1"), (second, "unnamed_2"))
    ]
    without_end = not second.strip() and not any((row[1] or "").strip() for row in rows)
    if len(set(names)) < 2 or without_end:
        return
    columns = [pa.array([row[at] for row in rows], pa.string()) for at in (0, 1)]
    content = written(pa.RecordBatch.from_arrays(columns, names=[first, second]), "csv")
    expected = [{name: value or "" for name, value in zip(names, row, strict=True)} for row in rows]
    assert rows_of(opened(content, delimiter=",", header=True, skip=0)) == expected


COLOURS, CITIES = ("red", "blue", "green"), ("Oslo", "Rome", "Bern", "Riga")
NAMES = ["id", "size", "colour", "city"]
PREAMBLES = {
    "none": "",
    "title and blank line": "Sales report\nmade on 2024-01-01\n\n",
    "two lines of keys and values": "station,north;1\nyear 2020\n",
    "comments": "# made by a program\n# with, all; its | signs\n",
}


def _rows(count: int = 40) -> list[list[str]]:
    draw = random.Random(1)
    return [
        [str(at), f"{draw.gauss(50, 9):.2f}", draw.choice(COLOURS), draw.choice(CITIES)]
        for at in range(count)
    ]


def _text(
    rows: list[list[str]],
    delimiter: str = ",",
    newline: str = "\n",
    quoting: Any = csv.QUOTE_MINIMAL,
) -> str:
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, lineterminator=newline, quoting=quoting).writerows(rows)
    return file.getvalue()


def _read(
    content: str | bytes, **options: Any
) -> tuple[tuple[str, ...], list[list[object]], list[str]]:
    """Names, rows and all notices."""
    with opened(
        content.encode() if isinstance(content, str) else content, "csv", **options
    ) as table:
        rows = [list(row.values()) for batch in table.batches() for row in batch.to_pylist()]
        return table.names, rows, [*table.notices, *table.late_notices]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", " "])
@pytest.mark.parametrize("header", [True, False])
def test_the_same_table_reads_the_same_in_every_dialect(delimiter: str, header: bool) -> None:
    rows = _rows()
    names = NAMES if header else [f"column_{at}" for at in range(1, 5)]
    for preamble, newline, encoding, quoting in itertools.product(
        PREAMBLES,
        ("\n", "\r\n"),
        ("utf-8", "utf-8-sig", "utf-16", "utf-16-be"),
        (csv.QUOTE_MINIMAL, csv.QUOTE_ALL),
    ):
        above = PREAMBLES[preamble].replace("\n", newline)
        if "keys" in preamble and not header:
            continue  # nothing tells a line above rows from a broken header
        text = above + _text([NAMES] * header + rows, delimiter, newline, quoting)
        columns, read, notices = _read(text.encode(encoding))
        assert (list(columns), read) == (names, rows), (preamble, newline, encoding, quoting)
        words = (
            ["--delimiter"] * (delimiter == " ")
            + ["--header"] * (not header)
            + ["--skip-lines"] * bool(above)
        )
        relevant = [notice for notice in notices if "UTF-16-BE" not in notice]
        assert len(relevant) == len(words), relevant
        assert all(word in notice for word, notice in zip(words, relevant, strict=True)), relevant


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    "table",
    [
        [NAMES, *_rows()],
        [["a", "b"], ["1", "2"]],
        [["name"], *([name] for name in CITIES)],
        [["name", "text"], *([city, f"some, text; of {city} | and more"] for city in CITIES)],
        [["when", "value"], *([f"2024-01-{day:02}", str(day)] for day in range(1, 29))],
        [["colour", "city"], *([COLOURS[at % 3], CITIES[at % 4]] for at in range(40))],
        [["a b", "c"], *(["", str(at % 3)] for at in range(30))],
        [["price"], *([f"{at}.50"] for at in range(30))],
        [["date"], *([f"2024-01-{day:02} 10:00:00"] for day in range(1, 29))],
    ],
)
def test_an_ordinary_file_raises_no_notice(
    table: list[list[str]], delimiter: str, newline: str
) -> None:
    names, rows, notices = _read(_text(table, delimiter, newline))
    assert [list(names), *rows] == table
    assert notices == []


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "SEP=;", "sep=;;;"])
def test_a_line_that_names_the_delimiter_is_no_part_of_the_table(first: str) -> None:
    assert _read(f"{first}\r\na;b\r\n1;x,y\r\n") == (("a", "b"), [["1", "x,y"]], [])
    assert _read("sep=\t\na\tb\n1\t2\n")[0] == ("a", "b")


@pytest.mark.parametrize("name", ["tab", "\\t", "\t"])
def test_a_tab_can_be_given_by_name(name: str) -> None:
    assert _read("a,\tb,\n1,\t2,\n", delimiter=name) == (("a,", "b,"), [["1,", "2,"]], [])


NUMBERS = [[str(at), f"{at % 7}.5", str(at % 5 + 3)] for at in range(30)]
HEADERS: dict[str, tuple[list[list[str]], list[str], str]] = {
    "rows of numbers": (NUMBERS, ["column_1", "column_2", "column_3"], "--header"),
    "three rows": ([["1", "2"], ["3", "4"], ["5", "6"]], ["column_1", "column_2"], "--header"),
    "words that come again": (
        [["red", "Oslo"]] * 3 + [["blue", "Oslo"]] * 9,
        ["column_1", "column_2"],
        "--header",
    ),
    "dates and words": (
        [[f"2024-01-{day:02}", "x"] for day in range(1, 29)],
        ["column_1", "column_2"],
        "--header",
    ),
    "a gap in the first row": (
        [["", "1", "NA"], *NUMBERS],
        ["column_1", "column_2", "column_3"],
        "--header",
    ),
    "years": ([["2019", "2020", "2021"], *NUMBERS], ["2019", "2020", "2021"], "--no-header"),
    "a name and years": (
        [["land", "2019", "2020"], *([f"l{at}", str(at), str(at % 9)] for at in range(30))],
        ["land", "2019", "2020"],
        "--no-header",
    ),
    "counted columns": ([["0", "1", "2"], *NUMBERS], ["0", "1", "2"], "--no-header"),
    "words alone": (
        [[f"A{chr(97 + at)}a", f"Bo{chr(97 + at)}"] for at in range(20)],
        ["Aaa", "Boa"],
        "--no-header",
    ),
}


@pytest.mark.parametrize("case", HEADERS)
def test_the_likelier_of_header_and_row_is_taken_with_a_notice_that_names_the_option(
    case: str,
) -> None:
    table, expected, option = HEADERS[case]
    names, rows, notices = _read(_text(table))
    assert list(names) == expected
    assert len(rows) == len(table) - (option == "--no-header")
    assert sum(option in notice for notice in notices) == 1
    assert list(_read(_text(table), header=True)[0]) == [name or "unnamed_1" for name in table[0]]
    names, rows, notices = _read(_text(table), header=False)
    assert (names[0], rows, notices) == ("column_1", table, [])


def test_a_name_of_signs_that_are_digits_and_no_numbers_is_a_name() -> None:
    assert _read(_text([["²", "x", "y"], *NUMBERS]))[0] == ("²", "x", "y")


def test_lines_above_the_header_are_counted_by_an_option() -> None:
    text = "some, words\n\na,b\n1,2\n"
    assert _read(text, skip=2) == (("a", "b"), [["1", "2"]], [])
    assert _read(text, skip=0)[0] == ("some", "words")
    assert _read(text, skip=2, header=False)[:2] == (
        ("column_1", "column_2"),
        [["a", "b"], ["1", "2"]],
    )


def test_titles_that_a_spreadsheet_filled_up_with_delimiters_are_left_out() -> None:
    names, rows, notices = _read("Sales,,,\nin 2024,,,\n,,,\n" + _text([NAMES, *_rows()]))
    assert (list(names), rows) == (NAMES, _rows())
    assert [
        notice for notice in notices if "lines 1 to 3 are left out; --skip-lines 0" in notice
    ] == notices


def test_a_header_in_a_comment_is_the_header() -> None:
    assert _read("#" + _text([NAMES, *_rows()]))[0] == ("#id", "size", "colour", "city")
    assert list(_read("# made by a program\n# " + _text([NAMES, *_rows()], " "))[0]) == NAMES
    assert _read("tag,n\n#a,1\n#b,2\n")[1] == [["#a", "1"], ["#b", "2"]]


def test_names_that_lack_one_for_the_row_names_are_read_as_r_means_them() -> None:
    rows = [[f"r{at}", *row] for at, row in enumerate(_rows())]
    names, read, notices = _read(_text([NAMES, *rows]))
    assert (list(names), read) == (["unnamed_1", *NAMES], rows)
    assert any("one name less" in notice for notice in notices)


@pytest.mark.parametrize("end", ["", ","])
def test_an_empty_column_behind_the_last_delimiter_is_left_out(end: str) -> None:
    lines = _text([NAMES, *_rows()]).splitlines()
    names, rows, notices = _read(
        "\n".join([lines[0] + end, *(line + "," for line in lines[1:])]) + "\n"
    )
    assert (list(names), rows) == (NAMES, _rows())
    assert [notice for notice in notices if "ends with the delimiter" in notice] == notices


def test_a_column_behind_the_last_delimiter_that_is_not_empty_is_not_lost() -> None:
    with pytest.raises(InvalidInput, match="name the last column"):
        _read("a,b,\n" + "1,2,\n" * 250_000 + "1,2,3\n" + "1,2,\n" * 250_000)


def test_columns_between_blanks_are_read_also_where_they_are_aligned() -> None:
    lines = [["x", "long name", "y"], *([f"{at}.25", f"some {at}", str(-at)] for at in range(30))]
    cells = [[f'"{cell}"' if " " in cell else cell for cell in line] for line in lines]
    aligned = "\n".join("  " + " ".join(cell.rjust(12) for cell in line) + " " for line in cells)
    names, rows, notices = _read(aligned)
    assert [list(names), *rows] == lines
    assert [notice for notice in notices if "--delimiter" in notice] == notices


def test_one_column_that_a_delimiter_would_cut_evenly_is_a_notice() -> None:
    _, rows, notices = _read(
        "review\n" + "".join(f"this is number {at}, and good\n" for at in range(20))
    )
    assert rows[3] == ["this is number 3, and good"]
    assert len(notices) == 1
    assert "--delimiter ','" in notices[0]
    assert "in quotes" in _read('"a,b"\n"1,2"\n"3,4"\n')[2][0]
    assert _read("price\n3,14\n2,50\n", decimal=",")[1] == [["3,14"], ["2,50"]]


def test_lines_that_lack_trailing_empty_cells_are_filled_up_and_counted() -> None:
    rows = [[*row, "note"] if at % 16 < 2 else row for at, row in enumerate(_rows(64))]
    names, read, notices = _read(
        _text([[*NAMES, "note"], *rows, ["64", "50", "red", "Oslo", "note", "", ""]])
    )
    assert names[-1] == "note"
    assert read[:-1] == [[*row, ""][:5] for row in rows]
    assert any(
        "56 lines have fewer cells than the header, such as line 4" in notice for notice in notices
    )
    assert any("1 line has more delimiters" in notice for notice in notices)


def test_a_cell_that_is_lost_or_cut_is_damage() -> None:
    lines = _text([NAMES, *_rows()]).splitlines(keepends=True)
    for damaged in (
        lines[9].partition(",")[2],
        lines[9][:6] + "\n" + lines[9][6:],
        "x,y\n",
        lines[9][:-1] + ",9\n",
    ):
        with pytest.raises(InvalidInput, match=r"line 1\d of .* cells, the header has 4"):
            _read("".join([*lines[:9], damaged, *lines[10:]]))


@pytest.mark.parametrize(
    "footer", ["\nSource: some office\n", "Total: 45", "(40 rows affected)\n\n", "\na\n\nb\n"]
)
def test_a_footer_is_left_out_and_told(footer: str) -> None:
    _, rows, notices = _read(_text([NAMES, *_rows()]) + footer)
    assert rows == _rows()
    assert len(notices) == 1
    assert "no part of the table" in notices[0]


@pytest.mark.parametrize(
    ("cell", "words"),
    [('"x \\"y\\" z"', "a quote within quotes twice"), (' "x y"', "a blank before a quote")],
)
def test_quotes_that_csv_does_not_know_are_told(cell: str, words: str) -> None:
    _, rows, notices = _read("a,b\n" + f"1,{cell}\n" * 3)
    assert len(rows) == 3
    assert [words in notice for notice in notices] == [True]


def test_a_row_of_totals_is_told() -> None:
    _, rows, notices = _read(_text([NAMES, *_rows(), ["Total", "999.5", "", ""]]))
    assert rows[-1][0] == "Total"
    assert ["Total" in notice for notice in notices] == [True]


def test_a_byte_beyond_ascii_behind_the_first_mebibyte_tells_the_encoding() -> None:
    table = [NAMES, *_rows() * 1_500, ["1", "2.5", "grün", "Köln"]]
    for encoding, count in (("cp1252", 1), ("utf-8", 0)):
        _, rows, notices = _read(_text(table).encode(encoding))
        assert rows[-1] == table[-1]
        assert ["Windows-1252" in notice for notice in notices] == [True] * count


def test_what_stands_only_behind_the_first_mebibyte_is_seen() -> None:
    zeros = [[str(at), "0"] for at in range(250_000)]
    with opened(
        _text([["hour", "rain"], *zeros, *([str(at), "3,4"] for at in range(90_000))], ";").encode()
    ) as table:
        assert Spelling.of(table.schema.field("rain")).number == NumberFormat(decimal=",")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be", "utf-32", "cp1252"])
@pytest.mark.parametrize("rows", [3, 999, 60_000])
def test_a_sample_is_spread_over_the_file(encoding: str, rows: int) -> None:
    text = _text(
        [["at", "twice", "text"], *([str(at), str(2 * at), 'a "b"\nc, d'] for at in range(rows))]
    )
    source, options = open_source(io.BytesIO(text.encode(encoding))), CsvOptions(encoding=encoding)
    sample = delimited.sample(source, delimited.detect(source, options))
    at = [int(first) for first, _, _ in sample]
    assert [second for _, second, _ in sample] == [str(2 * value) for value in at]
    assert at == sorted(set(at))
    assert len(at) == min(rows, 1_000) or (rows > 1_000 and 300 < len(at) <= 1_000)
    assert (at[0], at[-1]) == (0, rows - 1)
    assert max(later - value for value, later in itertools.pairwise(at)) < max(2, rows / 10)


REFUSE = """
import sys
from nelbo.errors import InvalidInput
from nelbo.files import open_table
with open_table(sys.argv[1]) as table:
    for batch in table.batches(100):
        break
    open_table(sys.argv[2])
"""


def test_a_process_that_refuses_a_table_or_stops_half_way_always_ends_with_the_same_code(
    tmp_path: Path,
) -> None:
    """A thread of Arrow's that reads ahead in a file of Python's aborts some of them."""
    (tmp_path / "long.csv").write_text(_text([NAMES, *_rows() * 5_000]))
    (tmp_path / "broken.csv").write_text(_text([NAMES, *_rows()]) + "1,2,3,4,5\n")
    command = [
        sys.executable,
        "-c",
        REFUSE,
        str(tmp_path / "long.csv"),
        str(tmp_path / "broken.csv"),
    ]
    assert [
        subprocess.run(command, capture_output=True, check=False).returncode for _ in range(20)
    ] == [1] * 20

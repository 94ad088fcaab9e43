"""How the columns of a file are written: each is judged alone, and only what it leaves open is
decided by the others."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nelbo.spelling.columns import Spelling, find
from nelbo.spelling.numbers import NumberFormat

COMMA, POINT = NumberFormat(decimal=","), NumberFormat()
GROUPS = NumberFormat(group=",")


def test_a_column_of_text_says_nothing_of_the_numbers_beside_it() -> None:
    spellings = find(
        pa.record_batch(
            {"price": ["3,4", "12,25"], "note": ["3.5", "none so far"], "code": ["2,3", "A"]}
        )
    )
    assert spellings["price"].number == COMMA
    assert spellings["price"].certain
    assert spellings["note"].number is None
    assert spellings["code"].number is None


def test_what_a_column_leaves_open_is_decided_by_what_another_shows() -> None:
    open_numbers, open_dates = ["2,528", "1,100"], ["03/10/2023", "04/02/2023"]
    alone = find(pa.record_batch({"a": open_numbers, "d": open_dates}))
    assert (alone["a"].number, alone["a"].certain) == (GROUPS, False)
    assert (alone["d"].format, alone["d"].certain) == ("%m/%d/%Y", False)
    beside = find(
        pa.record_batch(
            {
                "a": open_numbers,
                "b": ["3,4", "2,15"],
                "d": open_dates,
                "e": ["25/12/2023", "01/02/2023"],
            }
        )
    )
    assert beside["a"].number == NumberFormat(decimal=",", digits=3)
    assert beside["d"].format == "%d/%m/%Y"


def test_what_a_table_leaves_open_is_read_as_the_model_knows_it() -> None:
    open_numbers = find(pa.record_batch({"a": ["2,528", "1,100"]}))["a"]
    assert open_numbers.number_for(COMMA) == NumberFormat(decimal=",", digits=3)
    assert open_numbers.number_for(GROUPS) == GROUPS
    assert open_numbers.number_for(None) == GROUPS
    digits = find(pa.record_batch({"a": ["528", "11"]}))["a"]
    assert digits.number_for(COMMA) == COMMA
    assert digits.number_for(None) == POINT
    open_dates = find(pa.record_batch({"d": ["03/10/2023"]}))["d"]
    assert open_dates.format_for("%d/%m/%Y") == "%d/%m/%Y"
    assert open_dates.format_for(None) == "%m/%d/%Y"


def test_what_a_table_shows_for_certain_is_read_so_whatever_the_model_knows() -> None:
    spellings = find(pa.record_batch({"a": ["1.234,56", "7,5"], "d": ["25.12.2023", "01.02.2023"]}))
    assert (
        spellings["a"].number_for(POINT)
        == spellings["a"].number
        == NumberFormat(decimal=",", group=".")
    )
    assert spellings["d"].format_for("%m/%d/%Y") == "%d.%m.%Y"


@pytest.mark.parametrize(
    "spelling",
    [Spelling(), Spelling(number=COMMA, certain=False, other=GROUPS), Spelling(type="date32[day]")],
)
def test_a_spelling_travels_with_its_column_through_files(spelling: Spelling) -> None:
    sink = pa.BufferOutputStream()
    schema = pa.schema([spelling.on(pa.field("a", pa.string()))])
    pq.write_table(pa.table([pa.array(["x"])], schema=schema), sink)
    assert (
        Spelling.of(pq.read_table(pa.BufferReader(sink.getvalue())).schema.field("a")) == spelling
    )


def test_a_column_without_a_spelling_keeps_its_plain_numbers() -> None:
    assert Spelling.of(pa.field("a", pa.string())) == Spelling(plain_first=True)

"""Numbers as people write them: each format is found in what is written in it, and read and written
back."""

import itertools
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nelbo.spelling.numbers import NumberFormat, find, read, write

SIGNS: list[tuple[Any, Any]] = [
    *((".", group) for group in ("", ",", " ", "'", "’")),
    *((",", group) for group in ("", ".", " ", "\u00a0", "\u202f")),
]
PREFIXES, SUFFIXES = ("$", "€ ", "CHF ", "R$ "), (" €", "%", " kg", " USD", " km/h")
AFFIXES = [("", ""), *((prefix, "") for prefix in PREFIXES), *(("", suffix) for suffix in SUFFIXES)]
FORMATS = [
    NumberFormat(decimal=decimal, group=group, prefix=prefix, suffix=suffix, digits=digits)
    for (decimal, group), (prefix, suffix), digits in itertools.product(SIGNS, AFFIXES, (0, 2))
]
PLAIN = ["1234567.5", "-1234.25", "0.5", "12", "-3", "999", "1000000"]


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_what_is_written_in_a_format_is_found_to_be_in_it_and_read_as_it_was(
    format: NumberFormat,
) -> None:
    text = write(pa.array(PLAIN), format)
    guess = find([str(value) for value in text.to_pylist()])
    assert guess is not None
    assert (guess.format.decimal, guess.format.group) == (format.decimal, format.group)
    assert (guess.format.prefix, guess.format.suffix) == (format.prefix, format.suffix)
    assert [float(str(number)) for number in read(text, guess.format).to_pylist()] == [
        float(number) for number in PLAIN
    ]
    assert write(
        read(text, guess.format), guess.format.model_copy(update={"digits": format.digits})
    ).equals(text)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.none() | st.decimals(allow_nan=False, allow_infinity=False, places=3), min_size=1),
    st.sampled_from(FORMATS),
)
def test_any_number_is_read_as_it_was_written(values: list[Any], format: NumberFormat) -> None:
    plain = pa.array([None if value is None else f"{value:f}" for value in values], pa.string())
    again = read(write(plain, format), format).to_pylist()
    assert [None if text is None else float(text) for text in again] == [
        None if v is None else float(v) for v in values
    ]


ONE_READING: dict[str, tuple[list[str], dict[str, Any]]] = {
    "3,4": (["3,4", "0", "2,15"], {"decimal": ","}),
    "1.234,56": (["1.234,56", "7"], {"decimal": ",", "group": "."}),
    "1,234.56": (["1,234.56", "7.00"], {"group": ",", "digits": 2}),
    "several groups": (["1,234,567", "3"], {"group": ","}),
    "groups as in India": (["12,34,567", "1,234"], {"group": ","}),
    "a leading zero is in no group": (["0,528", "2,528"], {"decimal": ",", "digits": 3}),
    "as many digits as all have": (["12.50", "3.00"], {"digits": 2}),
    "a point on whole numbers": (["3750.0", "2.25"], {"digits": 1}),
    "computed numbers": (["0.123456789012", "0.5"], {}),
    "in brackets if negative": (["(1,250.00)", "3.50"], {"group": ",", "digits": 2}),
    "a minus behind": (["12,5-", "3,25"], {"decimal": ","}),
    "a typographic minus": (["−12.5", "3.1"], {"digits": 1}),
    "a minus before the currency": (["-$5.25", "$3.10"], {"prefix": "$", "digits": 2}),
    "zero without a unit": (["0", "12 %", *(f"{n}.5 %" for n in range(20))], {"suffix": " %"}),
    "exponents": (["1,5e3", "2E-3"], {"decimal": ","}),
}


@pytest.mark.parametrize("name", ONE_READING)
def test_a_format_that_alone_fits_is_certain(name: str) -> None:
    texts, expected = ONE_READING[name]
    guess = find(texts)
    assert guess is not None
    assert guess.format == NumberFormat(**expected)
    assert guess.certain


TWO_READINGS = {
    "groups, as numbers below 1,000 have none": (["2,528", "528"], None, "2528"),
    "a decimal comma, as 12345 is in no groups": (["2,528", "12345"], None, "2.528"),
    "groups, as decimals would be filled everywhere": (["1.230", "528"], None, "1230"),
    "a decimal point, the commoner reading": (["1.234", "528"], None, "1.234"),
    "a decimal comma where the file has one": (["2,528", "1,100"], ",", "2.528"),
    "groups where the file has a decimal point": (["2,528", "1,100"], ".", "2528"),
}


@pytest.mark.parametrize("name", TWO_READINGS)
def test_of_two_readings_the_likelier_is_taken_and_the_other_told(name: str) -> None:
    texts, likely, first = TWO_READINGS[name]
    guess = find(texts, None, likely)
    assert guess is not None
    assert not guess.certain
    assert guess.other is not None
    assert float(read(pa.array(texts), guess.format)[0].as_py()) == float(first)
    decided = find(texts, guess.other.decimal)
    assert decided is not None
    assert (decided.format.decimal, decided.format.group) == (
        guess.other.decimal,
        guess.other.group,
    )


@pytest.mark.parametrize(
    "texts",
    [
        ["A1", "B2", "C3"],
        ["Q1", "Q2"],
        ["1.2.3", "1.2.4"],
        ["555-1234", "555-9876"],
        ["12:30", "14:45"],
        ["2023-03-10"],
        ["2,3", "1,1", "A", "B"],
        ["12 kg", "500 g", "3 lb"],
        ["10/20"],
        ["yes", "no"],
        ["#1", "#2"],
        ["(555) 123", "(555) 124"],
    ],
    ids=str,
)
def test_what_only_holds_digits_is_no_number(texts: list[str]) -> None:
    assert find(texts) is None


def test_a_text_that_is_no_number_stays_and_a_plain_one_is_read_in_its_format() -> None:
    format = NumberFormat(decimal=",", group=".", suffix=" €", digits=2)
    text = pa.array(["1.234,56 €", "x", "1234.5", None, "1.234", "", "€"])
    assert read(text, format).to_pylist() == ["1234.56", "x", "1234.5", None, "1234", "", "€"]
    assert read(text, format, plain_first=True).to_pylist() == [
        "1234.56",
        "x",
        "1234.5",
        None,
        "1.234",
        "",
        "€",
    ]
    assert write(pa.array(["1e+20", None]), format).to_pylist() == ["1e+20", None]


def test_one_odd_value_of_twenty_five_hides_no_format() -> None:
    guess = find([*(f"{n},5" for n in range(24)), "about 3"])
    assert guess is not None
    assert guess.format.decimal == ","

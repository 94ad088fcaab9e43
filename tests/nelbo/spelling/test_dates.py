"""Dates as people write them: each format is found in what is written in it, and read and written
back."""

import datetime as dt
from itertools import product

import pyarrow as pa
import pytest

from nelbo import cells
from nelbo.spelling import dates

# fmt: off
DAYS = [
    "%Y-%m-%d", "%Y/%m/%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%m/%d/%y",
    "%d.%m.%y", "%Y%m%d", "%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y",
    "%a, %d %b %Y", "%d%b%Y", "%-m/%-d/%Y", "%-d.%-m.%Y",
]
TIMES = [
    "", " %H:%M", " %H:%M:%S", "T%H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %-I:%M:%S %p",
    " %H:%M:%S UTC", "T%H:%M:%SZ", " %H:%M+00:00",
]
# fmt: on
FORMATS = [day + time for day, time in product(DAYS, TIMES)]
MOMENTS = [
    dt.datetime(2023, 3, 7),
    dt.datetime(1999, 12, 31, 23, 59, 58),
    dt.datetime(2024, 2, 29, 0, 5),
    dt.datetime(2001, 10, 13, 9),
]


def micros(moments: list[dt.datetime], format: str) -> list[int]:
    """Down to what the format shows."""
    shown = [("%S", {"second": 0}), ("%M", {"minute": 0, "hour": 0})]
    for directive, reset in shown:
        if directive not in format:
            moments = [moment.replace(**reset) for moment in moments]  # type: ignore[arg-type]
    return [
        (moment - dt.datetime(1970, 1, 1)) // dt.timedelta(microseconds=1) for moment in moments
    ]


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_written_in_a_format_is_found_to_be_in_it_and_read_as_it_was(format: str) -> None:
    text = dates.write(pa.array(MOMENTS, pa.timestamp("us")), format)
    guess = dates.find([str(value) for value in text.to_pylist()])
    assert guess is not None
    assert guess.certain
    assert guess.format == format
    read = cells.times(text, (), guess.format)
    assert read.dated.all()
    assert read.micros.tolist() == micros(MOMENTS, format)
    assert read.zoned.all() == format.endswith(("UTC", "Z", "+00:00"))


def test_missing_and_typed_dates_are_written_too() -> None:
    day = [dt.date(2023, 3, 7), None]
    for type in (pa.date32(), pa.date64(), pa.timestamp("ns"), pa.timestamp("s")):
        typed = pa.array(day, pa.date32()).cast(type)
        assert dates.write(typed, "%d.%m.%Y").to_pylist() == ["07.03.2023", None]
    zoned = pa.array([dt.datetime(2023, 3, 7, 23, 30)], pa.timestamp("ms")).cast(
        pa.timestamp("ms", "Europe/Berlin")
    )
    assert dates.write(zoned, "%d.%m.%Y %H:%M UTC").to_pylist() == ["07.03.2023 23:30 UTC"]


@pytest.mark.parametrize(
    ("texts", "format", "other"),
    [
        (["03/10/2023", "04/02/2023"], "%m/%d/%Y", "%d/%m/%Y"),
        (["3/7/2023", "4/12/2023"], "%-m/%-d/%Y", "%-d/%-m/%Y"),
        (["10.03.2023", "02.04.2023"], "%d.%m.%Y", "%m.%d.%Y"),
        (["03-10-2023"], "%d-%m-%Y", "%m-%d-%Y"),
    ],
)
def test_where_day_and_month_are_not_to_be_told_both_are_said(
    texts: list[str], format: str, other: str
) -> None:
    guess = dates.find(texts)
    assert guess is not None
    assert (guess.format, guess.other, guess.certain) == (format, other, False)
    preferred = dates.find(
        texts, [other.replace("-", "").replace("%/", "%")] if "%-" in other else [other]
    )
    assert preferred is not None
    assert (preferred.format, preferred.certain) == (other, True)


@pytest.mark.parametrize(
    "texts",
    [
        ["hello"],
        ["12"],
        ["12345678"],
        ["19991301"],
        ["2023-13-01"],
        ["31/31/2020"],
        ["1.2.3"],
        ["10/20"],
        ["May"],
        ["12:30"],
    ],
    ids=str,
)
def test_what_is_no_date_of_the_calendar_is_no_date(texts: list[str]) -> None:
    assert dates.find(texts) is None


def test_one_odd_value_of_twenty_five_hides_no_format() -> None:
    guess = dates.find([*(f"{day:02}/10/2023" for day in range(1, 25)), "unknown"])
    assert guess is not None
    assert guess.format == "%d/%m/%Y"


def test_years_of_two_digits_are_those_of_1969_to_2068() -> None:
    read = cells.times(pa.array(["01/02/69", "01/02/68"]), (), "%d/%m/%y")
    epoch = dt.datetime(1970, 1, 1)
    assert [epoch + dt.timedelta(microseconds=value) for value in read.micros.tolist()] == [
        dt.datetime(1969, 2, 1), dt.datetime(2068, 2, 1)
    ]  # fmt: skip

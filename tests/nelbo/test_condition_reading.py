"""Conditions are read by the schema of a model, and what no row can meet is refused by name."""

from typing import Any

import numpy as np
import pytest

from nelbo.artifact import Domain, Manifest
from nelbo.condition_reading import read_conditions
from nelbo.conditions import Allowed, Conditions, Shares
from nelbo.errors import InvalidInput
from nelbo.schema import Column, Schema
from tests.artifacts import largest_manifest

DAY = 86_400_000_000
SCHEMA = Schema(
    columns=(
        Column(name="id", kind="identifier"),
        Column(name="age", kind="integer"),
        Column(name="pay", kind="continuous"),
        Column(
            name="label",
            kind="categorical",
            categories=("few", "fraud", "ok"),
            rarer=(("odd", 7), ("once", 1)),
        ),
        Column(name="paid", kind="boolean", categories=("false", "true")),
        Column(name="day", kind="datetime", step=DAY, format="%d/%m/%Y"),
        Column(name="seen", kind="datetime", zone="utc", step=1_000_000),
        Column(name="weeks in work", kind="integer"),
    )
)
DOMAINS = {
    "age": Domain(low=17, high=90, missing=False),
    "pay": Domain(low=0.5, high=99.5),
    "label": Domain(never=(0,)),
    "paid": Domain(missing=False),
}
OTHER_ODD = 3 + 2
"""The code of the first of the rarer categories."""


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    update = {
        "table_schema": SCHEMA,
        "order": tuple(column.name for column in SCHEMA.modelled),
        "domains": DOMAINS,
        "config": {"rare": 5},
    }
    return largest_manifest().model_copy(update=update)


def allowed(manifest: Manifest, *where: str) -> Allowed:
    (of_column,) = read_conditions(manifest, where).allowed
    return of_column


def micros(text: str) -> float:
    return float(np.datetime64(text, "us").astype(np.int64))


def test_percentiles_of_the_nelbo_become_a_range_of_it(manifest: Manifest) -> None:
    assert manifest.surprise is not None
    low, high = read_conditions(manifest, rarity=(90, 99)).nelbo or (0, 0)
    surprises = manifest.surprise.nelbo(np.array([low, high]))
    assert surprises == pytest.approx([np.log(10), np.log(100)])
    older = manifest.model_copy(
        update={
            "surprise": None,
            "calibration": manifest.calibration.model_copy(update={"scores": (1.0, 2.0, 3.0, 5.0)}),
        }
    )
    assert read_conditions(older, rarity=(0, 50)).nelbo == (-np.inf, 2.5)
    assert read_conditions(older, rarity=(50, 100)).nelbo == (2.5, np.inf)
    assert not read_conditions(older, rarity=(0, 100))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"rarity": (99, 95)}, "write the smaller percentile first"),
        ({"rarity": (95, 95)}, "write the smaller percentile first"),
        ({"rarity": (95, 99), "balance": "paid"}, "not with balance and weights"),
    ],
)
def test_a_rarity_that_no_row_can_have_is_refused(
    more: dict[str, Any], words: str, manifest: Manifest
) -> None:
    with pytest.raises(InvalidInput, match=words):
        read_conditions(manifest, **more)


INFINITE = float("inf")
RANGES: dict[str, list[tuple[float, float]]] = {
    "age = 30": [(30, 30)],
    "age in (30, 31)": [(30, 30), (31, 31)],
    "age > 30": [(31, 90)],
    "age > 30.5": [(31, 90)],
    "age >= 30": [(30, 90)],
    "age < 30": [(17, 29)],
    "age between 30 and 40": [(30, 40)],
    "age != 30": [(17, 29), (31, 90)],
    "age is not missing": [(17, 90)],
    "pay <= 3": [(0.5, 3)],
    "pay > 3": [(np.nextafter(3, 4), 99.5)],
    "weeks in work >= 3": [(3, INFINITE)],
    "day = 2024-02-03": [(micros("2024-02-03"), micros("2024-02-03"))],
    "day = 03/02/2024": [(micros("2024-02-03"), micros("2024-02-03"))],
    "day = 2024-02": [(micros("2024-02-01"), micros("2024-02-29"))],
    "day = 2023": [(micros("2023-01-01"), micros("2023-12-31"))],
    "day between 2023-11 and 2024-01": [(micros("2023-11-01"), micros("2024-01-31"))],
    "day > 2023": [(micros("2024-01-01"), INFINITE)],
    "seen = 2024-02-03": [(micros("2024-02-03"), micros("2024-02-03T23:59:59"))],
    "seen = 2024-02-03 10:20": [(micros("2024-02-03T10:20"), micros("2024-02-03T10:20:59"))],
    "seen = 2024-02-03T10:20:30Z": [(micros("2024-02-03T10:20:30"),) * 2],
    "seen >= 2024-02-03T10:20+02:00": [(micros("2024-02-03T08:20"), INFINITE)],
}


@pytest.mark.parametrize("text", RANGES)
def test_a_condition_on_numbers_or_dates_is_ranges(text: str, manifest: Manifest) -> None:
    assert list(allowed(manifest, text).ranges) == RANGES[text]


CODES = {
    "label = fraud": (1,),
    "label in (ok, fraud)": (2, 1),
    "label != ok": (1, OTHER_ODD),
    "label = odd": (OTHER_ODD,),
    "label is not missing": (1, 2, OTHER_ODD),
    "paid = yes": (1,),
    "paid = 0": (0,),
}


@pytest.mark.parametrize("text", CODES)
def test_a_condition_on_categories_is_codes(text: str, manifest: Manifest) -> None:
    assert allowed(manifest, text).codes == CODES[text]


def test_conditions_on_one_column_are_met_together(manifest: Manifest) -> None:
    both = allowed(manifest, "age >= 30 and age != 35", "age < 40")
    assert both.ranges == ((30, 34), (36, 39))
    assert not allowed(manifest, "label in (ok, fraud)", "label != ok").missing


def test_missing_values_are_asked_for_by_a_word_or_by_a_text_that_means_them(
    manifest: Manifest,
) -> None:
    for text in ("pay is missing", "pay = NA"):
        assert allowed(manifest, text) == Allowed(SCHEMA.columns[2], missing=True)
    some = allowed(manifest, "pay in (3, NA)")
    assert some.meets(np.array([3.0, 4.0, np.nan])).tolist() == [True, False, True]


REFUSED = {
    "size = 3": "no column 'size'; its columns are 'age', 'pay'",
    "id = 3": "'id' is an identifier",
    "label = frud": "no category 'frud'; those that may be made are 'fraud', 'ok', 'odd'",
    "label = few": "fewer than 5 training rows hold 'few'",
    "label = once": "fewer than 5 training rows hold 'once'",
    "label > ok": "compares categories by size",
    "label not in (fraud, ok, odd)": "no category of column 'label'",
    "age = old": "column 'age' holds 'old'; the model wants a number",
    "age = 30.5": "the model wants a whole number",
    "age > 90": "'age' goes from 17 to 90 in the training rows",
    "pay = 100": "'pay' goes from 0.5 to 99.5",
    "age between 40 and 30": "the range is empty; write the smaller value first",
    "pay > 3 and pay < 3": "meets all of the conditions 'pay > 3', 'pay < 3'",
    "label = ok and label = fraud": "meets all of the conditions 'label = ok', 'label = fraud'",
    "age between 30.2 and 30.8": "the range is empty",
    "pay > NA": "write pay is not missing",
    "age is missing": "no row is made with a missing value",
    "paid = maybe": "the model wants true or false",
    "seen = yesterday": "the model wants a date",
    "label = fr\ud800ud": "leave out NUL and surrogates",
    "label = fr\0ud": "leave out NUL and surrogates",
    "day = 2024-13": "the model wants a date",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_no_row_can_meet_is_refused_with_the_reason(text: str, manifest: Manifest) -> None:
    with pytest.raises(InvalidInput, match=REFUSED[text].replace("(", r"\(")):
        read_conditions(manifest, [text])


def test_a_row_to_be_like_is_a_condition_for_each_of_its_cells(manifest: Manifest) -> None:
    cells = {"label": "fraud", "age": 30, "paid": True, "pay": 2.5, "day": None}
    same = read_conditions(manifest, ["label = fraud and age = 30", "paid = true and pay = 2.5"])
    assert read_conditions(manifest, like=cells) == same
    with pytest.raises(InvalidInput, match="'age' to be like is"):
        read_conditions(manifest, like={"age": [30]})


def test_balanced_categories_take_turns(manifest: Manifest) -> None:
    shares = read_conditions(manifest, balance="label").shares
    assert shares is not None
    assert shares.codes == (1, 2, OTHER_ODD)
    assert shares.of_rows(np.arange(7)).tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_a_condition_says_which_categories_are_balanced(manifest: Manifest) -> None:
    conditions = read_conditions(manifest, ["label in (ok, fraud)"], balance="label")
    assert conditions == Conditions((), Shares(SCHEMA.columns[3], (2, 1)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"balance": "age"}, "holds integer values; balance and weights are for"),
        ({"balance": "size"}, "no column 'size'"),
        ({"balance": "label", "where": ["label is missing"]}, "none of its categories"),
        ({"balance": "label", "weights": {"paid": {"true": 1}}}, "name one column"),
        ({"weights": {"label": {"frud": 1}}}, "no category 'frud'"),
        ({"weights": {"label": {"ok": 0}}}, "all 0; give one above 0"),
        ({"weights": {"label": {"ok": -1}}}, "it must be a number of 0 or more"),
        ({"weights": {"label": {"NA": 1}}}, "name a missing value"),
        ({"weights": {"label": {"ok": 1}}, "where": ["label = ok"]}, "leave out one of them"),
    ],
)
def test_shares_that_cannot_be_are_refused(
    fields: dict[str, Any], message: str, manifest: Manifest
) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_conditions(manifest, **fields)

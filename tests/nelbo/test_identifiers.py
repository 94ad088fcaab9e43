"""Laws of made identifiers: a bijection of row numbers, one value of a row whatever the chunk, and
never a value that the artifact excludes."""

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nelbo.identifiers import (
    Consecutive,
    Free,
    Identifier,
    Segment,
    Template,
    bucket_of,
    check_identifiers,
    permuted,
    with_identifiers,
)
from nelbo.schema import Column, Schema

SCHEMA = Schema(columns=(Column(name="id", kind="identifier"), Column(name="x", kind="integer")))
DIGITS = tuple("0123456789")
CODE = Template(rows=90, segments=(Segment(words=("A-",), rows=(9,)), Segment(words=DIGITS)))
WIDE = Template(rows=10, segments=(Segment(words=("BCD", "XYZ"), rows=(3, 1)), *CODE.segments[1:]))


def column(identifier: Identifier, seed: int, first: int, rows: int) -> Any:
    numbers = np.arange(first, first + rows)
    table = pa.record_batch({"x": pa.array(numbers)})
    made = with_identifiers(table, SCHEMA, {"id": identifier}, seed, numbers)
    assert made.schema.names == ["id", "x"]
    return made.column("id")


@given(st.integers(1, 3_000), st.integers(0, 2**64 - 1))
def test_a_permutation_is_a_bijection_with_an_inverse(size: int, key: int) -> None:
    numbers = np.arange(size, dtype=np.uint64)
    images = permuted(numbers, size, key)
    assert np.array_equal(np.sort(images), numbers)
    assert np.array_equal(permuted(images, size, key, inverse=True), numbers)


@given(st.integers(2, 2**60), st.integers(0, 2**64 - 1))
def test_a_permutation_of_a_large_space_has_an_inverse_too(size: int, key: int) -> None:
    numbers = np.linspace(0, size - 1, 7).astype(np.uint64).clip(max=size - 1)
    images = permuted(numbers, size, key)
    assert (images < size).all()
    assert np.array_equal(permuted(images, size, key, inverse=True), numbers)


@given(st.integers(1, 500), st.integers(1, 64), st.sets(st.integers(0, 499)))
def test_the_free_values_are_all_values_outside_of_used_buckets(
    size: int, buckets: int, values: set[int]
) -> None:
    buckets = min(size, buckets)
    own = np.array([value for value in values if value < size], dtype=np.uint64)
    taken = bucket_of(own, size, buckets)
    free = Free(size, buckets, np.setdiff1d(np.arange(buckets), taken).astype(np.uint64))
    numbers = free.at(np.arange(free.capacity, dtype=np.uint64))
    everything = np.arange(size, dtype=np.uint64)
    expected = everything[~np.isin(bucket_of(everything, size, buckets), taken)]
    assert np.array_equal(np.sort(numbers), expected)


@pytest.mark.parametrize(
    "identifier",
    [
        Identifier(rows=9, consecutive=Consecutive(first=10)),
        Identifier(rows=9, missing=9, templates=(CODE, WIDE), longest=4),
    ],
)
@given(seed=st.integers(0, 2**63 - 1), first=st.integers(0, 300), rows=st.integers(1, 60))
def test_a_row_has_the_same_identifier_in_every_chunk(
    identifier: Identifier, seed: int, first: int, rows: int
) -> None:
    whole = column(identifier, seed, 0, first + rows)
    assert column(identifier, seed, first, rows).equals(whole.slice(first))


def test_beyond_its_free_values_a_pattern_makes_longer_ones() -> None:
    """Each template has 10 values."""
    text = column(Identifier(rows=9, templates=(CODE, WIDE), longest=4), 1, 0, 500).to_pylist()
    assert len(set(text)) == 500
    assert {value[:2] for value in text} <= {"A-", "BC", "XY"}
    assert all(len(value) in (3, 4) for value in text[:10])
    assert all(len(value) > 4 for value in text[20:])


def test_templates_and_words_are_as_frequent_as_in_the_table() -> None:
    many = tuple(Segment(words=DIGITS) for _ in range(6))
    templates = tuple(
        Template(rows=each.rows, segments=(each.segments[0], *many)) for each in (CODE, WIDE)
    )
    text = column(Identifier(rows=9, templates=templates, longest=9), 1, 0, 4_000).to_pylist()
    starts = [value[:2] for value in text]
    assert starts.count("A-") == pytest.approx(3_600, abs=80)
    assert starts.count("BC") == pytest.approx(300, abs=60)


def test_another_seed_gives_other_values_of_a_pattern() -> None:
    digits = tuple(Segment(words=DIGITS) for _ in range(9))
    identifier = Identifier(rows=9, templates=(Template(rows=9, segments=digits),), longest=9)
    one, two = (column(identifier, seed, 0, 100) for seed in (1, 2))
    assert not set(one.to_pylist()) & set(two.to_pylist())


def test_identifiers_are_missing_as_often_as_in_the_table() -> None:
    values = column(
        Identifier(rows=700, missing=300, consecutive=Consecutive(first=1)), 1, 0, 5_000
    )
    assert values.null_count == pytest.approx(1_500, abs=130)


def test_numbers_go_on_with_their_prefix_and_beyond_their_width() -> None:
    order = Consecutive(first=998, prefix="R-", suffix="/24", width=3)
    text = column(Identifier(rows=9, consecutive=order), 0, 0, 3).to_pylist()
    assert text == ["R-998/24", "R-999/24", "R-1000/24"]


def test_days_go_on_until_the_last_year() -> None:
    last = dt.date(9999, 12, 30) - dt.date(1970, 1, 1)
    days = Consecutive(first=last.days * 86_400_000_000, step=86_400_000_000, is_time=True)
    text = column(Identifier(rows=9, consecutive=days), 0, 0, 3).to_pylist()
    assert text == ["9999-12-30", "9999-12-31", None]


def test_numbers_that_the_column_s_type_cannot_hold_are_missing() -> None:
    schema = Schema(columns=(Column(name="id", kind="identifier", type="int8"),))
    rows = np.arange(3)
    table = pa.record_batch({"x": pa.array(rows)})
    identifiers = {"id": Identifier(rows=9, consecutive=Consecutive(first=126))}
    made = with_identifiers(table, schema, identifiers, 0, rows).column("id")
    assert (made.type, made.to_pylist()) == (pa.int8(), [126, 127, None])


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"words": ["a", "bc"]}, "equal length"),
        ({"words": [""]}, "equal length"),
        ({"words": ["a", "b"], "rows": [1]}, "its words"),
        ({"words": ["a"], "rows": [0]}, "its words"),
    ],
)
def test_a_segment_whose_words_disagree_is_refused(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Segment.model_validate(fields)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"buckets": 11}, "more values or buckets"),
        ({"segments": [{"words": DIGITS}] * 19}, "more values or buckets"),
        ({"segments": [{"words": ["a" * 60], "rows": [1]}] * 2}, "longer than 64"),
        ({"used": "AAAA"}, "another number of bits"),
    ],
)
def test_a_template_whose_sizes_disagree_is_refused(change: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Template.model_validate(CODE.model_dump() | change)


@pytest.mark.parametrize("name", ["x", "other"])
def test_an_identifier_of_no_such_column_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="in another way"):
        check_identifiers({name: Identifier(rows=1)}, SCHEMA)
    with pytest.raises(ValueError, match="in another way"):
        check_identifiers({"id": Identifier(rows=1, same_as=name)}, SCHEMA)

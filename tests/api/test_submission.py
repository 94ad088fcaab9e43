"""What is checked about a job before it is accepted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.submission import MAX_CHUNKS, chunk_rows, digest, inline_rows
from nelbo.errors import InvalidInput, InvalidRequest, TooLarge
from nelbo.jobs import (
    AugmentRequest,
    GenerateRequest,
    ReconstructRequest,
    ScoreRequest,
    chunk_ranges,
)
from nelbo.schema import Column, Schema
from nelbo.settings import Settings

SCHEMA = Schema(
    columns=(Column(name="age", kind="integer"), Column(name="job", kind="categorical"))
)
SETTINGS = Settings(max_inline_rows=3, max_job_rows=1_000_000, chunk_rows=100)


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (7, "7"),
        (2**70, str(2**70)),
        (0.1, "0.1"),
        (float("inf"), "inf"),
        (float("nan"), None),
        (True, "true"),
        (None, None),
        ("", ""),
        (" a", " a"),
    ],
)
def test_a_cell_becomes_the_text_that_json_lines_would_hold(cell: object, text: str | None) -> None:
    assert inline_rows([{"age": cell, "job": "x"}], SCHEMA, SETTINGS) == [{"age": text, "job": "x"}]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_keeps_every_bit(value: float) -> None:
    (row,) = inline_rows([{"age": value, "job": None}], SCHEMA, SETTINGS)
    assert float(row["age"] or "") == value


@pytest.mark.parametrize("cell", [[1], {"a": 1}, "a\0b", "\ud800"])
def test_what_is_no_cell_is_refused_with_its_place(cell: object) -> None:
    with pytest.raises(InvalidRequest, match="row 1, column 'job'") as refusal:
        inline_rows([{"age": 1, "job": "x"}, {"age": 1, "job": cell}], SCHEMA, SETTINGS)
    assert refusal.value.fields[0].pointer == "/body/rows/1/job"


def test_rows_may_leave_cells_out_and_have_columns_of_their_own() -> None:
    rows = inline_rows([{"age": 1}, {"job": "x", "note": "extra"}], SCHEMA, SETTINGS)
    assert rows == [{"age": "1", "job": None}, {"age": None, "job": "x"}]


def test_a_column_that_no_row_has_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="job"):
        inline_rows([{"age": 1}, {"age": 2}], SCHEMA, SETTINGS)


def test_no_rows_and_too_many_rows_are_refused() -> None:
    with pytest.raises(InvalidInput, match="at least one row"):
        inline_rows([], SCHEMA, SETTINGS)
    with pytest.raises(TooLarge, match="max_inline_rows"):
        inline_rows([{"age": 1, "job": "x"}] * 4, SCHEMA, SETTINGS)


def test_a_request_without_a_spread_is_the_one_of_before_there_was_a_spread() -> None:
    request = AugmentRequest(model="m", per_row=2, rows=[{"age": 1, "job": "x"}])
    assert digest(request) == "70d09816b769ea12ba4e0a903817944e306bb724bcb8cf2b210a8e8593907187"
    assert digest(request) == digest(request.model_copy(update={"spread": 0.0}))
    assert digest(request) != digest(request.model_copy(update={"spread": 0.3}))
    assert digest(request) != digest(request.model_copy(update={"keep": ("age",)}))


def test_a_request_to_fill_every_column_is_the_one_of_before_there_were_columns() -> None:
    request = ReconstructRequest(model="m", rows=[{"age": 1, "job": "x"}])
    assert digest(request) == "1ab307b06d8b5e6c561db8348ac55b097603d0e14bea217db6eb4d3ce653b8a0"
    for update in ({"columns": ("age",)}, {"leave_usual": True}):
        assert digest(request) != digest(request.model_copy(update=update))


def test_a_job_above_the_limits_is_refused_with_the_setting_to_change() -> None:
    generate = GenerateRequest(model="m", n=1)
    with pytest.raises(TooLarge, match="max_job_rows"):
        chunk_rows(generate, 1_000_000_000, SETTINGS)
    with pytest.raises(TooLarge, match="max_job_rows"):
        chunk_rows(AugmentRequest(model="m", per_row=1_000, rows=[{}]), 2_000, SETTINGS)
    small_chunks = SETTINGS.model_copy(update={"chunk_rows": 10})
    with pytest.raises(TooLarge, match="chunk_rows"):
        chunk_rows(generate, MAX_CHUNKS * 10 + 1, small_chunks)


@pytest.mark.parametrize(
    ("rows", "row_s", "size"),
    [
        (20_000, 1e-6, 10_000),  # a small job
        (1_000_000, 1e-6, 31_250),  # one of 32 chunks
        (10_000_000, 1e-6, 50_000),  # the setting
        (10_000_000, 1e-4, 20_000),  # two seconds
        (1_000, 0.01, 200),
        (1_000, 10.0, 1),
        (10_000_000, None, 10_000),  # a version of an older Nelbo
    ],
)
def test_a_chunk_takes_about_two_seconds_and_is_a_small_part_of_a_large_job(
    rows: int, row_s: float | None, size: int
) -> None:
    assert chunk_rows(GenerateRequest(model="m", n=rows), rows, Settings(), 1, row_s) == size


@pytest.mark.parametrize(
    ("columns", "size"), [(1, 10_000), (100, 10_000), (200, 5_000), (2_000, 500), (10_000, 100)]
)
def test_a_chunk_of_a_wide_table_has_fewer_rows(columns: int, size: int) -> None:
    assert chunk_rows(GenerateRequest(model="m", n=50_000), 50_000, Settings(), columns) == size
    assert chunk_rows(AugmentRequest(model="m", per_row=10), 50_000, Settings(), columns) == max(
        1, size // 10
    )


@given(per_row=st.integers(1, 1_000), rows=st.integers(1, 900))
def test_a_chunk_of_an_augmentation_makes_no_more_rows_than_any_other_chunk(
    per_row: int, rows: int
) -> None:
    size = chunk_rows(AugmentRequest(model="m", per_row=per_row), rows, SETTINGS)
    made = [(end - start) * per_row for start, end in chunk_ranges(rows, size)]
    assert sum(made) == rows * per_row
    assert max(made) <= max(SETTINGS.chunk_rows, per_row)


def test_the_digest_tells_requests_apart_and_knows_defaults() -> None:
    rows = [{"age": 1, "job": "\ud800"}]
    assert digest(ScoreRequest(model="m", rows=rows)) == digest(
        ScoreRequest(model="m", rows=rows, alpha=0.01)
    )
    assert digest(ScoreRequest(model="m", rows=rows)) != digest(
        ScoreRequest(model="m", rows=rows, alpha=0.02)
    )
    assert digest(GenerateRequest(model="m", n=1)) != digest(GenerateRequest(model="m", n=2))

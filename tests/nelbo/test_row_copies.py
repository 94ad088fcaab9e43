"""Copies are divided among the rows of a table so that the categories of a column are balanced."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nelbo.errors import InvalidInput, InvalidRequest
from nelbo.row_copies import balanced_copies, check_balanced
from nelbo.schema import Column, Schema

NAMES = ("ok", "fraud", "odd")
SCHEMA = Schema(
    columns=(
        Column(name="amount", kind="continuous"),
        Column(name="label", kind="categorical", categories=NAMES[:2], rarer=((NAMES[2], 3),)),
        Column(name="paid", kind="boolean", categories=("false", "true")),
    )
)
LABELS = st.lists(st.sampled_from([*NAMES, "new", None]), min_size=1, max_size=60)


def batches(labels: list[str | None], size: int) -> list[pa.RecordBatch]:
    table = pa.table({"label": pa.array(labels, pa.string())})
    return table.to_batches(max_chunksize=size)


@given(LABELS, st.integers(1, 60))
def test_rows_and_copies_are_equally_many_for_each_category(
    labels: list[str | None], size: int
) -> None:
    copies = balanced_copies(batches(labels, size), SCHEMA, "label")
    assert len(copies) == len(labels)
    rows = Counter(label for label in labels if label in NAMES)
    most = max(rows.values(), default=0)
    for name in NAMES:
        own = copies[[label == name for label in labels]]
        if len(own):
            assert len(own) + own.sum() == most
            assert own.max() - own.min() <= 1
            assert (np.diff(own) <= 0).all()
    assert not copies[[label not in NAMES for label in labels]].any()


def test_flags_are_balanced_too() -> None:
    table = pa.table({"paid": ["yes", "no", "yes", "yes", ""]})
    assert balanced_copies(table.to_batches(), SCHEMA, "paid").tolist() == [0, 2, 0, 0, 0]


def test_a_row_that_would_need_too_many_copies_is_refused_by_its_category() -> None:
    labels: list[str | None] = [*["ok"] * 2_500, "fraud", "fraud"]
    with pytest.raises(InvalidInput, match="the table has 2 rows with 'fraud' in column 'label'"):
        balanced_copies(batches(labels, 1_000), SCHEMA, "label")


def test_what_cannot_be_balanced_is_refused() -> None:
    check_balanced(SCHEMA, None, 5)
    check_balanced(SCHEMA, "label", 1)
    for name in ("amount", "size"):
        with pytest.raises(InvalidInput, match="columns of categories are label, paid"):
            check_balanced(SCHEMA, name, 1)
    with pytest.raises(InvalidRequest, match="leave out per_row"):
        check_balanced(SCHEMA, "label", 2)

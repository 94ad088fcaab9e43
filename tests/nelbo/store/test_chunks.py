"""Scores and made rows are read back from their stored form as they were written."""

import io
import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nelbo.rows import Scores
from nelbo.store.chunks import (
    PIECE_BYTES,
    array_names,
    scores_from_arrays,
    scores_from_json,
    scores_to_arrays,
    scores_to_json,
    table_from_parquet,
    table_to_parquet,
)
from tests.nelbo.store.kit import score_outcome


def in_json(scores: Scores, explain: bool) -> Scores:
    text = scores_to_json(scores, explain)
    return scores_from_json(text, scores.columns if explain else None)


def in_arrays(scores: Scores, explain: bool) -> Scores:
    data = scores_to_arrays(scores, explain)
    assert list(data) == array_names(explain)
    return scores_from_arrays(data, scores.columns if explain else None)


@pytest.mark.parametrize("stored", [in_json, in_arrays])
@pytest.mark.parametrize("explain", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 1_000])
def test_scores_are_read_back_bit_by_bit(
    stored: Callable[[Scores, bool], Scores], explain: bool, rows: int
) -> None:
    scores = score_outcome(np.arange(7, 7 + rows))
    again = stored(scores, explain)
    assert again.to_batch(0.5, explain).equals(scores.to_batch(0.5, explain))
    assert again.columns == (scores.columns if explain else ())


def old_json(scores: Scores, explain: bool) -> Scores:
    """As a program without surprises stores scores in SQLite."""
    cells = [scores.kl, *scores.terms.T] if explain else []
    values = [array.tolist() for array in (scores.rows, scores.nelbo, scores.p_value, *cells)]
    text = json.dumps(list(zip(*values, strict=True)), separators=(",", ":"))
    return scores_from_json(text, scores.columns if explain else None, has_surprise=None)


def old_arrays(scores: Scores, explain: bool) -> Scores:
    """As it stores them in PostgreSQL."""
    data = scores_to_arrays(scores, explain)
    stored = {name: None if name.startswith("surprise") else data[name] for name in data}
    return scores_from_arrays(stored, scores.columns if explain else None)


@pytest.mark.parametrize("stored", [old_json, old_arrays])
@pytest.mark.parametrize("explain", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 1_000])
def test_scores_that_were_stored_without_surprises_have_nelbo_and_terms_for_them(
    stored: Callable[[Scores, bool], Scores], explain: bool, rows: int
) -> None:
    scores = score_outcome(np.arange(7, 7 + rows))
    again = stored(scores, explain)
    same = replace(scores, surprise=scores.nelbo, surprises=scores.terms)
    assert again.to_batch(0.5, explain).equals(same.to_batch(0.5, explain))


def test_made_rows_are_read_back_piece_by_piece() -> None:
    text = "long " * 2_000
    batch = pa.RecordBatch.from_pydict(
        {"row": list(range(500)), "text": [f"{i} {text}" for i in range(500)]}
    )
    data = table_to_parquet(batch)
    assert pq.ParquetFile(io.BytesIO(data)).num_row_groups > batch.nbytes / PIECE_BYTES
    pieces = list(table_from_parquet(data, -1, None))
    assert max(piece.nbytes for piece in pieces) <= PIECE_BYTES
    assert pa.concat_tables(pieces).equals(pa.Table.from_batches([batch]))


@pytest.mark.parametrize("first", [0, 1, 120, 499, 500])
def test_rows_before_the_first_wanted_one_are_left_out(first: int) -> None:
    text = "long " * 2_000
    batch = pa.RecordBatch.from_pydict({"row": list(range(500)), "text": [text] * 500})
    data = table_to_parquet(batch)
    by_number = pa.concat_tables(table_from_parquet(data, first - 1, None))
    by_place = pa.concat_tables(table_from_parquet(data, -1, first))
    assert by_number.equals(by_place)
    assert by_number["row"].to_pylist() == list(range(first, 500))


def test_no_made_rows_are_a_file_that_knows_its_columns() -> None:
    batch = pa.RecordBatch.from_pydict(
        {"row": pa.array([], pa.int64()), "text": pa.array([], pa.string())}
    )
    pieces = list(table_from_parquet(table_to_parquet(batch), -1, None))
    assert [piece.schema for piece in pieces] == [batch.schema]
    assert sum(piece.num_rows for piece in pieces) == 0

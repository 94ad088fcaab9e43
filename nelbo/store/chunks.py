"""The rows of a chunk as SQL stores them, and back.

Scores are JSON in SQLite and arrays in PostgreSQL; made rows are a Parquet file.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from nelbo.cells import pc
from nelbo.rows import Floats, Integers, Scores
from nelbo.store import arrays
from nelbo.store.arrays import FloatArray, IntArray

PIECE_BYTES = 2**20
"""Maximum size of a piece of made rows; a larger chunk is stored in several pieces.

Readers of results hold one piece at a time. A long text that many rows share takes little space
until it is read.
"""


def scores_to_json(scores: Scores, explain: bool) -> str:
    """[[row, nelbo, p_value, surprise], …]; with `explain`, each row also has kl, the terms and the
    surprises of its cells.

    Arrow writes finite floats in one fifth of the time that Python's json takes, and both Python
    and SQLite read them back bit for bit.
    """
    values: list[Floats | Integers] = [scores.rows, scores.nelbo, scores.p_value, scores.surprise]
    if explain:
        values += [scores.kl, *scores.terms.T, *scores.surprises.T]
    texts = [_json_numbers(array) for array in values]
    rows = pc.binary_join_element_wise(*texts, ",")
    if not len(rows):
        return "[]"
    joined = pc.binary_join(pa.ListArray.from_arrays([0, len(rows)], rows), "],[")
    return f"[[{joined[0].as_py()}]]"


def scores_from_json(
    text: str, columns: Sequence[str] | None, has_surprise: bool | None = True
) -> Scores:
    """The scores in a JSON text.

    `columns` are the columns of the cells; None leaves out kl, terms and surprises of the cells.
    Programs of an older schema store rows without surprises: [row, nelbo, p_value], kl, terms.
    """
    scores = 4 if has_surprise else 3
    cells = 0 if columns is None else 1 + (scores - 2) * len(columns)
    numbers, nelbo, p_value, *more = _columns_of_json(text, scores + cells)
    surprise = more.pop(0) if has_surprise else nelbo
    # Row numbers are exact as float64: there are far fewer than 2^53.
    rows = numbers.astype(np.int64)
    if columns is None:
        return Scores.without_terms(rows, nelbo, surprise, p_value)
    kl, *of_cells = more
    terms = np.stack(of_cells[: len(columns)], axis=1)
    surprises = np.stack(of_cells[len(columns) :], axis=1) if has_surprise else terms
    return Scores(rows, nelbo, surprise, p_value, kl, terms, surprises, columns)


def array_names(explain: bool) -> list[str]:
    """The names of the arrays of a chunk's scores."""
    cells = ["kl", "terms", "surprises"] if explain else []
    return ["rows", "nelbo", "surprise", "p_value", *cells]


def scores_to_arrays(scores: Scores, explain: bool) -> dict[str, FloatArray | IntArray]:
    """Each array [n] by its name; those of the cells as [n * d], row after row."""
    return {name: arrays.wire(getattr(scores, name).ravel()) for name in array_names(explain)}


def scores_from_arrays(data: Mapping[str, bytes | None], columns: Sequence[str] | None) -> Scores:
    """The scores in the output of `array_send` for each array.

    `columns` are the columns of the cells; None leaves out kl, terms and surprises of the cells.
    Programs of an older schema store no surprises, which are None then.
    """
    names = array_names(columns is not None)
    values = {name: arrays.unwire(array) for name in names if (array := data[name]) is not None}
    rows, nelbo, p_value = values["rows"], values["nelbo"], values["p_value"]
    surprise = values.get("surprise", nelbo)
    if columns is None:
        return Scores.without_terms(rows, nelbo, surprise, p_value)
    terms = values["terms"].reshape(len(rows), len(columns))
    surprises = values.get("surprises", terms).reshape(terms.shape)
    return Scores(rows, nelbo, surprise, p_value, values["kl"], terms, surprises, columns)


def table_to_parquet(batch: pa.RecordBatch) -> bytes:
    """Made rows as a Parquet file with one row group per piece."""
    file = io.BytesIO()
    with pq.ParquetWriter(file, batch.schema, compression="zstd") as writer:
        for piece in _pieces(batch):
            writer.write_table(pa.Table.from_batches([piece]))
    return file.getvalue()


def table_from_parquet(data: bytes, after_row: int, skip: int | None) -> Iterator[pa.Table]:
    """The pieces of a file, without the rows that were read before.

    These are its first `skip` rows or, where `skip` is None, the rows up to `after_row`.
    """
    file = pq.ParquetFile(io.BytesIO(data))
    for number in range(file.num_row_groups):
        piece = file.read_row_group(number, use_threads=False)
        if skip is None:
            yield piece.filter(pc.greater(piece["row"], pa.scalar(after_row)))
        else:
            yield piece.slice(skip)
            skip = max(0, skip - piece.num_rows)


def _columns_of_json(text: str, columns: int) -> list[Floats]:
    """The first columns of a JSON array of arrays of numbers.

    Arrow reads them as CSV in a fifth of the time that Python's json takes.
    """
    lines = text[2:-2].replace("],[", "\n")
    if not lines:
        return [np.empty(0)] * columns
    names = [str(number) for number in range(lines.partition("\n")[0].count(",") + 1)]
    first = names[:columns]
    table = csv.read_csv(
        io.BytesIO(lines.encode()),
        read_options=csv.ReadOptions(column_names=names, use_threads=False),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(first, pa.float64()), include_columns=first
        ),
    )
    return [column.to_numpy() for column in table.columns]


def _json_numbers(values: Floats | Integers) -> Any:
    """The texts of numbers. Arrow writes minus zero as an integer, which would lose its sign."""
    texts = pa.array(np.ascontiguousarray(values)).cast(pa.string())
    return pc.if_else(pc.equal(texts, pa.scalar("-0")), "-0.0", texts)


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch, halved until each piece has at most PIECE_BYTES or one row."""
    if batch.nbytes <= PIECE_BYTES or batch.num_rows < 2:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _pieces(batch.slice(0, half))
    yield from _pieces(batch.slice(half))

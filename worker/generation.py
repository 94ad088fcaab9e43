"""Make the rows of a chunk: from the prior, like given rows, or given rows with their missing cells
filled."""

import io
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from nelbo.engine import Engine
from nelbo.rows import MadeRows
from nelbo.sessions import Check
from nelbo.store.claims import Claim, TableOutcome

PIECE_BYTES = 2**20
"""Rows of a chunk that need more bytes are stored in several pieces, as readers of results hold one
piece at a time: a long text that many rows share takes next to nothing until it is read."""


def generate(engine: Engine, claim: Claim, check: Check) -> TableOutcome:
    return outcome_of(engine.generate(claim.params["seed"], claim.row_from, claim.rows, check))


def augment(engine: Engine, rows: pa.RecordBatch, claim: Claim, check: Check) -> TableOutcome:
    copies = engine.augment(
        rows,
        claim.row_from,
        per_row=claim.params["per_row"],
        seed=claim.params["seed"],
        spread=claim.params.get("spread", 0.0),
        check=check,
    )
    return outcome_of(copies)


def reconstruct(engine: Engine, rows: pa.RecordBatch, claim: Claim, check: Check) -> TableOutcome:
    filled = engine.reconstruct(
        rows,
        claim.row_from,
        seed=claim.params["seed"],
        mode=claim.params["mode"],
        denoise=claim.params["denoise"],
        check=check,
    )
    return outcome_of(filled)


def outcome_of(made: MadeRows) -> TableOutcome:
    """The rows as they are stored."""
    stored = io.BytesIO()
    with pq.ParquetWriter(stored, made.batch.schema, compression="zstd") as writer:
        for piece in _pieces(made.batch):
            writer.write_table(pa.Table.from_batches([piece]))
    return TableOutcome(stored.getvalue(), made.batch.num_rows, made.errors)


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in halves of halves, each of at most PIECE_BYTES or of one row. Each becomes a row
    group."""
    if batch.nbytes <= PIECE_BYTES or batch.num_rows < 2:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _pieces(batch.slice(0, half))
    yield from _pieces(batch.slice(half))

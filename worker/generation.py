"""Make the rows of a chunk: from the prior, like given rows, or given rows with their missing cells
filled."""

import io
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from nelbo import engine as engines
from nelbo.engine import Check, Engine
from nelbo.store.claims import Claim, RowFault, TableOutcome

PIECE_BYTES = 2**20
"""Size from which on the rows of a chunk are stored in several pieces: who reads results holds one
piece at a time. A long text that stands in many rows takes next to nothing until it is read."""


def generate(engine: Engine, claim: Claim, check: Check) -> TableOutcome:
    made = engines.generate(engine, claim.params["seed"], claim.row_from, claim.rows, check)
    return outcome_of(made)


def augment(engine: Engine, given: pa.RecordBatch, claim: Claim, check: Check) -> TableOutcome:
    params = claim.params
    spread = params.get("spread", 0.0)
    made = engines.augment(
        engine, given, claim.row_from, params["per_row"], params["seed"], spread, check
    )
    return outcome_of(made.batch, made.errors)


def reconstruct(engine: Engine, given: pa.RecordBatch, claim: Claim, check: Check) -> TableOutcome:
    params = claim.params
    made = engines.reconstruct(
        engine,
        given,
        claim.row_from,
        params["seed"],
        mode=params["mode"],
        denoise=params["denoise"],
        check=check,
    )
    return outcome_of(made.batch, made.errors)


def outcome_of(batch: pa.RecordBatch, errors: Sequence[RowFault] = ()) -> TableOutcome:
    """The made rows as they are stored."""
    stored = io.BytesIO()
    with pq.ParquetWriter(stored, batch.schema, compression="zstd") as writer:
        for piece in _pieces(batch):
            writer.write_table(pa.Table.from_batches([piece]))
    return TableOutcome(stored.getvalue(), batch.num_rows, errors)


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in halves of halves, each of at most PIECE_BYTES or of one row. Each becomes a row
    group."""
    if batch.nbytes <= PIECE_BYTES or batch.num_rows < 2:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _pieces(batch.slice(0, half))
    yield from _pieces(batch.slice(half))

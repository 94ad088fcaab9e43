"""Make the rows of a chunk: from the prior, like given rows, or given rows with their missing cells filled."""

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from nelbo import engine as engines
from nelbo.engine import Check, Engine
from nelbo.store.claims import Claim, RowFault, TableOutcome


def generate(engine: Engine, claim: Claim, check: Check) -> TableOutcome:
    made = engines.generate(engine, claim.params["seed"], claim.row_from, claim.rows, check)
    return _outcome(made)


def augment(engine: Engine, given: pa.RecordBatch, claim: Claim, check: Check) -> TableOutcome:
    params = claim.params
    spread = params.get("spread", 0.0)
    made = engines.augment(engine, given, claim.row_from, params["per_row"], params["seed"], spread, check)
    return _outcome(made.batch, made.errors)


def reconstruct(engine: Engine, given: pa.RecordBatch, claim: Claim, check: Check) -> TableOutcome:
    params = claim.params
    made = engines.reconstruct(
        engine, given, claim.row_from, params["seed"], mode=params["mode"], denoise=params["denoise"], check=check
    )
    return _outcome(made.batch, made.errors)


def _outcome(batch: pa.RecordBatch, errors: Sequence[RowFault] = ()) -> TableOutcome:
    stored = io.BytesIO()
    pq.write_table(pa.Table.from_batches([batch]), stored, compression="zstd")
    return TableOutcome(stored.getvalue(), batch.num_rows, errors)

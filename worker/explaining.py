"""Explains the odd rows of a job's table, or says which of their cells to change."""

import pyarrow as pa

from nelbo.engine import Engine
from nelbo.jobs import ExplainRequest
from nelbo.odd_rows import cells_of_odd_rows, find_odd_rows
from nelbo.rows import RowError
from nelbo.sessions import Check
from nelbo.storage import Storage
from nelbo.store.chunks import table_to_parquet
from nelbo.store.claims import Claim, TableOutcome
from worker.source_rows import source_batches


def explain(engine: Engine, storage: Storage, claim: Claim, check: Check) -> TableOutcome:
    """The cells that explain the rows. The same rows and parameters give the same cells."""
    request = ExplainRequest(model=engine.manifest.name, **claim.params)
    batches = source_batches(storage, claim)
    errors: list[RowError] = []
    odd = find_odd_rows(engine, batches, request, errors.extend, name="the table", check=check)
    cells = cells_of_odd_rows(engine, odd, request, check).combine_chunks()
    [batch] = cells.to_batches() or [pa.RecordBatch.from_pylist([], schema=cells.schema)]
    return TableOutcome(table_to_parquet(batch), batch.num_rows, errors)

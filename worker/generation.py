"""Makes the rows of a chunk: generated rows, copies of source rows, or completed source rows."""

from typing import Any

import pyarrow as pa

from nelbo.condition_reading import conditions_in
from nelbo.engine import Engine
from nelbo.errors import InvalidInput
from nelbo.jobs import AugmentRequest
from nelbo.row_copies import Integers, balanced_copies, copies_of_batch
from nelbo.rows import MadeRows
from nelbo.sessions import Check
from nelbo.store.chunks import table_to_parquet
from nelbo.store.claims import Claim, TableOutcome
from worker.process import Process
from worker.source_rows import source_rows, whole_table


def generate(engine: Engine, claim: Claim, check: Check) -> TableOutcome:
    rows = engine.generate(
        claim.params["seed"],
        claim.row_from,
        claim.rows,
        conditions_in(engine.manifest, claim.params),
        check,
        identifiers=claim.params.get("identifiers", True),
    )
    return outcome_of(rows)


def odds(engine: Engine, claim: Claim, check: Check) -> dict[str, Any]:
    """What the summary of a generate job says of its conditions; nothing where it has none."""
    conditions = conditions_in(engine.manifest, claim.params)
    if not conditions.has_odds:
        return {}
    return {"conditions": engine.odds(conditions, claim.params["seed"], check).as_json()}


def augment(engine: Engine, process: Process, claim: Claim, check: Check) -> TableOutcome:
    request = AugmentRequest(model=engine.manifest.name, **claim.params)
    copies = _balanced(engine, process, claim, request.balance)
    rows = source_rows(process.storage, claim)
    parts = list(copies_of_batch(engine, rows, claim.row_from, request, copies, check))
    table = pa.Table.from_batches([part.batch for part in parts]).combine_chunks()
    [batch] = table.to_batches() or [parts[0].batch]
    errors = [error for part in parts for error in part.errors]
    return TableOutcome(table_to_parquet(batch), batch.num_rows, errors)


def _balanced(
    engine: Engine, process: Process, claim: Claim, balance: str | None
) -> Integers | None:
    """The copies of each row of the job's table, if they are to balance a column. The chunks of a
    job are many, so that this process counts the rows once for all of them."""
    if balance is None:
        return None
    if claim.job_id not in process.copies:
        whole = whole_table(process.database, process.storage, claim, [balance])
        copies = balanced_copies(whole, engine.schema, balance)
        _check_size(int(copies.sum()), process.settings.max_job_rows)
        process.copies.clear()
        process.copies[claim.job_id] = copies
    return process.copies[claim.job_id]


def _check_size(copies: int, most: int) -> None:
    if copies > most:
        raise InvalidInput(
            f"a balanced table needs {copies:,} copies; one job makes at most {most:,} (the setting"
            " max_job_rows): give fewer rows of the most frequent category"
        )


def reconstruct(engine: Engine, rows: pa.RecordBatch, claim: Claim, check: Check) -> TableOutcome:
    filled = engine.reconstruct(
        rows,
        claim.row_from,
        seed=claim.params["seed"],
        mode=claim.params["mode"],
        denoise=claim.params["denoise"],
        columns=claim.params.get("columns", ()),
        leave_usual=claim.params.get("leave_usual", False),
        check=check,
    )
    return outcome_of(filled)


def outcome_of(rows: MadeRows) -> TableOutcome:
    """The rows in the form in which they are stored."""
    return TableOutcome(table_to_parquet(rows.batch), rows.batch.num_rows, rows.errors)

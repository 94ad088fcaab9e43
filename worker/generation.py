"""Makes the rows of a chunk: generated rows, copies of source rows, or completed source rows."""

from typing import Any

import pyarrow as pa

from nelbo.conditions import conditions_in
from nelbo.engine import Engine
from nelbo.rows import MadeRows
from nelbo.sessions import Check
from nelbo.store.chunks import table_to_parquet
from nelbo.store.claims import Claim, TableOutcome


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


def augment(engine: Engine, rows: pa.RecordBatch, claim: Claim, check: Check) -> TableOutcome:
    copies = engine.augment(
        rows,
        claim.row_from,
        per_row=claim.params["per_row"],
        seed=claim.params["seed"],
        spread=claim.params.get("spread", 0.0),
        keep=claim.params.get("keep", ()),
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
        columns=claim.params.get("columns", ()),
        leave_usual=claim.params.get("leave_usual", False),
        check=check,
    )
    return outcome_of(filled)


def outcome_of(rows: MadeRows) -> TableOutcome:
    """The rows in the form in which they are stored."""
    return TableOutcome(table_to_parquet(rows.batch), rows.batch.num_rows, rows.errors)

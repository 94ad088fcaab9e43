"""Score the rows of a chunk."""

import pyarrow as pa

from nelbo import engine as engines
from nelbo.engine import Check, Engine
from nelbo.store.claims import Claim, ScoreOutcome


def score(engine: Engine, given: pa.RecordBatch, claim: Claim, check: Check) -> ScoreOutcome:
    """Scores of rows claim.row_from … claim.row_to, which `given` holds."""
    scored = engines.score(engine, given, claim.row_from, check)
    return ScoreOutcome(
        rows=scored.rows,
        nelbo=scored.nelbo,
        p_value=scored.p_value,
        kl=scored.kl,
        terms=scored.terms,
        columns=engine.manifest.order,
        errors=scored.errors,
    )

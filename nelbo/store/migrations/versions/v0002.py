"""Adds the time of a chunk's last claim, so that jobs and owners are served in turn.

It also adds indexes for the turns and for the sweep by age. Frozen: a later schema is another
migration. A chunk that was claimed before this migration counts as never claimed.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

STATEMENTS = (
    "ALTER TABLE chunk ADD COLUMN claimed_at DOUBLE PRECISION",
    "CREATE INDEX chunk_claimed_idx ON chunk (job_id, claimed_at)",
    "CREATE INDEX job_started_idx ON job (owner, started_at)",
    "CREATE INDEX job_finished_idx ON job (finished_at)",
    "CREATE INDEX job_deleted_idx ON job (deleted_at) WHERE deleted_at IS NOT NULL",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)

"""Adds the size of a job's inline rows and results, so that an owner's bytes can be summed up.

Programs of an older schema can still use the database. Results that were stored before count as 0
bytes. Frozen: a later schema is another migration.
"""

from alembic import op

revision = "0007"
down_revision = "0006"

STATEMENTS = (
    "ALTER TABLE job ADD COLUMN bytes BIGINT",
    "CREATE INDEX job_stored_idx ON job (owner, deleted_at, bytes)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)

"""The size of a job's inline rows and results, so that what an owner stores can be summed up. Only an addition: a program of an
older schema goes on beside it.

Frozen: a later schema is another migration. What jobs stored before counts as nothing.
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

"""Adds the time until which an owner was served, where a chunk took long.

Frozen: a later schema is another migration.
"""

from alembic import op

revision = "0004"
down_revision = "0003"

STATEMENTS = (
    "ALTER TABLE job ADD COLUMN served_until DOUBLE PRECISION",
    "CREATE INDEX job_served_idx ON job (owner, served_until)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)

"""Adds to a version the time that a row takes, for the size of its jobs' chunks.

Programs of an older schema can still use the database. Frozen: a later schema is another migration.
"""

from alembic import op

revision = "0010"
down_revision = "0009"

STATEMENTS = ("ALTER TABLE version ADD COLUMN row_s DOUBLE PRECISION",)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)

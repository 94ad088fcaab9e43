"""Adds the size of an artifact, so that an owner's stored bytes can be summed up.

Programs of an older schema can still use the database. An artifact that was pushed before counts as
0 bytes. Frozen: a later schema is another migration.
"""

from alembic import op

revision = "0006"
down_revision = "0005"

STATEMENTS = ("ALTER TABLE version ADD COLUMN bytes BIGINT",)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)

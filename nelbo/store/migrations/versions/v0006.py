"""The size of an artifact, so that what an owner stores can be summed up. Only an addition: a program of an older schema goes
on beside it.

Frozen: a later schema is another migration. An artifact that was pushed before counts as nothing.
"""

from alembic import op

revision = "0006"
down_revision = "0005"

STATEMENTS = ("ALTER TABLE version ADD COLUMN bytes BIGINT",)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)

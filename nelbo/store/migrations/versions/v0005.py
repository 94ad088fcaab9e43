"""Adds the oldest revision whose programs can use the schema, for programs older than the database.

Frozen: a later schema is another migration.
"""

from alembic import op

revision = "0005"
down_revision = "0004"

COMPATIBILITY = """
CREATE TABLE compatibility (
    revision TEXT NOT NULL CONSTRAINT compatibility_pk PRIMARY KEY,
    since TEXT NOT NULL
)
"""


def upgrade() -> None:
    op.execute(COMPATIBILITY)

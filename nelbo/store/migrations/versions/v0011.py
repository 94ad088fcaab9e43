"""Allows the kind `explain` for jobs.

Programs of an older schema can still use the database. A worker of theirs fails an explain job, so
replace all workers before the first one. Frozen: a later schema is another migration.
"""

from alembic import op
from sqlalchemy import text

revision = "0011"
down_revision = "0010"

BEFORE = "kind IN ('score', 'generate', 'augment', 'reconstruct', 'clean', 'read', 'verify')"
AFTER = (
    "kind IN ('score', 'generate', 'augment', 'reconstruct', 'explain', 'clean', 'read', 'verify')"
)


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _replace_check_of_sqlite()
    else:
        op.execute("ALTER TABLE job DROP CONSTRAINT job_kind_check")
        op.execute(f"ALTER TABLE job ADD CONSTRAINT job_kind_check CHECK ({AFTER})")


def _replace_check_of_sqlite() -> None:
    """Edit the text of the constraint, as revision 0009 does, which says why."""
    connection = op.get_bind()
    version = connection.execute(text("PRAGMA schema_version")).scalar_one()
    op.execute("PRAGMA writable_schema = ON")
    edited = text(
        "UPDATE sqlite_master SET sql = replace(sql, :before, :after)"
        " WHERE type = 'table' AND name = 'job'"
    )
    connection.execute(edited, {"before": BEFORE, "after": AFTER})
    # Other connections, and this one, read the schema again.
    op.execute(f"PRAGMA schema_version = {version + 1}")
    op.execute("PRAGMA writable_schema = OFF")

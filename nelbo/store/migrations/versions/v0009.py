"""Allows the kind `clean` for jobs, and adds to workers whether they can clean tables.

Programs of an older schema can still use the database. A worker of theirs fails a clean job, so
replace all workers before the first one. Frozen: a later schema is another migration.
"""

from alembic import op
from sqlalchemy import text

revision = "0009"
down_revision = "0008"

BEFORE = "kind IN ('score', 'generate', 'augment', 'reconstruct', 'read', 'verify')"
AFTER = "kind IN ('score', 'generate', 'augment', 'reconstruct', 'clean', 'read', 'verify')"


def upgrade() -> None:
    op.execute("ALTER TABLE worker ADD COLUMN can_clean BOOLEAN")
    if op.get_bind().dialect.name == "sqlite":
        _replace_check_of_sqlite()
    else:
        op.execute("ALTER TABLE job DROP CONSTRAINT job_kind_check")
        op.execute(f"ALTER TABLE job ADD CONSTRAINT job_kind_check CHECK ({AFTER})")


def _replace_check_of_sqlite() -> None:
    """Edit the text of the constraint, as https://sqlite.org/lang_altertable.html#otheralter says.

    SQLite cannot alter a constraint. A new table with all rows copied would need new triggers,
    views and references too. No stored row changes, as each one that was allowed still is.
    """
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

"""Adds API keys, and the audit of changes.

Programs of schema 0002 can still use the database. Frozen: a later schema is another migration.
"""

from alembic import op

revision = "0003"
down_revision = "0002"

STATEMENTS = (
    """
CREATE TABLE api_key (
    id TEXT NOT NULL CONSTRAINT api_key_pk PRIMARY KEY,
    owner TEXT NOT NULL,
    digest TEXT NOT NULL,
    scope TEXT NOT NULL CONSTRAINT api_key_scope_check CHECK (scope IN ('read', 'submit', 'train', 'admin')),
    label TEXT NOT NULL,
    from_file BOOLEAN NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    expires_at DOUBLE PRECISION,
    last_used_at DOUBLE PRECISION,
    revoked_at DOUBLE PRECISION
)
""",
    "CREATE INDEX api_key_owner_idx ON api_key (owner)",
    """
CREATE TABLE audit (
    id TEXT NOT NULL CONSTRAINT audit_pk PRIMARY KEY,
    at DOUBLE PRECISION NOT NULL,
    by TEXT NOT NULL,
    key TEXT,
    address TEXT,
    request_id TEXT,
    owner TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT
)
""",
    "CREATE INDEX audit_owner_idx ON audit (owner, id)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)

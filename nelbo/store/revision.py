"""The revision of a database's schema, and whether this program may use it.

A database that is older than the program needs `nelbo migrate`. One that is newer was migrated by a
newer Nelbo, which has recorded the oldest revision whose programs can still use it. Migrations only
add within a minor version, so that workers can be replaced one after the other.
"""

from pathlib import Path

from sqlalchemy import Connection, delete, insert, inspect, select, text

from nelbo.errors import Unavailable
from nelbo.store.tables import CompatibilityRow

FOLDER = Path(__file__).with_name("migrations")
HEAD = max(path.stem[1:] for path in (FOLDER / "versions").glob("v*.py"))
"""The revision of this program's schema.

It is read without Alembic, which would delay a worker that restarts after a crash.
"""
SINCE = "0001"
"""The oldest revision whose programs can use this program's schema.

A migration that breaks older programs sets this to its own revision.
"""


def check(connection: Connection) -> None:
    """Raise Unavailable, with the remedy, unless this program may use the database."""
    revision = current(connection)
    if revision is None or revision < HEAD:
        raise Unavailable(
            f"the database has schema {revision or 'none'}, this program needs {HEAD}:"
            " run `nelbo migrate`"
        )
    if revision > HEAD and not _is_compatible(connection, revision):
        raise Unavailable(
            f"the database has schema {revision}, which is newer than this program's {HEAD}:"
            " install the Nelbo that migrated it"
        )


def current(connection: Connection) -> str | None:
    """The revision of the database; None where it has no schema."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.scalars(text("SELECT version_num FROM alembic_version")).first()


def note(connection: Connection) -> None:
    """Record which older programs can use the schema that this one has just created."""
    connection.execute(delete(CompatibilityRow))
    connection.execute(insert(CompatibilityRow).values(revision=HEAD, since=SINCE))


def _is_compatible(connection: Connection, revision: str) -> bool:
    since = connection.scalars(
        select(CompatibilityRow.since).where(CompatibilityRow.revision == revision)
    ).first()
    return since is not None and since <= HEAD

"""Which schema a database has, and whether this program may work on it.

A database that is older than the program needs `nelbo migrate`. One that is newer was migrated by a
newer Nelbo, which noted down since which revision a program can go on: migrations only add within a
minor version, so that workers may be replaced one after the other.
"""

from pathlib import Path

from sqlalchemy import Connection, delete, insert, inspect, select, text

from nelbo.errors import Unavailable
from nelbo.store.tables import CompatibilityRow

FOLDER = Path(__file__).with_name("migrations")
HEAD = max(path.stem[1:] for path in (FOLDER / "versions").glob("v*.py"))
"""The revision of this program's schema. Read without Alembic: a worker that starts again after a
crash has no time for it."""
SINCE = "0001"
"""The oldest revision whose programs can work on this program's schema. A migration that breaks
them sets it to its own."""


def check(connection: Connection) -> None:
    """Raise Unavailable, with what to do, unless this program may work on the database."""
    revision = found(connection)
    if revision is None or revision < HEAD:
        raise Unavailable(
            f"the database has schema {revision or 'none'}, this program needs {HEAD}: run `nelbo"
            " migrate`"
        )
    if revision > HEAD and not _is_compatible(connection, revision):
        raise Unavailable(
            f"the database has schema {revision}, which is newer than this program's {HEAD}:"
            " install the Nelbo that migrated it"
        )


def found(connection: Connection) -> str | None:
    """The revision that the database has; None where it has no schema."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.scalars(text("SELECT version_num FROM alembic_version")).first()


def note(connection: Connection) -> None:
    """Note down, for older programs, since when they can work on the schema that this one has just
    made."""
    connection.execute(delete(CompatibilityRow))
    connection.execute(insert(CompatibilityRow).values(revision=HEAD, since=SINCE))


def _is_compatible(connection: Connection, revision: str) -> bool:
    since = connection.scalars(
        select(CompatibilityRow.since).where(CompatibilityRow.revision == revision)
    ).first()
    return since is not None and since <= HEAD

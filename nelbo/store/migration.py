"""The schema's versions, by Alembic. Imported by who migrates or asks for the version alone: a worker that starts again after
a crash has no time for it."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

FOLDER = Path(__file__).with_name("migrations")


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the database to a revision, in the transaction of the caller."""
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def found(connection: Connection) -> str | None:
    """The revision that the database has."""
    return MigrationContext.configure(connection).get_current_revision()


def wanted() -> str | None:
    """The revision that this program needs."""
    return ScriptDirectory(str(FOLDER)).get_current_head()

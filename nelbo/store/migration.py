"""The schema's versions, by Alembic."""

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from nelbo.store import revision


def upgrade(connection: Connection, to: str = "") -> None:
    """Bring the database to a revision, in the caller's transaction; the newest by default.

    A newer schema that this program can use stays. Raises Unavailable where the database is newer
    and this program cannot use it.
    """
    to = to or revision.HEAD
    before = revision.current(connection)
    if before is not None and before > to:
        revision.check(connection)
        return
    config = Config()
    config.set_main_option("script_location", str(revision.FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, to)
    if to == revision.HEAD:
        revision.note(connection)

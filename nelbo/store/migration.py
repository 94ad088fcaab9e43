"""The schema's versions, by Alembic."""

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from nelbo.store import revision


def upgrade(connection: Connection, to: str = "") -> None:
    """Bring the database to a revision, the newest by default, in the transaction of the caller. A
    newer one that serves stays.

    Raises Unavailable where the database is newer and does not serve.
    """
    to = to or revision.HEAD
    has = revision.found(connection)
    if has is not None and has > to:
        revision.check(connection)
        return
    config = Config()
    config.set_main_option("script_location", str(revision.FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, to)
    if to == revision.HEAD:
        revision.note(connection)

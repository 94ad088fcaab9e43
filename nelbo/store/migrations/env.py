"""Alembic's way in: runs on the connection that `Database.migrate` hands over, inside its
transaction."""

from alembic import context

from nelbo.store.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()

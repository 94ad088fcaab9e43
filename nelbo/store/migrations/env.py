"""Alembic's entry point: runs on the connection of `Database.migrate`, inside its transaction."""

from alembic import context

from nelbo.store.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()

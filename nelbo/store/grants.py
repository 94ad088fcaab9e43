"""What the roles of a deployment may do in a PostgreSQL database: the role that migrates owns the
tables, the others use them.

`deploy/roles.sql` makes the roles. Where one is absent, as on a database with a single user,
nothing is granted to it.
"""

from sqlalchemy import Connection, bindparam, inspect, text

API, WORKER = "nelbo_api", "nelbo_worker"

ALL = "SELECT, INSERT, UPDATE, DELETE"
RESULTS = ("score_chunk", "table_chunk", "row_error", "anomaly")

OF_WORKER = {
    "alembic_version": "SELECT",
    "alias": ALL,
    "audit": "INSERT",
    "chunk": ALL,
    "compatibility": "SELECT",
    "file": "SELECT, UPDATE, DELETE",
    "job": "SELECT, UPDATE, DELETE",
    "model": "SELECT",
    "version": "SELECT, UPDATE",
    "worker": ALL,
    **dict.fromkeys(RESULTS, "SELECT, INSERT, DELETE"),
}
"""Tables that are not named here are not the workers' business, such as those of keys."""

OF_API = {
    "alembic_version": "SELECT",
    "api_key": "SELECT, INSERT, UPDATE",
    "audit": "SELECT, INSERT",
    "compatibility": "SELECT",
    "worker": "SELECT",
    **dict.fromkeys(RESULTS, "SELECT, DELETE"),
}
"""What the API may do with these tables. With all others it may do all that is not a change of the
schema."""


def grant(connection: Connection) -> None:
    """Give both roles their rights to the tables of this database, and take all others from
    them."""
    tables = inspect(connection).get_table_names()
    if API in _roles(connection):
        _give(
            connection,
            API,
            {table: OF_API.get(table, ALL) for table in tables} | {"score": "SELECT"},
        )
    if WORKER in _roles(connection):
        _give(
            connection, WORKER, {table: OF_WORKER[table] for table in tables if table in OF_WORKER}
        )


def _roles(connection: Connection) -> set[str]:
    known = text("SELECT rolname FROM pg_roles WHERE rolname IN :names").bindparams(
        bindparam("names", expanding=True)
    )
    return set(connection.scalars(known, {"names": [API, WORKER]}))


def _give(connection: Connection, role: str, rights: dict[str, str]) -> None:
    connection.execute(text(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}"))
    for table, right in rights.items():
        connection.execute(text(f'GRANT {right} ON "{table}" TO {role}'))

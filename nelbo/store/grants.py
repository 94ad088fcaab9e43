"""The rights of a deployment's roles in a PostgreSQL database.

The role that migrates owns the tables; the others use them. `deploy/roles.sql` creates the roles. A
role that is absent, as on a database with a single user, is granted nothing.
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
"""Workers have no rights to other tables, such as the table of keys."""

OF_API = {
    "alembic_version": "SELECT",
    "api_key": "SELECT, INSERT, UPDATE",
    "audit": "SELECT, INSERT",
    "compatibility": "SELECT",
    "worker": "SELECT",
    **dict.fromkeys(RESULTS, "SELECT, DELETE"),
}
"""The API's rights to these tables.

To all other tables it has every right except to change the schema.
"""


def grant(connection: Connection) -> None:
    """Give both roles their rights to the tables of this database, and revoke all others."""
    tables = inspect(connection).get_table_names()
    roles = _roles(connection)
    if API in roles:
        rights = {table: OF_API.get(table, ALL) for table in tables}
        _give(connection, API, rights | {"score": "SELECT"})
    if WORKER in roles:
        rights = {table: OF_WORKER[table] for table in tables if table in OF_WORKER}
        _give(connection, WORKER, rights)


def _roles(connection: Connection) -> set[str]:
    statement = text("SELECT rolname FROM pg_roles WHERE rolname IN :names").bindparams(
        bindparam("names", expanding=True)
    )
    return set(connection.scalars(statement, {"names": [API, WORKER]}))


def _give(connection: Connection, role: str, rights: dict[str, str]) -> None:
    connection.execute(text(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}"))
    for table, right in rights.items():
        connection.execute(text(f'GRANT {right} ON "{table}" TO {role}'))

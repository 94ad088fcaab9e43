"""One database, SQLite or PostgreSQL: its connections, transactions, clock and migration."""

import json
import math
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import Double

from nelbo.errors import InvalidInput, Overloaded, Unavailable
from nelbo.store import arrays, grants, revision

SQLITE_WAIT_S = 30.0
"""Seconds to wait for other processes that write."""
SQLITE_PAUSE_S = 0.001
POSTGRESQL_OPTIONS = {
    "statement_timeout": 60_000,
    "lock_timeout": 15_000,
    "idle_in_transaction_session_timeout": 60_000,
}
READ_ONLY = "25006"
"""PostgreSQL's code for a write to a server that only reads.

It is a standby, or it was set read-only because its disk was nearly full.
"""
DISK_FULL = "53100"
"""PostgreSQL's code for a write that failed on a full disk."""
FULL = (
    "the disk of the database is full: ask the operator of the service to free space or to get a"
    " larger disk"
)
FULL_S = 10.0
"""Seconds after a failed write during which the disk counts as full."""
CHECK_S = 2.0
"""Seconds between two checks of the schema's revision."""
MIGRATION_LOCK = 0x6E656C626F
"""Key of PostgreSQL's advisory lock that lets one process migrate at a time."""


class now(FunctionElement[float]):
    """Seconds since the epoch by the database's clock, which advances within a transaction."""

    type = Double()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_sqlite(element: now, compiler: SQLCompiler, **options: Any) -> str:
    # unixepoch('subsec') is silently NULL before SQLite 3.42.
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _now_postgresql(element: now, compiler: SQLCompiler, **options: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS double precision)"


class Database:
    """Connections to one database. Each process makes its own: none survives a fork."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writing = engine.execution_options(nelbo_write="FULL")
        self._working = engine.execution_options(nelbo_write="NORMAL")
        self._process = os.getpid()
        self._check_at = 0.0
        self._full_at = -math.inf
        self.dialect: Literal["sqlite", "postgresql"] = (
            "sqlite" if engine.dialect.name == "sqlite" else "postgresql"
        )
        self.now = now()

    @property
    def folder(self) -> Path | None:
        """The folder of a SQLite database; None for a server."""
        path = self._engine.url.database if self.dialect == "sqlite" else None
        return Path(path).absolute().parent if path else None

    def __repr__(self) -> str:
        return f"Database({self._engine.url.render_as_string(hide_password=True)})"

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One transaction that only reads.

        Raises Unavailable when the database does not answer or has another schema.
        """
        self._need_schema()
        with self._answering(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction that writes.

        It is committed at the end of the block, and undone when the block raises.
        """
        self._need_schema()
        with self.alter() as connection:
            yield connection

    @contextmanager
    def work(self) -> Iterator[Connection]:
        """Like `write`, for what can be done again: claims, and results of chunks.

        SQLite does not wait for the disk. A power failure may undo the last such transactions, all
        since a moment, so that their chunks are computed again. No killed process undoes any.
        """
        self._need_schema()
        with self._answering(), self._working.begin() as connection:
            yield connection

    @contextmanager
    def alter(self) -> Iterator[Connection]:
        """One transaction that writes without a check of the schema: for migrations."""
        with self._answering(), self._writing.begin() as connection:
            yield connection

    def migrate(self) -> None:
        """Bring the database to this program's schema. Several processes may do so at once."""
        from nelbo.store import migration  # loads Alembic, which takes 70 ms

        if self.dialect == "sqlite":
            self._make_sqlite_file()
        with self.alter() as connection:
            if self.dialect == "postgresql":
                connection.execute(text("SET LOCAL statement_timeout = 0"))
                connection.execute(text("SET LOCAL lock_timeout = 0"))
                connection.execute(
                    text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK}
                )
            migration.upgrade(connection)
            if self.dialect == "postgresql":
                grants.grant(connection)

    def check(self) -> None:
        """Raise Unavailable, with the remedy, unless the database answers and its schema serves."""
        with self._answering(), self._engine.connect() as connection:
            revision.check(connection)

    def need_room(self, max_bytes: int, free_bytes: int) -> None:
        """Raise Overloaded where a server's disk is full or nearly full.

        It is full where a write has failed for lack of space a short while ago. It is nearly full
        where fewer than `free_bytes` remain of `max_bytes`, the database's limit (0: no limit is
        set).
        """
        if time.monotonic() - self._full_at < FULL_S:
            raise Overloaded(FULL, retry_after=FULL_S)
        if max_bytes and self.dialect == "postgresql":
            with self.read() as connection:
                size = connection.scalars(text("SELECT pg_database_size(current_database())")).one()
            if size + free_bytes > max_bytes:
                raise Overloaded(
                    f"the database takes {size / 2**20:,.0f} MiB of its {max_bytes / 2**20:,.0f}"
                    " MiB (the setting database_max_bytes), of which"
                    f" {free_bytes / 2**20:,.0f} MiB must stay free (min_free_bytes): ask the"
                    " operator of the service for a larger disk, or to delete jobs and run VACUUM"
                    " FULL",
                    retry_after=FULL_S,
                )

    def rewrite(self) -> None:
        """Rewrite a SQLite file, which otherwise keeps the bytes of deleted rows.

        Others can read meanwhile. PostgreSQL does this on its own.
        """
        if self.dialect == "sqlite":
            path = self._engine.url.database or ""
            with (
                self._answering(),
                closing(sqlite3.connect(path, timeout=SQLITE_WAIT_S)) as connection,
            ):
                connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def dispose(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _need_schema(self) -> None:
        """Check the schema once in a while, as another program may migrate at any time."""
        if time.monotonic() >= self._check_at:
            self.check()
            self._check_at = time.monotonic() + CHECK_S

    @contextmanager
    def _answering(self) -> Iterator[None]:
        if os.getpid() != self._process:
            raise RuntimeError(
                "this Database was created before a fork; call connect() again in each process"
            )
        try:
            yield
        except (OperationalError, InterfaceError, PoolTimeout, sqlite3.OperationalError) as problem:
            if getattr(getattr(problem, "orig", None), "sqlstate", None) == DISK_FULL:
                self._full_at = time.monotonic()
                raise Overloaded(FULL, retry_after=FULL_S) from problem
            raise Unavailable(
                f"the database does not answer: {_reason(problem)}", retry_after=2
            ) from problem
        except DBAPIError as problem:
            if not problem.connection_invalidated:
                raise
            raise Unavailable(
                f"the database does not answer: {_reason(problem)}", retry_after=2
            ) from problem

    def _make_sqlite_file(self) -> None:
        path = Path(self._engine.url.database or "")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)  # SQLite gives its auxiliary files the same mode
        with self._answering(), closing(sqlite3.connect(path, timeout=SQLITE_WAIT_S)) as connection:
            # With WAL, readers continue while another process writes. The file keeps the mode,
            # which cannot be set inside a transaction.
            connection.execute("PRAGMA journal_mode = WAL")


def connect(url: str) -> Database:
    """A database by URL: sqlite:////path/to/nelbo.db or postgresql://user@host/name.

    Opens no connection yet.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        return Database(_sqlite(parsed))
    return Database(_postgresql(parsed))


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise InvalidInput(
            "the database URL cannot be read; it begins with sqlite:/// or postgresql://"
        ) from None
    if parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise InvalidInput(
            "a SQLite database must be a file, as several processes share it:"
            " sqlite:////path/nelbo.db"
        )
    if parsed.drivername not in ("sqlite", "postgresql+psycopg"):
        raise InvalidInput(
            f"{parsed.drivername} is not a supported database; use sqlite:/// or postgresql://"
        )
    return parsed


_json = json.JSONEncoder(allow_nan=False).encode


def _sqlite(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"timeout": SQLITE_WAIT_S}, json_serializer=_json)

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, record: object) -> None:
        # On its own, the driver would begin transactions late and never IMMEDIATE; the next
        # listener begins them.
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads first and writes later may fail with SQLITE_BUSY_SNAPSHOT.
        driver = connection.connection.dbapi_connection
        assert isinstance(driver, sqlite3.Connection)
        if synchronous := connection.get_execution_options().get("nelbo_write"):
            driver.execute(f"PRAGMA synchronous = {synchronous}")
            _begin_to_write(driver)
        else:
            driver.execute("BEGIN")

    return engine


def _begin_to_write(driver: sqlite3.Connection) -> None:
    """Begin, once no other process writes.

    SQLite itself would look for that after ever longer pauses, most of which are longer than the
    other one's transaction.
    """
    end = time.monotonic() + SQLITE_WAIT_S
    driver.execute("PRAGMA busy_timeout = 0")
    try:
        while True:
            try:
                driver.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as problem:
                is_busy = problem.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not is_busy or time.monotonic() > end:
                    raise
            time.sleep(SQLITE_PAUSE_S)
    finally:
        driver.execute(f"PRAGMA busy_timeout = {SQLITE_WAIT_S * 1_000:.0f}")


def _postgresql(url: URL) -> Engine:
    arrays.register_adapters()
    options = " ".join(f"-c {name}={value}" for name, value in POSTGRESQL_OPTIONS.items())
    arguments = {
        "options": options,
        "connect_timeout": 5,
        # With these, a connection whose other end is silently gone is noticed after about 15 s.
        "keepalives_idle": 5,
        "keepalives_interval": 5,
        "keepalives_count": 2,
        "tcp_user_timeout": 15_000,
    }
    engine = create_engine(url, connect_args=arguments, pool_pre_ping=True, json_serializer=_json)

    @event.listens_for(engine, "handle_error")
    def leave_read_only_server(context: ExceptionContext) -> None:
        # Another server may have replaced this one: connect again.
        if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
            context.is_disconnect = True

    return engine


def _reason(problem: Exception) -> str:
    """The first line of the driver's message.

    SQLAlchemy's own text would contain the statement and its values.
    """
    cause = getattr(problem, "orig", None) or problem
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]

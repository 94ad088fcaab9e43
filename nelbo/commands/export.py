"""The results of a job as a typed table in a database of the user."""

from pathlib import Path
from typing import Any

import pyarrow as pa
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    MetaData,
    Table,
    Text,
    create_engine,
    insert,
    inspect,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.types import TypeEngine

from nelbo.commands.console import Tell
from nelbo.errors import Conflict, InvalidInput, Unavailable


def export(results: Path, url: str, name: str, tell: Tell) -> int:
    """Create a table from an Arrow stream, as a whole or not at all.

    Returns its number of rows. Raises Conflict if the table exists already.
    """
    engine = create_engine(_url(url))
    written = 0
    try:
        with (
            results.open("rb") as file,
            pa.ipc.open_stream(file) as reader,
            engine.begin() as connection,
        ):
            if inspect(connection).has_table(name):
                raise Conflict(
                    f"the database has a table {name!r} already;"
                    " drop it, or name another one with --table"
                )
            table = Table(
                name,
                MetaData(),
                *(Column(field.name, _type(field.type)) for field in reader.schema),
            )
            table.create(connection)
            for batch in reader:
                for part in pa.Table.from_batches([batch]).to_batches(max_chunksize=1_000):
                    connection.execute(insert(table), part.to_pylist())
                    written += part.num_rows
                    tell(written, None)
    except SQLAlchemyError as problem:
        cause = getattr(problem, "orig", None) or problem
        raise Unavailable(
            f"the table could not be written: {str(cause).strip().splitlines()[0]}"
        ) from None
    finally:
        engine.dispose()
    return written


def _url(url: str) -> URL:
    try:
        parsed = make_url(url)
        if parsed.drivername in ("postgres", "postgresql"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        parsed.get_dialect()
    except (ArgumentError, NoSuchModuleError):
        raise InvalidInput(
            "the URL is not that of a database; examples are postgresql://me@localhost/mine"
            " and sqlite:///my.db"
        ) from None
    return parsed


def _type(arrow: pa.DataType) -> TypeEngine[Any]:
    if pa.types.is_boolean(arrow):
        return Boolean()
    if pa.types.is_integer(arrow):
        return BigInteger()
    if pa.types.is_floating(arrow):
        return Float(53)
    if pa.types.is_timestamp(arrow):
        return DateTime(timezone=arrow.tz is not None)
    return Text()

"""A database that carries out a COMMIT and whose answer to it is lost on the way: the connection is
cut just then."""

import os
import shutil
import socket
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import make_url

from nelbo.store.session import Database, connect

SOCKET = ".s.PGSQL.5432"


@dataclass
class LosingDatabase:
    whole: Database
    losing: Database
    """The same database over a way on which the answer to the first COMMIT is lost."""
    lost: int = 0


@contextmanager
def lost_answers(url: str) -> Iterator[LosingDatabase]:
    make = _sqlite if url.startswith("sqlite") else _postgresql
    whole = connect(url)
    with make(url) as database:
        try:
            yield database
        finally:
            database.losing.dispose()
            whole.dispose()


@contextmanager
def _sqlite(url: str) -> Iterator[LosingDatabase]:
    """SQLite has no way on which an answer could be lost; the same is an error of the disk after
    the commit."""
    database = LosingDatabase(connect(url), connect(url))
    dialect: Any = database.losing._engine.dialect
    commit = dialect.do_commit

    def commit_and_fail(connection: Any) -> None:
        commit(connection)
        if not database.lost:
            database.lost += 1
            raise sqlite3.OperationalError("disk I/O error")

    dialect.do_commit = commit_and_fail
    yield database
    database.whole.dispose()


@contextmanager
def _postgresql(url: str) -> Iterator[LosingDatabase]:
    """A proxy on a Unix socket that passes on what it gets and, after the first COMMIT was
    answered, cuts instead."""
    parsed = make_url(url)
    server = Path(str(parsed.query["host"])) / SOCKET
    folder = Path(tempfile.mkdtemp(prefix="nelbo-cut-", dir="/tmp"))
    proxied = f"postgresql://postgres@/{parsed.database}?host={quote(str(folder), safe='')}"
    database = LosingDatabase(connect(url), connect(proxied))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / SOCKET))
    listener.listen()
    threading.Thread(target=_accept, args=(listener, server, database), daemon=True).start()
    try:
        yield database
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        database.whole.dispose()
        shutil.rmtree(folder)


def _accept(listener: socket.socket, server: Path, database: LosingDatabase) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        upstream = socket.socket(socket.AF_UNIX)
        upstream.connect(os.fspath(server))
        cut = threading.Event()
        for source, target in ((client, upstream), (upstream, client)):
            threading.Thread(
                target=_pass_on, args=(source, target, client, cut, database), daemon=True
            ).start()


def _pass_on(
    source: socket.socket,
    target: socket.socket,
    client: socket.socket,
    cut: threading.Event,
    database: LosingDatabase,
) -> None:
    with source:
        while data := _receive(source):
            if source is client and b"COMMIT" in data and not database.lost:
                database.lost += 1
                cut.set()
            elif source is not client and cut.is_set():
                break
            with suppress(OSError):  # the other thread may have closed it
                target.sendall(data)
    for side in (source, target):
        _shut(side)


def _receive(source: socket.socket) -> bytes:
    try:
        return source.recv(65_536)
    except OSError:
        return b""


def _shut(side: socket.socket) -> None:
    try:
        side.shutdown(socket.SHUT_RDWR)
    except OSError:
        # It is shut already: the other direction was faster.
        return

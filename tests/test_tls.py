"""Database and broker over TLS: what their URLs ask for reaches the libraries, and a stranger's
certificate is refused."""

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from nelbo.broker import make_app, send_hint, waiting_hints
from nelbo.errors import Unavailable
from nelbo.jobs import GenerateRequest
from nelbo.settings import Settings
from nelbo.store.session import connect
from tests.api.serving import free_port
from tests.deadline import until
from tests.nelbo.store.kit import add_job, work_off
from tests.servers import Postgres, Valkey, postgresql_commands, running_postgres
from tests.worker.host import running_worker
from tests.worker.stage import Stage


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with server.crt and server.key for localhost, and a stranger's other.crt."""
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("server", "other"):
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        files = ["-keyout", f"{name}.key", "-out", f"{name}.crt"]
        command = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            *subject,
            *files,
        ]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def secure_postgresql(certificates: Path) -> Iterator[Postgres]:
    """A server that takes connections over TLS alone, but for its own socket."""
    commands = postgresql_commands()
    if commands is None:
        pytest.skip("root needs Debian's PostgreSQL for the tests (apt install postgresql)")
    with running_postgres(commands) as server:
        server.stop()
        data = server.folder / "data"
        for name in ("server.crt", "server.key"):
            place = Path(shutil.copy(certificates / name, data))
            place.chmod(0o600)
            shutil.chown(place, data.owner())
        (data / "pg_hba.conf").write_text("local all all trust\nhostssl all all all trust\n")
        secure = replace(
            server,
            settings={"ssl": "on", "listen_addresses": "127.0.0.1", "port": str(free_port())},
        )
        secure.start()
        yield secure


def address(server: Postgres, **options: object) -> str:
    words = "&".join(f"{name}={value}" for name, value in options.items())
    return f"postgresql://postgres@localhost:{server.settings['port']}/postgres?{words}"


def test_a_database_is_used_over_tls_where_its_url_asks_for_it(
    secure_postgresql: Postgres, certificates: Path
) -> None:
    url = address(secure_postgresql, sslmode="verify-full", sslrootcert=certificates / "server.crt")
    database = connect(url)
    database.migrate()
    add_job(database)
    assert work_off(database)
    with database.read() as connection:
        used = connection.scalars(
            text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        ).one()
    database.dispose()
    assert used is True


@pytest.mark.parametrize("mode", ["verify-full", "disable"])
def test_neither_a_strangers_certificate_nor_plain_text_will_do(
    secure_postgresql: Postgres, certificates: Path, mode: str
) -> None:
    database = connect(
        address(secure_postgresql, sslmode=mode, sslrootcert=certificates / "other.crt")
    )
    with pytest.raises(Unavailable):
        database.check()
    database.dispose()


@pytest.fixture
def secure_broker(certificates: Path, valkey: Valkey) -> Iterator[int]:
    """The port of a Valkey behind TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
    with valkey.client() as client:
        client.flushall()
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        unwrapped(listener, context, valkey.socket),
    ):
        yield listener.getsockname()[1]


@contextmanager
def unwrapped(listener: socket.socket, context: ssl.SSLContext, to: Path) -> Iterator[None]:
    """Take connections over TLS and pass on to a Unix socket what they say, and back."""

    def accept() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(plain,), daemon=True).start()

    def serve(plain: socket.socket) -> None:
        try:
            with (
                context.wrap_socket(plain, server_side=True) as outside,
                socket.socket(socket.AF_UNIX) as inside,
            ):
                inside.connect(str(to))
                back = threading.Thread(target=pump, args=(inside, outside), daemon=True)
                back.start()
                pump(outside, inside)
                back.join()
        except OSError:
            plain.close()

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65_536):
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def broker(port: int, certificate: Path) -> str:
    return f"rediss://localhost:{port}/0?ssl_cert_reqs=required&ssl_ca_certs={certificate}"


def test_a_broker_is_used_over_tls_where_its_url_asks_for_it(
    secure_broker: int, certificates: Path, valkey: Valkey
) -> None:
    app = make_app(Settings(broker_url=broker(secure_broker, certificates / "server.crt")))
    assert send_hint(app, "a")
    assert waiting_hints(app) == 1
    with valkey.client() as client:
        assert client.llen("nelbo:nelbo") == 1


def test_a_worker_takes_its_hints_over_tls(
    secure_broker: int, certificates: Path, tmp_path: Path, sqlite_url: str
) -> None:
    with Stage(tmp_path, sqlite_url, broker(secure_broker, certificates / "server.crt")) as stage:
        job = stage.submit(GenerateRequest(model="linear", n=20, seed=1), stage.version(), 20)
        with running_worker(stage) as host:
            until(lambda: stage.job(job.id).state == "succeeded", "the job to succeed")
            assert "working without it" not in host.log.read_text()


@pytest.mark.parametrize("scheme", ["rediss", "redis"])
def test_a_broker_with_a_strangers_certificate_gets_no_hint(
    secure_broker: int, certificates: Path, scheme: str
) -> None:
    url = broker(secure_broker, certificates / "other.crt").replace("rediss", scheme, 1)
    app = make_app(Settings(broker_url=url), timeout_s=0.5)
    assert not send_hint(app, "a")
    assert waiting_hints(app) is None

"""The service behind a real socket: in a thread of the test, or as the process that is deployed."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from api import app
from nelbo.settings import Settings
from tests.deadline import until


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """The address of the application, served by a thread."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = app.server(app.create_app(settings), settings, "127.0.0.1", 0)
    server.config.timeout_graceful_shutdown = 5
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        until(lambda: server.started, "the service listens")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@contextmanager
def process(home: Path, **env: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address of `python -P -m api.app` and its process, with the data folder as working
    directory."""
    port = free_port()
    command = [sys.executable, "-P", "-m", "api.app", "--port", str(port)]
    known = {name: value for name, value in os.environ.items() if not name.startswith("NELBO_")}
    with (home / "api.log").open("wb") as log:
        started = subprocess.Popen(
            command,
            cwd=home,
            stdout=log,
            stderr=log,
            env=known | {"NELBO_HOME": str(home), "PYTHONPATH": ROOT} | env,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: started.poll() is not None or _answers(url), "the process answers")
        yield url, started
    finally:
        started.kill()
        started.wait()


ROOT = str(Path(__file__).parents[2])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/healthz", trust_env=False).is_success
    except httpx2.TransportError:
        return False

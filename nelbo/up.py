"""`nelbo up`: the whole service on this machine, with its data in one folder.

API, worker and an embedded Valkey are children of one process. Their working directory is the data
folder, and `python -P` starts them, so that a user's own api/, worker/ or training/ is never
imported. They end with this process, however it ends (`nelbo.processes`).
"""

import fcntl
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import IO

import httpx2

from nelbo import embedded, privacy
from nelbo.errors import Conflict, Unavailable
from nelbo.home import LOGS, UP_LOCK, UP_RECORD, RunningUp, is_alive, record_up
from nelbo.processes import Child, Lifeline, end_all, keep_running
from nelbo.settings import Settings
from nelbo.store.session import connect

HOST = "127.0.0.1"
START_S = 60.0
STOP_S = 30.0
LOG_BYTES = 10 * 2**20


def up(
    settings: Settings,
    port: int = 8765,
    workers: int | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Start the service, say its address, and keep it running until ^C or SIGTERM.

    port: port of the API; 0 takes a free one.
    workers: number of chunks that are computed at the same time.

    Raises Conflict if another `nelbo up` uses the data folder or another program the port, and
    Unavailable if a part does not start.
    """
    home = settings.home.expanduser().resolve()
    settings = settings.model_copy(
        update={"home": home, "worker_processes": workers or settings.worker_processes}
    )
    privacy.close_to_others()
    privacy.prepare(settings)
    with _asked_to_stop() as signals, _locked(home, say) as lock:
        _run(settings, _free_port(port), lock, signals, say)


@dataclass(frozen=True)
class Signals:
    """Requests to stop: `stop` is set by the first signal (^C, SIGTERM, a closed terminal).

    `hurry` is set by the second one.
    """

    stop: threading.Event
    hurry: threading.Event


def _run(
    settings: Settings, port: int, lock: IO[str], signals: Signals, say: Callable[[str], None]
) -> None:
    _migrate(settings)
    lifeline = Lifeline()
    url = f"http://{HOST}:{port}"
    broker = settings.broker or embedded.make_url()
    children = _children(settings, port, broker, lock)
    try:
        for child in children:
            child.start(lifeline)
        if _wait_until_ready(url, children, signals.stop):
            up = RunningUp(url=url, pid=os.getpid(), database=settings.database, broker=broker)
            record_up(settings.home, up)
            say(f"Nelbo is ready at {url} (data and logs in {settings.home}; ^C stops it)")
            keep_running(children, lifeline, signals.stop, partial(_say_restarted, say))
    finally:
        (settings.home / UP_RECORD).unlink(missing_ok=True)
        # The broker ends last, as the others use it until they end.
        end_all([child for child in children if child.name != "broker"], STOP_S, signals.hurry)
        end_all(children, STOP_S, signals.hurry)
        if not settings.broker:
            shutil.rmtree(embedded.folder_of(broker), ignore_errors=True)


def _children(settings: Settings, port: int, broker: str, lock: IO[str]) -> list[Child]:
    """The broker (unless the user has one), the API and the worker.

    All of them hold the lock, so that it is free only when all have ended.
    """
    env = {
        "NELBO_HOME": str(settings.home),
        "NELBO_BROKER_URL": broker,
        "NELBO_WORKER_PROCESSES": str(settings.worker_processes),
    }
    if settings.api_keys_file:
        env["NELBO_API_KEYS_FILE"] = str(settings.api_keys_file.resolve())
    programs = {
        "broker": ("nelbo.embedded", []),
        "api": ("api.app", ["--host", HOST, "--port", str(port)]),
        "worker": ("worker.app", []),
    }
    return [
        Child(
            name, module, args, env, settings.home, _log(settings.home, name), keep=(lock.fileno(),)
        )
        for name, (module, args) in programs.items()
        if name != "broker" or not settings.broker
    ]


def _say_restarted(say: Callable[[str], None], child: Child, status: int) -> None:
    say(f"the {child.name} ended with status {status} and is started again; its log is {child.log}")


def _migrate(settings: Settings) -> None:
    database = connect(settings.database)
    try:
        database.migrate()
    finally:
        database.dispose()


def _wait_until_ready(url: str, children: list[Child], stop: threading.Event) -> bool:
    """Whether the API answers before a signal asks to stop.

    Raises Unavailable if a child ends, or if the API does not answer within START_S.
    """
    deadline = time.monotonic() + START_S
    with httpx2.Client(base_url=url, timeout=2.0, trust_env=False) as client:
        while not stop.wait(0.1):
            for child in children:
                if child.process is not None and child.process.poll() is not None:
                    raise Unavailable(
                        f"the {child.name} did not start{_last_line(child.log)}; see {child.log}"
                    )
            if _is_ready(client):
                return True
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{url}/readyz did not answer within {START_S:.0f} s; see {children[-2].log}"
                )
    return False


def _is_ready(client: httpx2.Client) -> bool:
    try:
        return client.get("/readyz").is_success
    except httpx2.TransportError:
        return False


def _free_port(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as problem:
            raise Conflict(
                f"port {port} cannot be used ({problem.strerror}); choose another one with --port"
            ) from None
        free: int = probe.getsockname()[1]
    return free


@contextmanager
def _locked(home: Path, say: Callable[[str], None]) -> Iterator[IO[str]]:
    """Hold the lock of the data folder.

    If a `nelbo up` was killed, its children hold the lock until they have ended: wait for them.
    """
    with open(home / UP_LOCK, "a+") as lock:
        deadline = time.monotonic() + STOP_S
        announced = False
        while not _try_lock(lock):
            lock.seek(0)
            holder = lock.read().strip()
            if (holder.isdecimal() and is_alive(int(holder))) or time.monotonic() > deadline:
                raise Conflict(
                    f"`nelbo up` (process {holder}) already runs on {home};"
                    " stop it, or choose another data folder with NELBO_HOME"
                )
            if not announced:
                say("an earlier `nelbo up` was killed; waiting until its processes have ended")
                announced = True
            time.sleep(0.1)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield lock


def _try_lock(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _asked_to_stop() -> Iterator[Signals]:
    signals = Signals(threading.Event(), threading.Event())

    def note(_number: int, _frame: FrameType | None) -> None:
        if signals.stop.is_set():
            signals.hurry.set()
        signals.stop.set()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, note) for number in numbers]
    try:
        yield signals
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _log(home: Path, name: str) -> Path:
    """The log file of a child. A large one becomes NAME.log.1, and a new one begins."""
    path = home / LOGS / f"{name}.log"
    path.parent.mkdir(exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return path


def _last_line(log: Path | None) -> str:
    lines = log.read_text(errors="replace").splitlines() if log and log.exists() else []
    return f": {lines[-1][:300]}" if lines else ""

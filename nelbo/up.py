"""`nelbo up`: everything on this machine. API, worker and an embedded Valkey as children of one
process, data in one folder.

The children work in the data folder and are started with `python -P`, so that a user's own api/,
worker/ or training/ is never imported. They end with this process, however it ends
(`nelbo.processes`).
"""

import fcntl
import os
import shutil
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import IO

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
    """Start everything, say where it is, and keep it running until ^C or SIGTERM.

    `port` 0 takes a free one; `workers` is the number of chunks computed side by side. Raises
    Conflict where another `nelbo up` holds the data folder or another program the port, Unavailable
    where a part does not start.
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
    """`stop`: ^C, SIGTERM or a closed terminal was seen; `hurry`: a second one."""

    stop: threading.Event
    hurry: threading.Event


def _run(
    settings: Settings, port: int, lock: IO[str], signals: Signals, say: Callable[[str], None]
) -> None:
    _migrate(settings)
    lifeline, url = Lifeline(), f"http://{HOST}:{port}"
    broker = settings.broker or embedded.make_url()
    children = _children(settings, port, broker, lock)
    try:
        for child in children:
            child.start(lifeline)
        if _wait_until_ready(url, children, signals.stop):
            up = RunningUp(url=url, pid=os.getpid(), database=settings.database, broker=broker)
            record_up(settings.home, up)
            say(f"Nelbo is ready at {url} (data and logs in {settings.home}; ^C stops it)")
            keep_running(children, lifeline, signals.stop, partial(_tell, say))
    finally:
        (settings.home / UP_RECORD).unlink(missing_ok=True)
        # The broker last, so that the others can end in good order.
        end_all([child for child in children if child.name != "broker"], STOP_S, signals.hurry)
        end_all(children, STOP_S, signals.hurry)
        if not settings.broker:
            shutil.rmtree(embedded.folder_of(broker), ignore_errors=True)


def _children(settings: Settings, port: int, broker: str, lock: IO[str]) -> list[Child]:
    """The broker (unless the user has one), the API and the worker. All hold the lock, so that it
    is free when all are gone."""
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


def _tell(say: Callable[[str], None], child: Child, status: int) -> None:
    say(f"the {child.name} ended with status {status} and is started again; its log is {child.log}")


def _migrate(settings: Settings) -> None:
    database = connect(settings.database)
    try:
        database.migrate()
    finally:
        database.dispose()


def _wait_until_ready(url: str, children: list[Child], stop: threading.Event) -> bool:
    """Whether the API answers before anyone asks to stop. Raises Unavailable where a child ends or
    60 s are not enough."""
    deadline = time.monotonic() + START_S
    while not stop.wait(0.1):
        for child in children:
            if child.process is not None and child.process.poll() is not None:
                raise Unavailable(
                    f"the {child.name} ended at its start; {child.log} says"
                    f" why{_last_line(child.log)}"
                )
        if _answers(f"{url}/readyz"):
            return True
        if time.monotonic() > deadline:
            raise Unavailable(
                f"{url}/readyz did not answer within {START_S:.0f} s; see {children[-2].log}"
            )
    return False


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2.0) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
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
        found: int = probe.getsockname()[1]
    return found


@contextmanager
def _locked(home: Path, say: Callable[[str], None]) -> Iterator[IO[str]]:
    """Hold the data folder's lock. Children of a `nelbo up` that was killed hold it until they are
    gone: wait for them."""
    with open(home / UP_LOCK, "a+") as lock:
        deadline, told = time.monotonic() + STOP_S, False
        while not _try_lock(lock):
            lock.seek(0)
            holder = lock.read().strip()
            if (holder.isdecimal() and is_alive(int(holder))) or time.monotonic() > deadline:
                raise Conflict(
                    f"`nelbo up` (process {holder}) already runs on {home}; stop it, or set another"
                    " NELBO_HOME"
                )
            if not told:
                say("waiting for the parts of a `nelbo up` that was killed to end")
                told = True
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

    def seen(_number: int, _frame: FrameType | None) -> None:
        (signals.hurry if signals.stop.is_set() else signals.stop).set()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, seen) for number in numbers]
    try:
        yield signals
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _log(home: Path, name: str) -> Path:
    """The child's log file; one that grew large is put aside once."""
    path = home / LOGS / f"{name}.log"
    path.parent.mkdir(exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return path


def _last_line(log: Path | None) -> str:
    lines = log.read_text(errors="replace").splitlines() if log and log.exists() else []
    return f": {lines[-1][:300]}" if lines else ""

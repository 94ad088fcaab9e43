"""`python -P -m worker.app`: the worker of one host.

It starts a Celery prefork pool and the dispatcher, each in a process of its own, and restarts them
when they end. It opens neither database nor broker nor ONNX Runtime, and forks nothing.
"""

import shutil
import signal
import threading

from nelbo import logs, privacy
from nelbo.processes import ONE_THREAD, Child, Lifeline, end_all, keep_running
from nelbo.settings import read_settings
from worker import pulse

STOP_S = 20.0
"""Seconds after SIGTERM at which the processes are killed.

A container's stop_grace_period must be longer.
"""

log = logs.get(__name__)


def main() -> None:
    settings = read_settings()
    logs.configure(settings.log_level)
    privacy.close_to_others()
    privacy.prepare(settings)

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    file = pulse.new_file()
    pool = Child("pool", "worker.pool", env=ONE_THREAD | {pulse.VARIABLE: str(file)})
    dispatcher = Child("dispatcher", "worker.dispatcher", env={pulse.VARIABLE: str(file)})
    try:
        keep_running([pool, dispatcher], Lifeline(), stop, _log_restart)
    finally:
        end_all([pool, dispatcher], STOP_S)
        shutil.rmtree(file.parent, ignore_errors=True)


def _log_restart(child: Child, status: int) -> None:
    log.warning("child process ended, restarting it", child=child.name, status=status)


if __name__ == "__main__":
    main()

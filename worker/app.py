"""`python -P -m worker.app`: one worker host, that is a Celery prefork pool and the dispatcher as processes of their own.

This process only keeps the two running: it opens neither database nor broker nor ONNX Runtime, and forks nothing.
"""

import signal
import threading

import structlog

from nelbo import logs, privacy
from nelbo.processes import Child, Lifeline, end_all, keep_running
from nelbo.settings import read_settings

STOP_S = 20.0
"""What is left of the pool so long after SIGTERM is killed; a container's stop_grace_period must be longer."""

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""For NumPy's libraries, which would otherwise start a thread per core in the process that is forked."""

log = structlog.stdlib.get_logger(__name__)


def main() -> None:
    settings = read_settings()
    logs.configure(settings.log_level)
    privacy.close_to_others()
    privacy.prepare(settings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    pool = Child("pool", "worker.pool", env=ONE_THREAD)
    dispatcher = Child("dispatcher", "worker.dispatcher")
    try:
        keep_running([pool, dispatcher], Lifeline(), stop, _tell)
    finally:
        end_all([pool, dispatcher], STOP_S)


def _tell(child: Child, status: int) -> None:
    log.warning("child ended, starting it again", child=child.name, status=status)


if __name__ == "__main__":
    main()

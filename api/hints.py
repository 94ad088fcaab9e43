"""Hints about accepted jobs, sent to the broker by a thread of their own: no request ever waits for
a broker."""

from collections.abc import Callable
from queue import Full, Queue
from threading import Thread

from nelbo import logs

log = logs.get(__name__)


class Hints:
    """A bounded queue of job ids and the thread that sends them.

    A hint that is dropped costs latency only: the dispatcher hints for every job that no hint told
    of.
    """

    def __init__(self, send: Callable[[str], object], capacity: int = 1_000) -> None:
        self._send = send
        self._queue: Queue[str | None] = Queue(capacity)
        # A daemon, because a frozen broker must not keep the process from ending.
        self._thread = Thread(target=self._run, name="hints", daemon=True)
        self._thread.start()
        self.dropped = 0

    def offer(self, job_id: str) -> None:
        """Send a hint some time soon, or drop it where too many wait already. Never blocks, never
        raises."""
        try:
            self._queue.put_nowait(job_id)
        except Full:
            self.dropped += 1
            log.warning("hint dropped, the queue is full", job_id=job_id, dropped=self.dropped)

    def close(self, timeout_s: float = 2.0) -> None:
        """Send what waits already, for at most this many seconds."""
        try:
            self._queue.put_nowait(None)
        except Full:
            return
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (job_id := self._queue.get()) is not None:
            try:
                self._send(job_id)
            except Exception:
                # Whatever the broker's library raises, the next hint may work, and the dispatcher
                # repeats this one.
                log.warning("hint not sent", job_id=job_id, exc_info=True)

"""Hints about accepted jobs. A thread sends them to the broker, so that no request waits for it."""

from collections.abc import Callable
from queue import Full, Queue
from threading import Thread

from nelbo import logs

log = logs.get(__name__)


class Hints:
    """A bounded queue of job ids, and the thread that sends them.

    A dropped hint only delays a job: the dispatcher sends hints for all jobs that lack one.
    """

    def __init__(self, send: Callable[[str], object], capacity: int = 1_000) -> None:
        self._send = send
        self._queue: Queue[str | None] = Queue(capacity)
        # A daemon thread, because a frozen broker must not keep the process from ending.
        self._thread = Thread(target=self._run, name="hints", daemon=True)
        self._thread.start()
        self.dropped = 0

    def offer(self, job_id: str) -> None:
        """Send a hint soon, or drop it if too many are waiting. Never blocks, never raises."""
        try:
            self._queue.put_nowait(job_id)
        except Full:
            self.dropped += 1
            log.warning("hint dropped, the queue is full", job_id=job_id, dropped=self.dropped)

    def close(self, timeout_s: float = 2.0) -> None:
        """Send the waiting hints, for at most timeout_s seconds."""
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
                # Whatever the broker's library raises, the next hint may work. The dispatcher
                # repeats this one.
                log.warning("hint not sent", job_id=job_id, exc_info=True)

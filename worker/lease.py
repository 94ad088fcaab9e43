"""A lease on a chunk: a thread renews it during the work, which stops when the lease is lost."""

import math
import os
import signal
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from nelbo import crash, logs
from nelbo.errors import Unavailable
from worker import pulse, shutdown

log = logs.get(__name__)


class Stopped(Exception):
    """The work must stop, and no result of it may be committed."""


class LeaseLost(Stopped):
    """The lease ran out, another worker has the chunk, or the job was cancelled."""


class ShuttingDown(Stopped):
    """The worker was asked to end; the chunk goes back and counts as not attempted."""


class Lease:
    """`with Lease(renew, …) as lease:` keeps the lease until the block ends.

    Between two batches, `lease.check()` raises where the work must stop.

    `renew` asks the database and returns False where the lease is lost; `lease_s` and `renew_s` are
    seconds. The database's clock decides who holds a chunk. This process sees only its own clock,
    so it stops `lease_s` after it *asked* for the lease, which is never later than the end that the
    database has recorded.

    Each `check` is a sign of life. After `stuck_s` seconds without one, the lease is no longer
    renewed, so that another process gets the chunk, and this process is killed, as it may never
    check again.
    """

    def __init__(
        self,
        renew: Callable[[], bool],
        lease_s: float,
        renew_s: float,
        asked_at: float,
        stuck_s: float = math.inf,
    ) -> None:
        self._renew = renew
        self._lease_s = lease_s
        self._renew_s = renew_s
        self._until = asked_at + lease_s
        self._stuck_s = stuck_s
        self._checked_at = time.monotonic()
        self._lost = threading.Event()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def check(self) -> None:
        """Raise LeaseLost or ShuttingDown where the work must stop."""
        self._checked_at = time.monotonic()
        pulse.beat()
        if self._lost.is_set() or time.monotonic() >= self._until:
            raise LeaseLost
        if shutdown.announced():
            raise ShuttingDown

    def _keep(self) -> None:
        while not self._done.wait(self._renew_s):
            asked_at = time.monotonic()
            silence_s = asked_at - self._checked_at
            if silence_s > self._stuck_s:
                log.error("process is stuck and ends itself", seconds=round(silence_s))
                os.kill(os.getpid(), signal.SIGKILL)
            crash.point("renew")
            try:
                renewed = self._renew()
            except Unavailable as problem:
                # The next round may succeed; until then the clock in `check` decides.
                log.warning("lease not renewed", problem=problem.message)
                continue
            if not renewed:
                self._lost.set()
                return
            self._until = asked_at + self._lease_s

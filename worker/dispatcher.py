"""`python -P -m worker.dispatcher`: keeps jobs going when hints, workers or the broker are lost.

The dispatcher runs on every worker host, without a leader. Every `sweep_s` seconds it takes back
chunks whose lease ran out or whose process on this host is gone, sends hints for waiting chunks
without a recent hint, and records that this host is alive. It is safe to do any of this twice.

The broker cannot lose work, only delay it: after it was flushed or restarted, the next round sends
the hints again. While it does not answer, the dispatcher starts as many processes as the pool has,
which claim from SQL without any hint.
"""

import math
import os
import random
import signal
import socket
import threading
import time
from dataclasses import asdict, dataclass, field

from celery import Celery

from nelbo import crash, logs
from nelbo.broker import make_app, send_hint, waiting_hints
from nelbo.errors import Unavailable
from nelbo.processes import Child, Lifeline, end_all, life, my_name
from nelbo.settings import Settings, read_settings
from nelbo.store import queue, workers
from nelbo.store.session import Database, connect
from nelbo.store.sweep import sweep
from worker import health, pulse, tidying

SOLO_STOP_S = 15.0
TIDY_STOP_S = 2.0
TIDY_S = 60.0
TIDY_STORAGE_S = 3600.0
SILENT_S = 300.0
"""Seconds without a pulse after which the pool counts as silent.

The pool touches its pulse every second while it works, except during the finish of a job, which is
one long query.
"""

log = logs.get(__name__)


@dataclass
class Dispatcher:
    """One host's dispatcher. `solos` are the processes that work while the broker is away."""

    settings: Settings
    database: Database
    app: Celery
    name: str
    lifeline: Lifeline = field(default_factory=Lifeline)
    solos: list[Child] = field(default_factory=list)
    tidy_at: float = 0.0
    tidy_storage_at: float = 0.0
    tidier: threading.Thread | None = None
    reached_at: float = math.inf
    """Start of the last round that reached the database, by the monotonic clock."""

    def round(self) -> None:
        """Run one round. Where the database does not answer, it ends early."""
        began_at = time.monotonic()
        try:
            self._sweep(began_at)
            waiting = self._hint()
            if waiting and pulse.silence_s() > SILENT_S:
                log.error(
                    "work is waiting, but the pool does not respond",
                    seconds=round(pulse.silence_s()),
                )
            else:
                workers.heartbeat(
                    self.database,
                    self.name,
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    can_clean=workers.CAN_CLEAN,
                )
                health.touch(self.settings.home)
            if time.monotonic() >= self.tidy_at:
                self.tidy_at = time.monotonic() + TIDY_S
                self._start_tidying()
            self.reached_at = began_at
        except Unavailable as problem:
            log.warning("dispatcher round not finished", problem=problem.message)

    def tidy(self) -> None:
        """Remove what is old; less often also from the storage, whose list may be long."""
        try:
            counts = tidying.tidy(self.database, self.settings)
            if time.monotonic() >= self.tidy_storage_at:
                self.tidy_storage_at = time.monotonic() + TIDY_STORAGE_S
                counts |= tidying.tidy_storage(self.database, self.settings)
        except Unavailable as problem:
            log.warning("not tidied", problem=problem.message)
            return
        if counts:
            log.info("tidied", **counts)

    def _start_tidying(self) -> None:
        """Tidy in a thread, so that dead workers are still found in time.

        The thread may be interrupted anywhere.
        """
        if self.tidier is None or not self.tidier.is_alive():
            self.tidier = threading.Thread(target=self.tidy, name="tidy", daemon=True)
            self.tidier.start()

    def stop(self) -> None:
        end_all(self.solos, SOLO_STOP_S)
        if self.tidier is not None:
            self.tidier.join(TIDY_STOP_S)

    def _sweep(self, began_at: float) -> None:
        dead = {worker for worker in queue.holders(self.database) if life(worker) == "dead"}
        # After such an outage, living workers could not renew their leases either.
        blind = began_at - self.reached_at > self.settings.lease_s - self.settings.renew_s
        swept = sweep(self.database, dead=dead, blind=blind)
        counts = {name: count for name, count in asdict(swept).items() if count}
        if counts:
            log.info("chunks taken back", workers_dead=len(dead), after_an_outage=blind, **counts)

    def _hint(self) -> bool:
        """Keep two hints per process of the pool in the queue. True where work is waiting.

        A flushed queue therefore costs one round.
        """
        waiting = waiting_hints(self.app)
        most = 2 * self.settings.worker_processes
        room = most if waiting is None else most - waiting
        if room <= 0:
            return True
        due = queue.due_for_hint(
            self.database, room, again_s=self.settings.sweep_s, can_clean=workers.CAN_CLEAN
        )
        if due and waiting is None:
            self._work_without_broker()
        elif due:
            self._send(due)
        return bool(due)

    def _send(self, due: list[tuple[str, int]]) -> None:
        crash.point("hint")
        hinted = [
            job_id
            for job_id, count in due
            if all([send_hint(self.app, job_id) for _ in range(count)])
        ]
        if hinted:
            crash.point("hinted")
            queue.mark_hinted(self.database, hinted)
            log.debug("hinted", jobs=len(hinted), hints=sum(count for _, count in due))

    def _work_without_broker(self) -> None:
        self.solos = [
            solo for solo in self.solos if solo.process is not None and solo.process.poll() is None
        ]
        missing = self.settings.worker_processes - len(self.solos)
        if missing > 0:
            log.warning("broker does not answer, working without it", processes=missing)
        for _ in range(missing):
            solo = Child("solo", "worker.solo")
            solo.start(self.lifeline)
            self.solos.append(solo)


def main() -> None:
    settings = read_settings()
    logs.configure(settings.log_level)
    jitter = random.Random()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    dispatcher = Dispatcher(settings, connect(settings.database), make_app(settings), my_name())
    try:
        while not stop.is_set():
            dispatcher.round()
            # The dispatchers of different hosts should not all run at the same moment.
            stop.wait(settings.sweep_s * jitter.uniform(0.8, 1.2))
    finally:
        dispatcher.stop()


if __name__ == "__main__":
    main()

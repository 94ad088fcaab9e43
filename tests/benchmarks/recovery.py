"""How long the rows of a killed worker take to be done by another one, with default settings.

    python -m tests.benchmarks.recovery [--kills 20] [--database sqlite|postgresql|both]

A supervised worker, as `nelbo up` runs it, computes one long job. Again and again a process is
killed with SIGKILL that holds a chunk: one child of the pool, then all processes of the worker at
once, which the supervisor starts again. Seconds from the kill until the chunk is claimed again, and
until the last of its rows is done (computing it takes some itself).
"""

import argparse
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select

from nelbo.jobs import GenerateRequest
from nelbo.processes import HEALTHY_S, Child, Lifeline, end_all, keep_running
from nelbo.settings import Settings
from nelbo.store.session import connect
from nelbo.store.tables import ChunkRow
from tests.deadline import until
from tests.processes import alive, descendants
from tests.servers import postgresql_commands, running_postgres, running_valkey
from tests.worker.stage import Stage

CHUNK_ROWS = Settings().chunk_rows
CHUNKS = 10_000


@dataclass(frozen=True)
class Hit:
    """A chunk whose worker was killed."""

    row_from: int
    row_to: int
    fence: int
    pid: int


@dataclass(frozen=True)
class Scene:
    stage: Stage
    job_id: str
    worker: Child

    def pids(self) -> set[int]:
        assert self.worker.process is not None
        return {self.worker.process.pid} | descendants(self.worker.process.pid)

    def running(self) -> list[Hit]:
        """Chunks that a living process holds."""
        statement = select(ChunkRow.row_from, ChunkRow.row_to, ChunkRow.fence, ChunkRow.worker)
        with self.stage.database.read() as connection:
            held = connection.execute(
                statement.where(ChunkRow.job_id == self.job_id, ChunkRow.state == "running")
            ).all()
        hits = [
            Hit(chunk.row_from, chunk.row_to, chunk.fence, int(chunk.worker.rpartition(":")[2]))
            for chunk in held
        ]
        return [hit for hit in hits if alive(hit.pid)]

    def claimed(self, hit: Hit) -> bool:
        later = (ChunkRow.fence > hit.fence) | (ChunkRow.row_to < hit.row_to)
        return self._any(hit, later, ChunkRow.state.in_(("running", "done")))

    def done(self, hit: Hit) -> bool:
        return not self._any(hit, ChunkRow.state != "done")

    def _any(self, hit: Hit, *conditions: object) -> bool:
        of_job = (
            ChunkRow.job_id == self.job_id,
            ChunkRow.row_from >= hit.row_from,
            ChunkRow.row_from < hit.row_to,
        )
        with self.stage.database.read() as connection:
            count = select(func.count()).select_from(ChunkRow)
            count = count.where(*of_job, *conditions)  # type: ignore[arg-type]
            return connection.scalars(count).one() > 0


def main() -> None:
    parser = argparse.ArgumentParser(description=" ".join(__doc__.partition("\n\n")[0].split()))
    parser.add_argument("--kills", type=int, default=20, help="of each kind (default: %(default)s)")
    parser.add_argument("--database", choices=["sqlite", "postgresql", "both"], default="both")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    for database in ("sqlite", "postgresql") if options.database == "both" else (options.database,):
        for name, victims in KINDS.items():
            with scene(database) as made:
                report(
                    f"{database}, {name}",
                    [strike(made, victims, chance) for _ in range(options.kills)],
                )


def child(scene: Scene, hits: Sequence[Hit]) -> set[int]:
    return {hits[0].pid}


def whole_worker(scene: Scene, hits: Sequence[Hit]) -> set[int]:
    return scene.pids()


KINDS: dict[str, Callable[[Scene, Sequence[Hit]], set[int]]] = {
    "child killed": child,
    "whole worker killed": whole_worker,
}


def strike(
    made: Scene, choose: Callable[[Scene, Sequence[Hit]], set[int]], chance: random.Random
) -> tuple[float, float]:
    """Seconds until all chunks that a kill hit are claimed again, and done."""
    moment = time.monotonic() + HEALTHY_S + chance.uniform(0.0, 3.0)
    found = until(lambda: time.monotonic() > moment and made.running(), "a chunk to be computed")
    assert found
    victims = choose(made, found)
    hits = [hit for hit in found if hit.pid in victims]
    for pid in victims:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    # One that was just being committed is done; nothing has to recover there.
    hits = [hit for hit in hits if not made.done(hit)]
    if not hits:
        return strike(made, choose, chance)
    until(lambda: all(map(made.claimed, hits)), "the chunks to be claimed again", pause_s=0.02)
    claimed_s = time.monotonic() - began
    until(lambda: all(map(made.done, hits)), "the chunks to be done", pause_s=0.02)
    return claimed_s, time.monotonic() - began


@contextmanager
def scene(database: str) -> Iterator[Scene]:
    with tempfile.TemporaryDirectory(prefix="nelbo-recovery-") as home, running_valkey() as broker:
        folder = Path(home)
        if database == "sqlite":
            with staged(folder, f"sqlite:///{folder / 'nelbo.db'}", broker.url) as made:
                yield made
            return
        commands = postgresql_commands()
        assert commands is not None, "there is no PostgreSQL that this user can run"
        with running_postgres(commands) as server:
            server.execute("CREATE DATABASE recovery")
            with staged(folder, server.url("recovery"), broker.url) as made:
                yield made


@contextmanager
def staged(folder: Path, url: str, broker_url: str) -> Iterator[Scene]:
    fresh = connect(url)
    fresh.migrate()
    fresh.dispose()
    with Stage(folder, url, broker_url) as stage:
        rows = CHUNKS * CHUNK_ROWS
        request = GenerateRequest(model="linear", n=rows, seed=1)
        job = stage.submit(request, stage.version(), rows, CHUNK_ROWS)
        env = {
            "NELBO_HOME": str(stage.settings.home),
            "NELBO_DATABASE_URL": url,
            "NELBO_BROKER_URL": broker_url,
        }
        worker, stop, lifeline = (
            Child("worker", "worker.app", env=env, log=folder / "log"),
            threading.Event(),
            Lifeline(),
        )
        keeper = threading.Thread(
            target=keep_running, args=([worker], lifeline, stop, lambda child, status: None)
        )
        keeper.start()
        made = Scene(stage, job.id, worker)
        try:
            until(made.running, "the first chunk to be computed")
            yield made
        except BaseException:
            print((folder / "log").read_text()[-4_000:])
            raise
        finally:
            stop.set()
            keeper.join()
            end_all([worker], 20.0)
            lifeline.close()


def report(kind: str, times: Sequence[tuple[float, float]]) -> None:
    for what, seconds in zip(
        ("claimed again", "all rows done"), zip(*times, strict=True), strict=True
    ):
        print(f"{kind:32} {what:14} {spread(seconds)}   n = {len(seconds)}", flush=True)


def spread(seconds: Sequence[float]) -> str:
    found = sorted(seconds)
    p50, p95 = (found[min(len(found) - 1, int(len(found) * part))] for part in (0.5, 0.95))
    return f"p50 {p50:5.1f} s   p95 {p95:5.1f} s   max {found[-1]:5.1f} s"


if __name__ == "__main__":
    main()

"""The kinds of faults. Each does its harm at once and says how to undo it, and when."""

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from sqlalchemy import text

from nelbo.errors import Conflict, NelboError, Unavailable
from nelbo.jobs import GenerateRequest, new_id
from nelbo.store import ledger
from tests.processes import alive
from tests.system.faults.arena import LEASE_S, Arena
from tests.worker.stage import OWNER

SUBMISSIONS = 20
# Holds SQLite's one write lock for so many seconds.
STORM = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
connection.execute("ROLLBACK")
"""


@dataclass(frozen=True)
class Running:
    """A chunk that some process works on."""

    chunk_id: int
    job_id: str
    row_from: int
    row_to: int
    pid: int


@dataclass(frozen=True)
class Harm:
    """What a fault hit: the chunks that their workers cannot end, and what ends the fault after `hold_s` seconds."""

    hit: tuple[Running, ...] = ()
    hold_s: float = 0.0
    undo: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Kind:
    """`touches` is what no other fault touches meanwhile. `strike` gives None where there is nothing to hit now."""

    name: str
    touches: str
    strike: Callable[["Scene"], Harm | None]
    only: str | None = None


@dataclass
class Scene:
    """An arena, what chance decides there, and the job that each idempotency key was promised."""

    arena: Arena
    chance: random.Random
    keys: dict[str, str]
    references: Callable[[str, int], None]
    """Told of each job outside the usual ones: its id and its seed."""
    version_id: str

    def running(self) -> list[Running]:
        statement = text("SELECT id, job_id, row_from, row_to, worker FROM chunk WHERE state = 'running' ORDER BY id")
        with self.arena.stage.database.read() as connection:
            return [
                Running(row.id, row.job_id, row.row_from, row.row_to, int(row.worker.rpartition(":")[2]))
                for row in connection.execute(statement)
            ]

    def computing(self) -> list[Running]:
        """Those that a living process of a host holds."""
        ours = set().union(*(host.pids() for host in self.arena.hosts))
        return [chunk for chunk in self.running() if chunk.pid in ours and alive(chunk.pid)]


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def child(scene: Scene) -> Harm | None:
    found = scene.computing()
    if not found:
        return None
    victim = scene.chance.choice(found)
    _signal(victim.pid, signal.SIGKILL)
    return Harm((victim,))


def zombie(scene: Scene) -> Harm | None:
    """Frozen for longer than its lease, then it goes on, while its chunk is with somebody else."""
    found = scene.computing()
    if not found:
        return None
    victim = scene.chance.choice(found)
    _signal(victim.pid, signal.SIGSTOP)
    return Harm((victim,), LEASE_S * scene.chance.uniform(1.2, 2.5), partial(_signal, victim.pid, signal.SIGCONT))


def host(at: int, scene: Scene) -> Harm | None:
    below = scene.arena.hosts[at].pids()
    hit = tuple(chunk for chunk in scene.running() if chunk.pid in below)
    if not hit:
        return None
    scene.arena.kill_host(at)
    return Harm(hit, scene.chance.uniform(0.0, 1.0), partial(scene.arena.start_host, at))


def dispatcher(at: int, scene: Scene) -> Harm | None:
    found = scene.arena.hosts[at].find("worker.dispatcher")
    if not found:
        return None
    _signal(found, signal.SIGKILL)
    return Harm()


def pool(at: int, scene: Scene) -> Harm | None:
    below = scene.arena.hosts[at].pids()
    hit, found = tuple(chunk for chunk in scene.running() if chunk.pid in below), scene.arena.hosts[at].find("worker.pool")
    if not hit or not found:
        return None
    _signal(found, signal.SIGKILL)
    return Harm(hit)


def broker_killed(scene: Scene) -> Harm:
    scene.arena.broker.kill()
    return Harm(hold_s=0.1, undo=scene.arena.broker.start)


def broker_absent(scene: Scene) -> Harm:
    scene.arena.broker.kill()
    return Harm(hold_s=scene.chance.uniform(4.0, 8.0), undo=scene.arena.broker.start)


def broker_flushed(scene: Scene) -> Harm:
    scene.arena.broker.flush()
    return Harm()


def broker_frozen(scene: Scene) -> Harm:
    pid = scene.arena.broker.pid()
    _signal(pid, signal.SIGSTOP)
    return Harm(hold_s=scene.chance.uniform(2.0, 6.0), undo=partial(_signal, pid, signal.SIGCONT))


def connections_ended(scene: Scene) -> Harm | None:
    hit = tuple(scene.computing())
    if not hit:
        return None
    database = scene.arena.stage.database
    with suppress(Unavailable), database.read() as connection:
        connection.execute(text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"))
    return Harm(hit)


def backend_killed(scene: Scene) -> Harm | None:
    """PostgreSQL ends all its processes then, and recovers from its log."""
    hit = tuple(scene.computing())
    statement = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    with scene.arena.stage.database.read() as connection:
        backends = connection.execute(text(statement)).scalars().all()
    if not backends or not hit:
        return None
    _signal(scene.chance.choice(list(backends)), signal.SIGKILL)
    return Harm(hit)


def postmaster_killed(scene: Scene) -> Harm | None:
    hit = tuple(scene.computing())
    if not hit:
        return None
    assert scene.arena.postgresql is not None
    _signal(scene.arena.postgresql.pid, signal.SIGKILL)
    return Harm(hit, scene.chance.uniform(0.0, 2.0), scene.arena.start_postgresql)


def storm(scene: Scene) -> Harm | None:
    """Nobody else can write, nor renew a lease, for longer than a lease."""
    hit = tuple(scene.computing())
    if not hit:
        return None
    hold_s = LEASE_S * scene.chance.uniform(0.5, 2.0)
    path = scene.arena.stage.database_url.removeprefix("sqlite:///")
    locker = subprocess.Popen([sys.executable, "-I", "-c", STORM, path, str(hold_s)], stdout=subprocess.PIPE)
    assert locker.stdout is not None
    with locker.stdout:
        locker.stdout.readline()
    return Harm(hit, hold_s, locker.wait)


def cancel(scene: Scene) -> Harm | None:
    """A running job is cancelled, and half of the times goes on a moment later."""
    stage = scene.arena.stage
    jobs = sorted({chunk.job_id for chunk in scene.running()})
    if not jobs:
        return None
    job_id = scene.chance.choice(jobs)
    try:
        ledger.cancel(stage.database, OWNER, job_id)
    except Conflict:
        return Harm()
    if scene.chance.random() < 0.5:
        return Harm()
    return Harm(hold_s=scene.chance.uniform(0.0, 1.0), undo=lambda: ledger.retry(stage.database, OWNER, job_id))


def same_key(scene: Scene) -> Harm:
    """Many submissions at once under one key."""
    stage, key, seed = scene.arena.stage, new_id(), scene.chance.randrange(3)
    request, made = GenerateRequest(model="linear", n=200, seed=seed), set[str]()
    given = {"version_id": scene.version_id, "rows": 200, "chunk_rows": 200, "idempotency_key": key, "request_digest": "same"}

    def submit() -> None:
        with suppress(NelboError):
            made.add(ledger.submit(stage.database, OWNER, request, **given)[0].id)  # type: ignore[arg-type]

    threads = [threading.Thread(target=submit) for _ in range(SUBMISSIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(made) > 1:
        raise AssertionError(f"one key made the jobs {sorted(made)}")
    for job_id in made:
        scene.keys[key] = job_id
        scene.references(job_id, seed)
    return Harm()


KINDS = (
    Kind("child killed", "children", child),
    Kind("child frozen, then back", "children", zombie),
    Kind("host killed (1)", "host 0", partial(host, 0)),
    Kind("host killed (2)", "host 1", partial(host, 1)),
    Kind("pool killed", "host 0", partial(pool, 0)),
    Kind("dispatcher killed", "host 1", partial(dispatcher, 1)),
    Kind("broker killed", "broker", broker_killed),
    Kind("broker flushed", "broker", broker_flushed),
    Kind("broker frozen", "broker", broker_frozen),
    Kind("broker absent", "broker", broker_absent),
    Kind("connections ended", "database", connections_ended, "postgresql"),
    Kind("backend killed", "database", backend_killed, "postgresql"),
    Kind("postmaster killed", "database", postmaster_killed, "postgresql"),
    Kind("write lock held", "database", storm, "sqlite"),
    Kind("cancelled in mid-commit", "jobs", cancel),
    Kind("20 submissions, one key", "database", same_key),
)
KILLS = tuple(kind for kind in KINDS if kind.strike in (child, zombie) or kind.touches.startswith("host"))

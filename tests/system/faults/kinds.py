"""The kinds of faults. Each is a course: it strikes, says what it waits for, and undoes its harm,
also when broken off."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sqlalchemy import text

from nelbo.errors import Unavailable
from nelbo.ids import new_id
from tests.processes import alive, stopped
from tests.system.faults.arena import LEASE_S, Arena
from tests.system.faults.clients import Clients, Recipe, errand
from tests.system.faults.inside.sitecustomize import FULL, READ_ONLY

SUBMISSIONS = 20
CLOCKS_S = (-3_600.0, 3_600.0)
# Holds SQLite's one write lock for so many seconds.
STORM = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
connection.execute("ROLLBACK")
"""

Over = Callable[[], bool]
Course = Generator[Over, None, None]
"""Strikes before its first `yield`; goes on when what it yielded says True."""


class Missed(Exception):
    """There is nothing to hit now."""


@dataclass(frozen=True)
class Running:
    """A chunk that some process works on."""

    chunk_id: int
    job_id: str
    row_from: int
    row_to: int
    pid: int


@dataclass(frozen=True)
class Cancel:
    """A job that was cancelled, when that was answered, and until when nothing of it could begin
    again."""

    job_id: str
    at: float
    until: float


@dataclass
class Scene:
    """Where a fault strikes, what chance decides there, and what is to be noted for the figures."""

    arena: Arena
    clients: Clients
    chance: random.Random
    small: Sequence[Recipe]
    poison: Recipe
    hit: tuple[Running, ...] = ()
    """The chunks whose processes this fault ended."""
    cancels: list[Cancel] = field(default_factory=list)
    shutdowns_s: list[float] = field(default_factory=list)
    hints_lost: int = 0
    poisoned: list[str] = field(default_factory=list)
    """Jobs with a row that kills its process."""

    def running(self) -> list[Running]:
        statement = text(
            "SELECT id, job_id, row_from, row_to, worker FROM chunk WHERE state = 'running' ORDER"
            " BY id"
        )
        with self.arena.stage.database.read() as connection:
            return [
                Running(
                    row.id, row.job_id, row.row_from, row.row_to, int(row.worker.rpartition(":")[2])
                )
                for row in connection.execute(statement)
            ]

    def computing(self) -> list[Running]:
        """Those that a living process of a host holds."""
        ours = set().union(*(host.pids() for host in self.arena.hosts))
        return [chunk for chunk in self.running() if chunk.pid in ours and alive(chunk.pid)]

    def victim(self) -> Running:
        found = self.computing()
        if not found:
            raise Missed
        return self.chance.choice(found)

    def of_host(self, at: int) -> tuple[Running, ...]:
        below = self.arena.hosts[at].pids()
        found = tuple(chunk for chunk in self.running() if chunk.pid in below)
        if not found:
            raise Missed
        return found

    def seconds(self, low: float, high: float) -> Over:
        """Over after some time between these."""
        end = time.monotonic() + self.chance.uniform(low, high)
        return lambda: time.monotonic() >= end

    def ended(self, job_id: str) -> bool:
        with suppress(Unavailable), self.arena.stage.database.read() as connection:
            asked = text("SELECT finished_at FROM job WHERE id = :id")
            return connection.execute(asked, {"id": job_id}).scalar() is not None
        return False


@dataclass(frozen=True)
class Kind:
    """`touches` is what no other fault touches meanwhile; `only` the one database that knows this
    fault."""

    name: str
    touches: str
    course: Callable[[Scene], Course]
    only: str | None = None
    kills: bool = False
    """Processes that hold chunks: what the time to recover is about."""


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


# Workers


def child_killed(scene: Scene) -> Course:
    victim = scene.victim()
    scene.hit = (victim,)
    _signal(victim.pid, signal.SIGKILL)
    yield from ()


def child_frozen(scene: Scene) -> Course:
    """For longer than its lease; then it goes on, while its chunk is with somebody else."""
    victim = scene.victim()
    _signal(victim.pid, signal.SIGSTOP)
    try:
        yield scene.seconds(LEASE_S * 1.2, LEASE_S * 2.5)
    finally:
        _signal(victim.pid, signal.SIGCONT)


def frozen_at_commit(scene: Scene) -> Course:
    """The same, just before it stores what it computed: the fence has to refuse it."""
    with scene.arena.zombie("computed") as frozen:
        yield lambda: stopped(frozen.pid) or not alive(frozen.pid)
        yield scene.seconds(LEASE_S * 1.2, LEASE_S * 2.5)
        _signal(frozen.pid, signal.SIGCONT)
        yield lambda: not alive(frozen.pid)


def host_killed(at: int, scene: Scene, clock_s: Sequence[float] = (0.0,)) -> Course:
    """All its processes at once, as when the machine goes; another one comes."""
    scene.hit = scene.of_host(at)
    scene.arena.kill_host(at)
    try:
        yield scene.seconds(0.0, 1.0)
    finally:
        scene.arena.start_host(at, scene.chance.choice(clock_s))


def host_restarted(at: int, scene: Scene) -> Course:
    """In order, by SIGTERM."""
    scene.of_host(at)
    process, asked_at = scene.arena.hosts[at].process, time.monotonic()
    _signal(process.pid, signal.SIGTERM)
    try:
        yield lambda: process.poll() is not None
        scene.shutdowns_s.append(time.monotonic() - asked_at)
    finally:
        scene.arena.kill_host(at)
        scene.arena.start_host(at)


def pool_killed(at: int, scene: Scene) -> Course:
    """Its first process, whose children end with it."""
    hit, found = scene.of_host(at), scene.arena.hosts[at].find("worker.pool")
    if not found:
        raise Missed
    scene.hit = hit
    _signal(found, signal.SIGKILL)
    yield from ()


def dispatcher_killed(at: int, scene: Scene) -> Course:
    found = scene.arena.hosts[at].find("worker.dispatcher")
    if not found:
        raise Missed
    _signal(found, signal.SIGKILL)
    yield from ()


def memory_limit(scene: Scene) -> Course:
    """The process may have no more memory than it holds."""
    victim = scene.victim()
    with suppress(ProcessLookupError, FileNotFoundError):
        held = (
            int(Path(f"/proc/{victim.pid}/statm").read_text().split()[0]) * resource.getpagesize()
        )
        resource.prlimit(victim.pid, resource.RLIMIT_AS, (held, resource.RLIM_INFINITY))
    try:
        yield scene.seconds(1.0, 3.0)
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(victim.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)


def poison_row(scene: Scene) -> Course:
    """A job with a row that kills whoever scores it."""
    yield errand(lambda: scene.poisoned.append(scene.clients.submit(scene.poison)))


# The API


def api_killed(scene: Scene) -> Course:
    scene.arena.kill_api()
    try:
        yield scene.seconds(0.0, 1.0)
    finally:
        scene.arena.start_api()
    yield scene.arena.api_answers


def api_restarted(scene: Scene) -> Course:
    """What it was asked is answered first."""
    process = scene.arena.api
    assert process is not None
    _signal(process.pid, signal.SIGTERM)
    try:
        yield lambda: process.poll() is not None
    finally:
        scene.arena.kill_api()
        scene.arena.start_api()
    yield scene.arena.api_answers


def same_key(scene: Scene) -> Course:
    """Many submissions at once."""
    key, recipe = new_id(), scene.chance.choice(scene.small)
    done = [errand(partial(scene.clients.submit, recipe, key)) for _ in range(SUBMISSIONS)]
    yield lambda: all(is_done() for is_done in done)


def cancelled(scene: Scene) -> Course:
    """A running job, which half of the times goes on a moment later."""
    jobs = sorted({chunk.job_id for chunk in scene.running()} & set(scene.clients.wanted))
    if not jobs:
        raise Missed
    job_id, goes_on = scene.chance.choice(jobs), scene.chance.random() < 0.5
    taken: list[bool] = []
    yield errand(lambda: taken.append(scene.clients.cancel(job_id)))
    cancelled_at = time.time()
    yield scene.seconds(1.0, 2.0)
    if taken == [True]:
        scene.cancels.append(Cancel(job_id, cancelled_at, time.time()))
        if goes_on:
            yield errand(lambda: scene.clients.retry(job_id))


def cancelled_at_commit(scene: Scene) -> Course:
    """In the middle of a transaction that stores the results of a chunk."""
    with scene.arena.zombie("commit") as frozen:
        yield lambda: stopped(frozen.pid) or not alive(frozen.pid)
        for chunk in scene.running():
            if chunk.pid == frozen.pid and stopped(frozen.pid):
                done = errand(partial(scene.clients.cancel, chunk.job_id))
                yield scene.seconds(0.1, 0.4)
                _signal(frozen.pid, signal.SIGCONT)
                yield done
        _signal(frozen.pid, signal.SIGCONT)
        yield lambda: not alive(frozen.pid)


# The broker


def broker_killed(scene: Scene) -> Course:
    scene.hints_lost += scene.arena.waiting_hints()
    scene.arena.broker.kill()
    try:
        yield scene.seconds(0.1, 0.3)
    finally:
        scene.arena.broker.start()


def broker_absent(scene: Scene) -> Course:
    """From before a job's submission until it has ended."""
    scene.hints_lost += scene.arena.waiting_hints()
    scene.arena.broker.kill()
    made: list[str] = []
    try:
        yield errand(lambda: made.append(scene.clients.submit(scene.chance.choice(scene.small))))
        yield lambda: made == [""] or scene.ended(made[0])
    finally:
        scene.arena.broker.start()


def broker_flushed(scene: Scene) -> Course:
    scene.hints_lost += scene.arena.waiting_hints()
    with scene.arena.broker.client() as client:
        client.flushall()
    yield from ()


def broker_frozen(scene: Scene) -> Course:
    _signal(scene.arena.broker.pid, signal.SIGSTOP)
    try:
        yield scene.seconds(2.0, 6.0)
    finally:
        _signal(scene.arena.broker.pid, signal.SIGCONT)


def half_open_to_workers(scene: Scene) -> Course:
    """Connections that are there pass nothing on any more, and nobody is told."""
    if not sum(proxy.drop() for proxy in scene.arena.worker_brokers):
        raise Missed
    yield from ()


def half_open_to_api(scene: Scene) -> Course:
    if not scene.arena.api_broker.drop():
        raise Missed
    yield from ()


# The database


def connections_ended(scene: Scene) -> Course:
    scene.arena.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    )
    yield from ()


def backend_killed(scene: Scene) -> Course:
    """PostgreSQL ends all its processes then, and recovers from its log."""
    statement = (
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <>"
        " pg_backend_pid()"
    )
    backends = [int(pid) for pid in scene.arena.sql(statement)]
    if not backends:
        raise Missed
    _signal(scene.chance.choice(backends), signal.SIGKILL)
    yield from ()


def postmaster_killed(scene: Scene) -> Course:
    assert scene.arena.postgresql is not None
    _signal(scene.arena.postgresql.pid, signal.SIGKILL)
    try:
        yield scene.seconds(0.0, 2.0)
    finally:
        scene.arena.start_postgresql()


def cut_after_commit(scene: Scene) -> Course:
    """A chunk is stored; the worker never hears so."""
    made = scene.arena.worker_database
    assert made is not None
    made.cut_commit(only_results=True)
    yield lambda: not made.cuts


def cut_after_accept(scene: Scene) -> Course:
    """The API's transaction is done, most times one that accepted a job; the API never hears so."""
    made = scene.arena.api_database
    assert made is not None
    made.cut_commit(only_results=False)
    yield lambda: not made.cuts


def write_lock_held(scene: Scene) -> Course:
    """Nobody else can write, nor renew a lease, for about as long as a lease."""
    hold_s = LEASE_S * scene.chance.uniform(0.5, 2.0)
    path = scene.arena.stage.database_url.removeprefix("sqlite:///")
    locker = subprocess.Popen(
        [sys.executable, "-I", "-c", STORM, path, str(hold_s)], stdout=subprocess.PIPE
    )
    assert locker.stdout is not None
    with locker.stdout:
        locker.stdout.readline()
    try:
        yield lambda: locker.poll() is not None
    finally:
        locker.wait()


def disk_full(scene: Scene) -> Course:
    with scene.arena.limited(FULL):
        yield scene.seconds(1.0, 5.0)


def read_only(scene: Scene) -> Course:
    with scene.arena.limited(READ_ONLY):
        yield scene.seconds(1.0, 5.0)


KINDS = (
    Kind("child killed", "children", child_killed, kills=True),
    Kind("child frozen, then back", "children", child_frozen),
    Kind("frozen at its commit, then back", "zombie", frozen_at_commit),
    Kind("host killed", "host 0", partial(host_killed, 0), kills=True),
    Kind(
        "host killed, back with another clock",
        "host 1",
        partial(host_killed, 1, clock_s=CLOCKS_S),
        kills=True,
    ),
    Kind("host restarted by SIGTERM", "host 1", partial(host_restarted, 1)),
    Kind("pool killed", "host 0", partial(pool_killed, 0), kills=True),
    Kind("dispatcher killed", "host 1", partial(dispatcher_killed, 1)),
    Kind("memory limit hit", "children", memory_limit),
    Kind("poison row", "jobs", poison_row),
    Kind("API killed", "api", api_killed),
    Kind("API restarted by SIGTERM", "api", api_restarted),
    Kind("20 submissions, one key", "jobs", same_key),
    Kind("cancelled while it runs", "jobs", cancelled),
    Kind("cancelled in mid-commit", "zombie", cancelled_at_commit),
    Kind("broker killed", "broker", broker_killed),
    Kind("broker absent for a whole job", "broker", broker_absent),
    Kind("broker flushed", "broker", broker_flushed),
    Kind("broker frozen", "broker", broker_frozen),
    Kind("broker half-open to workers", "broker", half_open_to_workers),
    Kind("broker half-open to API", "broker", half_open_to_api),
    Kind("disk full", "database", disk_full),
    Kind("database read-only", "database", read_only),
    Kind("write lock held", "database", write_lock_held, "sqlite"),
    Kind("connections ended", "database", connections_ended, "postgresql"),
    Kind("backend killed", "database", backend_killed, "postgresql"),
    Kind("postmaster killed", "database", postmaster_killed, "postgresql"),
    Kind("cut after COMMIT of a chunk", "database", cut_after_commit, "postgresql"),
    Kind("cut after COMMIT in the API", "database", cut_after_accept, "postgresql"),
)
KILLS = tuple(kind for kind in KINDS if kind.kills or kind.course is child_frozen)
BROKER = frozenset(kind.name for kind in KINDS if kind.touches == "broker")

"""Workers, and the time when each was last seen."""

from dataclasses import dataclass
from importlib.util import find_spec

from sqlalchemy import delete, insert, select, update

from nelbo.store.session import Database, now
from nelbo.store.tables import WorkerRow

FORGET_WORKER_S = 86_400.0
CAN_CLEAN = find_spec("torch") is not None
"""Whether a worker with these packages can clean tables, for which models are fitted."""


@dataclass(frozen=True)
class Heartbeat:
    """A worker and the time since it was last seen, by the database's clock."""

    worker: str
    host: str
    pid: int
    started_at: float
    age_s: float


def heartbeat(db: Database, worker: str, *, host: str, pid: int, can_clean: bool = False) -> None:
    """Record that a worker is alive, and whether its host can clean tables."""
    values = {"host": host, "pid": pid, "can_clean": can_clean}
    seen = update(WorkerRow).where(WorkerRow.name == worker).values(seen_at=now(), **values)
    with db.write() as connection:
        if connection.execute(seen).rowcount == 0:
            connection.execute(delete(WorkerRow).where(WorkerRow.seen_at < now() - FORGET_WORKER_S))
            connection.execute(
                insert(WorkerRow).values(name=worker, started_at=now(), seen_at=now(), **values)
            )


def can_clean(db: Database, *, within_s: float = 60.0) -> bool:
    """Whether a worker that can clean tables was seen within the last `within_s` seconds."""
    alive = select(WorkerRow.name).where(
        WorkerRow.can_clean.is_(True), WorkerRow.seen_at > now() - within_s
    )
    with db.read() as connection:
        return connection.execute(alive.limit(1)).first() is not None


def heartbeats(db: Database, *, within_s: float = 60.0) -> list[Heartbeat]:
    """Workers that were seen within the last `within_s` seconds."""
    age = (now() - WorkerRow.seen_at).label("age_s")
    statement = select(
        WorkerRow.name, WorkerRow.host, WorkerRow.pid, WorkerRow.started_at, age
    ).where(age <= within_s)
    with db.read() as connection:
        return [Heartbeat(*row) for row in connection.execute(statement.order_by(WorkerRow.name))]

"""Workers, and the time when each was last seen."""

from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update

from nelbo.store.session import Database, now
from nelbo.store.tables import WorkerRow

FORGET_WORKER_S = 86_400.0


@dataclass(frozen=True)
class Heartbeat:
    """A worker and the time since it was last seen, by the database's clock."""

    worker: str
    host: str
    pid: int
    started_at: float
    age_s: float


def heartbeat(db: Database, worker: str, *, host: str, pid: int) -> None:
    """Record that a worker is alive."""
    seen = (
        update(WorkerRow).where(WorkerRow.name == worker).values(seen_at=now(), host=host, pid=pid)
    )
    with db.write() as connection:
        if connection.execute(seen).rowcount == 0:
            connection.execute(delete(WorkerRow).where(WorkerRow.seen_at < now() - FORGET_WORKER_S))
            connection.execute(
                insert(WorkerRow).values(
                    name=worker, host=host, pid=pid, started_at=now(), seen_at=now()
                )
            )


def heartbeats(db: Database, *, within_s: float = 60.0) -> list[Heartbeat]:
    """Workers that were seen within the last `within_s` seconds."""
    age = (now() - WorkerRow.seen_at).label("age_s")
    statement = select(
        WorkerRow.name, WorkerRow.host, WorkerRow.pid, WorkerRow.started_at, age
    ).where(age <= within_s)
    with db.read() as connection:
        return [Heartbeat(*row) for row in connection.execute(statement.order_by(WorkerRow.name))]

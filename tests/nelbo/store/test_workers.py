"""Which workers are alive."""

from sqlalchemy import text

from nelbo.store import workers
from nelbo.store.session import Database


def test_a_heartbeat_says_who_is_alive(database: Database) -> None:
    workers.heartbeat(database, "a", host="here", pid=1)
    workers.heartbeat(database, "b", host="here", pid=2)
    with database.write() as connection:
        connection.execute(text("UPDATE worker SET seen_at = seen_at - 100 WHERE name = 'a'"))
    assert [beat.worker for beat in workers.heartbeats(database)] == ["b"]
    workers.heartbeat(database, "a", host="here", pid=3)
    alive = workers.heartbeats(database)
    assert [(beat.worker, beat.pid) for beat in alive] == [("a", 3), ("b", 2)]
    assert all(0 <= beat.age_s < 5 for beat in alive)


def test_a_worker_not_seen_for_a_day_is_forgotten(database: Database) -> None:
    workers.heartbeat(database, "a", host="here", pid=1)
    with database.write() as connection:
        connection.execute(text("UPDATE worker SET seen_at = seen_at - 100000"))
    workers.heartbeat(database, "b", host="here", pid=2)
    assert [beat.worker for beat in workers.heartbeats(database, within_s=1e9)] == ["b"]

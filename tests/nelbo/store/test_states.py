"""Every pair of states, of jobs and of chunks: allowed or refused exactly as the tables of
`nelbo.jobs` say."""

import contextlib
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from nelbo.errors import Conflict
from nelbo.jobs import CHUNK_TRANSITIONS, JOB_TRANSITIONS
from nelbo.store import ledger, lookup
from nelbo.store.claims import Claim
from nelbo.store.session import Database, now
from nelbo.store.sweep import sweep
from nelbo.store.tables import ChunkRow, JobRow
from tests.nelbo.store.kit import (
    OWNER,
    add_job,
    add_version,
    assert_sound,
    expire,
    outcome_of,
    take,
    work,
    work_off,
)


def job_columns(state: str) -> dict[str, Any]:
    """What else holds of a job in this state."""
    ended = state in ("succeeded", "failed", "cancelled")
    return {
        "state": state,
        "rows_done": int(state == "succeeded"),
        "chunks_done": int(state == "succeeded"),
        "finished_at": 1.0 if ended else None,
        "cancel_requested_at": 1.0 if state == "cancelled" else None,
    }


def chunk_columns(state: str) -> dict[str, Any]:
    return {"state": state, "lease_until": 1.0 if state == "running" else None}


def changes(database: Database, change: Callable[[Connection], object]) -> bool:
    """Whether the database lets the change happen; it is undone."""

    class Undo(Exception):
        pass

    try:
        with database.write() as connection:
            change(connection)
            raise Undo
    except Undo:
        return True
    except DBAPIError:
        return False


def test_the_database_lets_jobs_change_as_the_table_says(database: Database) -> None:
    version = add_version(database)

    def move(connection: Connection, source: str, target: str) -> None:
        job = {
            "id": "j",
            "owner": OWNER,
            "kind": "score",
            "params": {},
            "rows": 1,
            "chunks": 1,
            "version_id": version.id,
        }
        connection.execute(insert(JobRow).values(created_at=now(), **job, **job_columns(source)))
        connection.execute(update(JobRow).values(job_columns(target)))

    allowed = {
        (source, target)
        for source, target in product(JOB_TRANSITIONS, repeat=2)
        if changes(database, partial(move, source=source, target=target))
    }
    assert allowed == {
        (s, t) for s, t in product(JOB_TRANSITIONS, repeat=2) if t == s or t in JOB_TRANSITIONS[s]
    }


def test_the_database_lets_chunks_change_as_the_table_says(database: Database) -> None:
    job = add_job(database)

    def move(connection: Connection, source: str, target: str) -> None:
        place = {"job_id": job.id, "stage": "work", "row_from": 100, "row_to": 101}
        connection.execute(insert(ChunkRow).values(**place, **chunk_columns(source)))
        connection.execute(
            update(ChunkRow).where(ChunkRow.row_from == 100).values(chunk_columns(target))
        )

    allowed = {
        (source, target)
        for source, target in product(CHUNK_TRANSITIONS, repeat=2)
        if changes(database, partial(move, source=source, target=target))
    }
    assert allowed == {
        (s, t)
        for s, t in product(CHUNK_TRANSITIONS, repeat=2)
        if t == s or t in CHUNK_TRANSITIONS[s]
    }


def queued(database: Database) -> tuple[str, Claim]:
    """A queued job, and a claim on its only chunk that is over."""
    job = add_job(database, rows=1)
    stale = take(database)
    ledger.cancel(database, OWNER, job.id)
    ledger.retry(database, OWNER, job.id)
    return job.id, stale


def running(database: Database) -> tuple[str, Claim]:
    job_id, _ = queued(database)
    return job_id, take(database)


def succeeded(database: Database) -> tuple[str, Claim]:
    job = add_job(database, rows=1)
    claim = take(database)
    assert ledger.commit(database, claim, outcome_of(claim))
    work_off(database)
    return job.id, claim


def failed(database: Database) -> tuple[str, Claim]:
    job_id, claim = running(database)
    assert ledger.fail(database, claim, "the artifact is gone")
    return job_id, claim


def cancelled(database: Database) -> tuple[str, Claim]:
    job_id, claim = running(database)
    ledger.cancel(database, OWNER, job_id)
    return job_id, claim


JOBS = {
    "queued": queued,
    "running": running,
    "succeeded": succeeded,
    "failed": failed,
    "cancelled": cancelled,
}


def finish(database: Database, job_id: str, claim: Claim) -> None:
    """Commit the last chunk and, where that queued one, the finish chunk."""
    if ledger.commit(database, claim, outcome_of(claim)):
        work_off(database)


MOVES: dict[str, Callable[[Database, str, Claim], object]] = {
    "queued": lambda database, job_id, claim: ledger.retry(database, OWNER, job_id),
    "running": lambda database, job_id, claim: ledger.claim(database, "worker", lease_s=60),
    "succeeded": finish,
    "failed": lambda database, job_id, claim: ledger.fail(database, claim, "no"),
    "cancelled": lambda database, job_id, claim: ledger.cancel(database, OWNER, job_id),
}


@pytest.mark.parametrize("source", JOBS)
def test_each_function_moves_a_job_where_the_table_says_or_leaves_it(
    database: Database, source: str
) -> None:
    for target, move in MOVES.items():
        job_id, claim = JOBS[source](database)
        before = lookup.get_job(database, OWNER, job_id)
        assert before.state == source
        with contextlib.suppress(Conflict):
            move(database, job_id, claim)
        after = lookup.get_job(database, OWNER, job_id)
        # A queued job may fail by the table; nobody holds a claim on it, so nobody does so.
        moved = target in JOB_TRANSITIONS[before.state] and (source, target) != ("queued", "failed")
        assert after.state == (target if moved else source), target
        if not moved:
            assert after.model_dump(exclude={"progress"}) == before.model_dump(exclude={"progress"})
        assert_sound(database)
        leave_nothing_to_do(database)


def leave_nothing_to_do(database: Database) -> None:
    for state in ("queued", "running"):
        for job in lookup.list_jobs(database, OWNER, state=state).jobs:
            ledger.cancel(database, OWNER, job.id)


def state_of(database: Database, claim: Claim) -> str:
    with database.read() as connection:
        return connection.scalars(select(ChunkRow.state).where(ChunkRow.id == claim.chunk_id)).one()


def swept(database: Database, claim: Claim) -> None:
    """Sweep after the lease ran out, where there is one."""
    if state_of(database, claim) == "running":
        expire(database, claim)
    sweep(database)


CHUNK_MOVES: dict[str, tuple[str, Callable[[Database, Claim], object]]] = {
    "claim": ("running", lambda database, claim: ledger.claim(database, "worker", lease_s=60)),
    "renew": ("running", lambda database, claim: ledger.renew(database, claim, 60)),
    "release": (
        "queued",
        lambda database, claim: ledger.release(database, claim, problem="no answer"),
    ),
    "sweep": ("queued", swept),
    "commit": ("done", lambda database, claim: ledger.commit(database, claim, outcome_of(claim))),
    "fail": ("failed", lambda database, claim: ledger.fail(database, claim, "no")),
}
CHUNKS = {
    "queued": queued,
    "running": running,
    "done": succeeded,
    "failed": failed,
    "cancelled": cancelled,
}


@pytest.mark.parametrize("source", CHUNKS)
def test_each_function_moves_a_chunk_where_the_table_says_or_leaves_it(
    database: Database, source: str
) -> None:
    for move, (target, function) in CHUNK_MOVES.items():
        _, claim = CHUNKS[source](database)
        assert state_of(database, claim) == source
        function(database, claim)
        from_here = {"claim": "queued", "renew": "none"}.get(move, "running")
        assert state_of(database, claim) == (target if source == from_here else source), move
        assert_sound(database)
        leave_nothing_to_do(database)


def test_a_cancelled_or_failed_chunk_is_queued_again_by_a_retry_alone(database: Database) -> None:
    for make in (failed, cancelled):
        job_id, claim = make(database)
        ledger.retry(database, OWNER, job_id)
        assert state_of(database, claim) == "queued"
        work_off(database)
        assert lookup.get_job(database, OWNER, job_id).state == "succeeded"
    assert_sound(database)


NEVER = [
    "UPDATE job SET rows_done = rows + 1",
    "UPDATE job SET rows_failed = 1",
    "UPDATE job SET chunks_done = chunks + 1",
    "UPDATE job SET rows = 0",
    "UPDATE job SET finished_at = 1",
    "UPDATE job SET cancel_requested_at = 1",
    "UPDATE job SET state = 'asleep'",
    "UPDATE job SET kind = 'train'",
    "UPDATE job SET version_id = 'nobody'",
    "UPDATE chunk SET state = 'asleep'",
    "UPDATE chunk SET row_to = row_from",
    "UPDATE chunk SET row_from = -1",
    "UPDATE chunk SET lease_until = 1",
    "UPDATE chunk SET attempt = fence + 1",
    "UPDATE chunk SET stage = 'finish'",
    "INSERT INTO chunk (job_id, stage, row_from, row_to, state) SELECT job_id, 'work', row_from,"
    " 99, 'queued' FROM chunk",
    "UPDATE version SET number = 0",
    "UPDATE version SET state = 'asleep'",
    "INSERT INTO file (id, owner, name, format, options, notices, state, created_at)"
    " VALUES ('f', 'o', 'n', 'csv', '{}', '[]', 'ready', 0)",
]


def test_the_schema_refuses_what_can_never_be(database: Database) -> None:
    add_job(database)
    for change in NEVER:
        assert not changes(database, partial(execute, statement=change)), change


def execute(connection: Connection, statement: str) -> None:
    connection.execute(text(statement))


def test_a_job_cannot_have_succeeded_with_rows_missing(database: Database) -> None:
    add_job(database, rows=2, chunk_rows=1)
    claim = take(database)
    ledger.commit(database, claim, work(database, claim))
    whole = "UPDATE job SET state = 'succeeded', finished_at = 1"
    assert not changes(database, partial(execute, statement=whole))

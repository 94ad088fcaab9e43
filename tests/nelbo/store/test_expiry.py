"""What is old goes, batch by batch; what is young, unfinished or in use stays."""

from typing import Any

import pytest
from sqlalchemy import Connection, func, select, text, update

from nelbo.errors import Gone, NotFound
from nelbo.jobs import INTERNAL_KINDS, GenerateRequest
from nelbo.store import catalog, expiry, files, ledger, lookup, results
from nelbo.store.session import Database, now
from nelbo.store.tables import ChunkRow, FileRow, JobRow
from tests.nelbo.store.kit import (
    OWNER,
    add_file,
    add_job,
    add_version,
    assert_sound,
    at_once,
    outcome_of,
    stored_rows,
    take,
    work_off,
)

DAY = 86_400.0
STORED = ("chunk", "score_chunk", "table_chunk", "row_error", "anomaly")


def age(db: Database, seconds: float = 10 * DAY) -> None:
    """Everything becomes older by so much."""
    with db.write() as connection:
        for table, columns in (
            (JobRow, ("created_at", "started_at", "finished_at", "deleted_at")),
            (FileRow, ("created_at", "deleted_at")),
        ):
            columns_now = table.__table__.c
            connection.execute(
                update(table).values({name: columns_now[name] - seconds for name in columns})
            )


def stored(db: Database, job_id: str) -> dict[str, int]:
    def count(connection: Connection, table: str) -> int:
        statement = text(f"SELECT COUNT(*) FROM {table} WHERE job_id = :id")
        return int(connection.execute(statement, {"id": job_id}).scalar_one())

    with db.read() as connection:
        return {table: count(connection, table) for table in STORED}


def done_job(db: Database, **more: object) -> str:
    """A job that has succeeded, with results, errors and anomalies."""
    job = add_job(db, rows=10, chunk_rows=2, **more)  # type: ignore[arg-type]
    while stored(db, job.id)["chunk"] and lookup.get_job(db, OWNER, job.id).state not in (
        "succeeded",
    ):
        claim = take(db)
        failed = [claim.row_from] if claim.stage == "work" else []
        outcome = (
            results.finish(db, claim) if claim.stage == "finish" else outcome_of(claim, failed)
        )
        assert ledger.commit(db, claim, outcome)
    return job.id


def purge_all(db: Database, age_s: float = 0.0, limit: int = 50) -> list[int]:
    batches = []
    while batch := expiry.purge(db, age_s, limit=limit):
        batches.append(batch)
    return batches


def test_a_job_goes_with_its_results_when_it_ended_long_ago(database: Database) -> None:
    job_id = done_job(database)
    assert all(
        stored(database, job_id)[table]
        for table in ("chunk", "score_chunk", "row_error", "anomaly")
    )
    assert expiry.expire_jobs(database, 11 * DAY) == 0
    age(database)
    assert expiry.expire_jobs(database, 11 * DAY) == 0
    assert expiry.expire_jobs(database, 9 * DAY) == 1
    with pytest.raises(Gone):
        lookup.get_job(database, OWNER, job_id)
    assert purge_all(database, age_s=1_000.0) == [], "whoever reads it comes to the end"
    assert len(stored_rows(database, job_id)) == 5
    assert purge_all(database, limit=4) == [4, 2], "five chunks and the finish"
    assert set(stored(database, job_id).values()) == {0}
    assert expiry.forget_jobs(database, DAY) == 0
    age(database)
    assert expiry.forget_jobs(database, DAY) == 1
    with pytest.raises(NotFound):
        lookup.get_job(database, OWNER, job_id)


def test_made_rows_go_too(database: Database) -> None:
    job_id = done_job(database, request=GenerateRequest(model="adult", n=10))
    assert stored(database, job_id)["table_chunk"] == 5
    age(database)
    assert expiry.expire_jobs(database, DAY) == 1
    purge_all(database)
    assert set(stored(database, job_id).values()) == {0}


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_jobs_that_failed_or_were_cancelled_expire_as_well(database: Database, end: str) -> None:
    job = add_job(database)
    if end == "failed":
        assert ledger.fail(database, take(database), "no")
    else:
        ledger.cancel(database, OWNER, job.id)
    age(database)
    assert expiry.expire_jobs(database, DAY) == 1


def test_what_is_not_finished_never_expires(database: Database) -> None:
    queued, running = add_job(database, rows=8), add_job(database, rows=8)
    claims = [take(database) for _ in range(2)]
    age(database, 1_000 * DAY)
    assert expiry.expire_jobs(database, 0.0) == 0
    assert purge_all(database) == []
    assert (expiry.forget_jobs(database, 0.0), expiry.forget_files(database, 0.0)) == (0, 0)
    for claim in claims:
        assert ledger.commit(database, claim, outcome_of(claim))
    work_off(database)
    assert {lookup.get_job(database, OWNER, job.id).state for job in (queued, running)} == {
        "succeeded"
    }
    assert_sound(database)


def test_a_job_that_is_retried_at_that_moment_expires_or_goes_on(database: Database) -> None:
    version = add_version(database)
    for _ in range(5):
        job = add_job(database, rows=4, version=version)
        ledger.cancel(database, OWNER, job.id)
        age(database)

        def retry(job_id: str = job.id) -> bool:
            try:
                return ledger.retry(database, OWNER, job_id).state == "queued"
            except Gone:
                return False

        retried, _ = at_once([retry, lambda: expiry.expire_jobs(database, DAY)])
        with database.read() as connection:
            deleted_at = connection.scalars(
                select(JobRow.deleted_at).where(JobRow.id == job.id)
            ).one()
        assert retried == (deleted_at is None)
        assert work_off(database) == 2 * retried


def test_a_batch_is_no_larger_than_it_may_be(database: Database) -> None:
    version = add_version(database)
    for _ in range(5):
        ledger.cancel(database, OWNER, add_job(database, version=version).id)
    age(database)
    assert [expiry.expire_jobs(database, DAY, limit=2) for _ in range(4)] == [2, 2, 1, 0]
    purge_all(database)
    age(database)
    assert [expiry.forget_jobs(database, DAY, limit=3) for _ in range(3)] == [3, 2, 0]


def test_two_that_sweep_at_once_do_each_thing_once(database: Database) -> None:
    job_ids = [done_job(database) for _ in range(2)]
    age(database)
    assert sum(at_once([lambda: expiry.expire_jobs(database, DAY)] * 3)) == 2
    assert (
        sum(sum(batches) for batches in at_once([lambda: purge_all(database, limit=2)] * 3)) == 12
    )
    assert all(set(stored(database, job_id).values()) == {0} for job_id in job_ids)


def test_jobs_that_nobody_sees_go_and_leave_their_file(database: Database) -> None:
    file = files.add_file(database, OWNER, "a.csv", "csv")
    ledger.submit_file(database, OWNER, file.id, bytes=1)
    work_off(database)
    age(database)
    assert expiry.expire_jobs(database, DAY) == 0, "not by the age of results"
    assert expiry.expire_jobs(database, DAY, kinds=INTERNAL_KINDS) == 1
    purge_all(database)
    age(database)
    assert expiry.forget_jobs(database, DAY) == 1
    assert files.get_file(database, OWNER, file.id).state == "ready"


def test_files_that_came_to_nothing_are_forgotten_when_no_job_names_them(
    database: Database,
) -> None:
    ready, rejected, deleted, used = (
        add_file(database, state) for state in ("ready", "rejected", "ready", "ready")
    )
    job = add_job(database, file_id=used)
    ledger.cancel(database, OWNER, job.id)
    files.delete_file(database, OWNER, deleted)
    files.delete_file(database, OWNER, used)
    assert expiry.forget_files(database, DAY) == 0
    age(database)
    assert expiry.forget_files(database, DAY) == 2
    known = {
        file_id for file_id in (ready, rejected, deleted, used) if files_has(database, file_id)
    }
    assert known == {ready, used}
    ledger.delete(database, OWNER, job.id)
    age(database)
    assert expiry.forget_jobs(database, DAY) == 1
    assert expiry.forget_files(database, DAY) == 1


def files_has(db: Database, file_id: str) -> bool:
    with db.read() as connection:
        return (
            connection.scalars(
                select(func.count()).select_from(FileRow).where(FileRow.id == file_id)
            ).one()
            == 1
        )


def test_a_forgotten_jobs_key_can_be_used_again(database: Database) -> None:
    key: dict[str, Any] = {"idempotency_key": "k", "request_digest": "d"}
    first = add_job(database, **key)
    ledger.cancel(database, OWNER, first.id)
    ledger.delete(database, OWNER, first.id)
    with pytest.raises(Gone):
        add_job(database, **key)
    age(database)
    assert expiry.forget_jobs(database, DAY) == 1
    assert add_job(database, **key).id != first.id


def test_only_what_was_rejected_or_deleted_is_known_to_be_of_no_use(database: Database) -> None:
    states = {
        state: add_file(database, state) for state in ("receiving", "reading", "ready", "rejected")
    }
    deleted = add_file(database)
    files.delete_file(database, OWNER, deleted)
    assert expiry.dead_files(database, [*states.values(), deleted, "unknown"]) == {
        states["rejected"],
        deleted,
    }
    ready, removed = add_version(database), add_version(database, model="other")
    rejected = catalog.add_version(database, OWNER, "third", {}, "d", state="rejected")
    catalog.delete_model(database, OWNER, "other")
    assert expiry.dead_versions(database, [ready.id, removed.id, rejected.id, "unknown"]) == {
        removed.id,
        rejected.id,
    }


def test_the_sweep_looks_at_what_is_old_alone(database: Database) -> None:
    """By an index, whatever else there is."""
    if database.dialect == "postgresql":
        pytest.skip("the planner of PostgreSQL reads a table of few rows whole")
    looks = {
        "job_finished_idx": select(JobRow.id)
        .where(JobRow.finished_at < now(), JobRow.deleted_at.is_(None))
        .order_by(JobRow.finished_at),
        "job_deleted_idx": select(JobRow.id)
        .where(JobRow.deleted_at < now())
        .order_by(JobRow.deleted_at),
    }
    with database.read() as connection:
        for index, statement in looks.items():
            sql = str(statement.compile(connection.engine, compile_kwargs={"literal_binds": True}))
            plan = [
                row.detail
                for row in connection.execute(text(f"EXPLAIN QUERY PLAN {sql}".replace(":", r"\:")))
            ]
            assert any(index in step for step in plan), plan
        assert connection.scalars(select(func.count()).select_from(ChunkRow)).one() == 0

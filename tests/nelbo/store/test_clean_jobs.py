"""Clean jobs in the queue: one chunk, for workers that can clean, one at a time for an owner."""

from sqlalchemy import select

from nelbo.jobs import CleanRequest
from nelbo.store import ledger, lookup, queue, workers
from nelbo.store.session import Database, now
from nelbo.store.sweep import CRASHES_TO_FAIL, sweep
from nelbo.views import Job
from tests.deadline import until
from tests.nelbo.store.kit import OWNER, add_job, assert_sound, chunks, take

ROWS = 10


def add_clean_job(db: Database, owner: str = OWNER) -> Job:
    inline = [{"a": "1"}] * ROWS
    job, _ = ledger.submit(
        db, owner, CleanRequest(), version_id=None, rows=ROWS, chunk_rows=ROWS, inline=inline
    )
    return job


def test_a_clean_job_has_no_model_and_one_chunk_of_all_rows(database: Database) -> None:
    job = add_clean_job(database)
    assert job.model is None
    assert lookup.list_jobs(database, OWNER, kind="clean").jobs == [job]
    claim = take(database)
    assert (claim.kind, claim.version_id, claim.rows) == ("clean", None, ROWS)
    assert claim.params == {"alpha": 0.05, "quick": False, "seed": 0}


def test_a_worker_that_cannot_clean_gets_other_jobs_alone(database: Database) -> None:
    clean = add_clean_job(database)
    other = add_job(database, chunk_rows=ROWS)
    hints = [job_id for job_id, _ in queue.due_for_hint(database, 10, can_clean=False)]
    assert hints == [other.id]
    claim = ledger.claim(database, "plain", lease_s=60, can_clean=False)
    assert claim is not None
    assert claim.job_id == other.id
    assert ledger.claim(database, "plain", lease_s=60, can_clean=False) is None
    assert take(database).job_id == clean.id


def test_an_owner_has_one_clean_job_running_at_a_time(database: Database) -> None:
    first, second = (add_clean_job(database) for _ in range(2))
    other = add_clean_job(database, owner="ann")
    claims = [take(database), take(database)]
    assert {claim.job_id for claim in claims} == {first.id, other.id}
    assert ledger.claim(database, "worker", lease_s=60) is None
    assert ledger.fail(database, next(each for each in claims if each.owner == OWNER), "over")
    assert take(database).job_id == second.id


def test_a_chunk_that_kills_its_workers_is_not_halved_but_fails_the_job(
    database: Database,
) -> None:
    job = add_clean_job(database)
    for _ in range(CRASHES_TO_FAIL):
        claim = until(
            lambda: ledger.claim(database, "worker", lease_s=-1.0), "the chunk to be due again"
        )
        assert claim is not None
        assert claim.rows == ROWS
        sweep(database)
    ended = lookup.get_job(database, OWNER, job.id)
    assert ended.state == "failed"
    assert "died 5 times" in (ended.problem or "")
    assert len(chunks(database, job.id)) == 1
    assert_sound(database)


def test_a_failed_clean_job_can_be_retried(database: Database) -> None:
    job = add_clean_job(database)
    assert ledger.fail(database, take(database), "too few rows")
    assert ledger.retry(database, OWNER, job.id).state == "queued"
    assert take(database).job_id == job.id


def now_of(db: Database) -> float:
    with db.read() as connection:
        return connection.scalars(select(now())).one()


def waiting_s(db: Database) -> float:
    with db.read() as connection:
        return queue.backlog(connection, OWNER).oldest_s


def test_a_clean_job_that_waits_long_does_not_close_the_service(database: Database) -> None:
    clean = add_clean_job(database)
    until(lambda: lookup.get_job(database, OWNER, clean.id).created_at < now_of(database), "time")
    assert waiting_s(database) == 0
    add_job(database)
    until(lambda: waiting_s(database) > 0, "the other job to wait")


def test_a_service_can_clean_while_a_worker_with_the_extra_is_seen(database: Database) -> None:
    assert not workers.can_clean(database)
    workers.heartbeat(database, "plain", host="a", pid=1, can_clean=False)
    assert not workers.can_clean(database)
    workers.heartbeat(database, "cleaner", host="b", pid=2, can_clean=True)
    assert workers.can_clean(database)
    assert not workers.can_clean(database, within_s=-1.0)

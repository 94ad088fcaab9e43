"""What waits: how much of it, and what nobody was told of."""

from dataclasses import replace

import pytest
from sqlalchemy import update

from nelbo.errors import NelboError, Overloaded, OverQuota, TooLarge
from nelbo.jobs import AugmentRequest
from nelbo.store import ledger, queue
from nelbo.store.session import Database, now
from nelbo.store.tables import JobRow
from tests.nelbo.store.kit import (
    OWNER,
    add_file,
    add_job,
    add_version,
    at_once,
    outcome_of,
    take,
    work_off,
)

ENDLESS = queue.QueueLimits(rows_of_owner=10**9, rows=10**9, jobs_of_owner=10**9, wait_s=10**9)


def backlog(database: Database, owner: str = OWNER) -> queue.Backlog:
    with database.read() as connection:
        return queue.backlog(connection, owner)


def test_the_backlog_counts_what_has_not_ended(database: Database) -> None:
    assert backlog(database) == queue.Backlog(
        rows=0, rows_of_owner=0, jobs_of_owner=0, oldest_s=0.0
    )
    add_job(database, rows=10)
    add_job(database, rows=5, owner="other")
    augment = add_job(
        database,
        rows=2,
        request=AugmentRequest(model="adult", per_row=50),
        file_id=add_file(database),
    )
    claim = take(database)
    assert ledger.commit(database, claim, outcome_of(claim))
    found = backlog(database)
    assert (found.rows, found.rows_of_owner, found.jobs_of_owner) == (111, 106, 2)
    ledger.cancel(database, OWNER, augment.id)
    work_off(database)
    found = backlog(database)
    assert (found.rows, found.rows_of_owner, found.jobs_of_owner) == (0, 0, 0)


def test_a_job_waits_until_somebody_begins_with_it_and_again_after_a_retry(
    database: Database,
) -> None:
    job = add_job(database, rows=10)
    with database.write() as connection:
        connection.execute(update(JobRow).values(created_at=now() - 100))
    assert 100 <= backlog(database).oldest_s < 105
    claim = take(database)
    assert backlog(database).oldest_s == 0, "however long it takes"
    assert ledger.fail(database, claim, "no")
    ledger.retry(database, OWNER, job.id)
    assert backlog(database).oldest_s < 5


@pytest.mark.parametrize(
    ("limits", "error", "setting"),
    [
        ({"rows_of_owner": 19}, OverQuota, "max_queued_rows"),
        ({"rows_of_owner": 9}, TooLarge, "max_queued_rows"),
        ({"jobs_of_owner": 1}, OverQuota, "max_unfinished_jobs"),
        ({"rows": 34}, Overloaded, "max_queued_rows_in_all"),
        ({"wait_s": 99}, Overloaded, "max_queue_s"),
    ],
)
def test_a_job_above_a_limit_is_refused_and_leaves_nothing(
    database: Database, limits: dict[str, int], error: type[NelboError], setting: str
) -> None:
    version = add_version(database)
    cancelled = add_job(database, rows=10, version=version)
    ledger.cancel(database, OWNER, cancelled.id)
    add_job(database, rows=10, version=version)
    add_job(database, rows=15, owner="other")
    with database.write() as connection:
        connection.execute(update(JobRow).values(created_at=now() - 100))
    before = backlog(database)
    with pytest.raises(error, match=setting) as refusal:
        add_job(
            database,
            rows=10,
            version=version,
            limits=replace(ENDLESS, **limits),
            idempotency_key="k",
        )
    assert (refusal.value.retry_after is None) == (error is TooLarge), (
        "to wait helps against all but one"
    )
    with pytest.raises(error, match=setting):
        ledger.retry(database, OWNER, cancelled.id, limits=replace(ENDLESS, **limits))
    assert replace(backlog(database), oldest_s=before.oldest_s) == before
    add_job(database, rows=10, version=version, limits=ENDLESS, idempotency_key="k")


def test_a_job_at_every_limit_is_accepted(database: Database) -> None:
    version = add_version(database)
    add_job(database, rows=10, version=version)
    limits = queue.QueueLimits(rows_of_owner=20, rows=20, jobs_of_owner=2, wait_s=60)
    add_job(database, rows=10, version=version, limits=limits)
    with pytest.raises(OverQuota):
        add_job(database, rows=1, version=version, limits=limits)
    work_off(database)
    add_job(database, rows=1, version=version, limits=limits)


def test_many_submissions_at_once_do_not_get_past_the_owners_quota(database: Database) -> None:
    version, limits = add_version(database), replace(ENDLESS, rows_of_owner=50)

    def submit() -> bool:
        try:
            add_job(database, rows=10, version=version, limits=limits)
        except OverQuota:
            return False
        return True

    assert sum(at_once([submit] * 12)) == 5
    assert backlog(database).rows_of_owner == 50


def test_a_key_gives_its_job_even_when_the_quota_is_used_up(database: Database) -> None:
    version, limits = add_version(database), replace(ENDLESS, rows_of_owner=10)

    def submit() -> str:
        return add_job(
            database,
            rows=10,
            version=version,
            limits=limits,
            idempotency_key="k",
            request_digest="d",
        ).id

    assert len(set(at_once([submit] * 6))) == 1


def test_what_no_hint_told_of_is_due_and_then_for_a_while_not(database: Database) -> None:
    first, second = add_job(database, rows=12), add_job(database, rows=4)
    assert queue.due_for_hint(database, 4) == [(first.id, 2), (second.id, 1)]
    assert queue.due_for_hint(database, 1) == [(first.id, 1)]
    queue.mark_hinted(database, [first.id, "unknown"])
    assert queue.due_for_hint(database, 4) == [(second.id, 1)]
    assert dict(queue.due_for_hint(database, 4, again_s=-1)) == {first.id: 2, second.id: 1}


def test_a_retried_job_is_due_for_a_hint_at_once(database: Database) -> None:
    job = add_job(database, rows=4)
    queue.mark_hinted(database, [job.id])
    ledger.cancel(database, OWNER, job.id)
    ledger.retry(database, OWNER, job.id)
    assert queue.due_for_hint(database, 4) == [(job.id, 1)]

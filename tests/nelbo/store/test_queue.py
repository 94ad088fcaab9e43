"""What waits: how much of it, and what nobody was told of."""

from sqlalchemy import update

from nelbo.store import ledger, queue
from nelbo.store.session import Database, now
from nelbo.store.tables import Job
from tests.nelbo.store.kit import OWNER, add_job, outcome_of, take


def test_the_backlog_counts_rows_that_wait(database: Database) -> None:
    assert queue.backlog(database, OWNER) == queue.Backlog(rows=0, rows_of_owner=0, oldest_s=0.0)
    add_job(database, rows=10)
    add_job(database, rows=5, owner="other")
    claim = take(database)
    assert ledger.commit(database, claim, outcome_of(claim))
    with database.write() as connection:
        connection.execute(update(Job).values(created_at=now() - 100))
    backlog = queue.backlog(database, OWNER)
    assert (backlog.rows, backlog.rows_of_owner) == (11, 6)
    assert 100 <= backlog.oldest_s < 105


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

"""What is seen of jobs: lists by page, state and kind, and the time that is left."""

from sqlalchemy import update

from nelbo.jobs import GenerateRequest
from nelbo.store import ledger, lookup
from nelbo.store.session import Database, now
from nelbo.store.tables import JobRow
from tests.nelbo.store.kit import OWNER, add_job, add_version, outcome_of, take


def test_jobs_are_listed_newest_first_page_by_page(database: Database) -> None:
    version = add_version(database)
    ids = [add_job(database, version=version).id for _ in range(5)]
    seen, cursor = [], None
    while True:
        page = lookup.list_jobs(database, OWNER, limit=2, cursor=cursor)
        seen += [job.id for job in page.jobs]
        if (cursor := page.cursor) is None:
            break
    assert seen == ids[::-1]


def test_jobs_are_listed_by_state_and_kind(database: Database) -> None:
    scored, made = (
        add_job(database),
        add_job(database, request=GenerateRequest(model="adult", n=1), rows=1),
    )
    ledger.cancel(database, OWNER, scored.id)
    assert [job.id for job in lookup.list_jobs(database, OWNER, state="cancelled").jobs] == [
        scored.id
    ]
    assert [job.id for job in lookup.list_jobs(database, OWNER, kind="generate").jobs] == [made.id]
    assert lookup.list_jobs(database, OWNER, state="queued", kind="score").jobs == []


def test_the_time_left_follows_from_the_pace_so_far(database: Database) -> None:
    job = add_job(database, rows=100, chunk_rows=20)
    assert lookup.get_job(database, OWNER, job.id).progress.eta_s is None
    claim = take(database)
    assert ledger.commit(database, claim, outcome_of(claim))
    with database.write() as connection:
        connection.execute(update(JobRow).values(started_at=now() - 10))
    left = lookup.get_job(database, OWNER, job.id).progress.eta_s
    assert left is not None
    assert 40 <= left < 45

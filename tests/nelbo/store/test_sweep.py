"""Leases that ran out: a chunk comes back, is halved, and ends as one row's error."""

import pytest

from nelbo.store import files, ledger, lookup, queue, results
from nelbo.store.session import Database
from nelbo.store.sweep import CRASHES_TO_FAIL, CRASHES_TO_FAIL_FINISH, Swept, sweep
from tests.nelbo.store.kit import (
    OWNER,
    add_job,
    assert_sound,
    chunks,
    end_pause,
    expire,
    outcome_of,
    stored_rows,
    take,
    work,
)


@pytest.fixture(autouse=True)
def _no_pause_after_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "BACKOFF_S", 0.0)


def test_an_expired_lease_comes_back_and_the_next_attempt_is_the_second(database: Database) -> None:
    job = add_job(database, rows=4)
    take(database, "dead", lease_s=-1)
    assert sweep(database) == Swept(requeued=1)
    assert sweep(database) == Swept()
    claim = take(database)
    assert (claim.attempt, claim.row_from, claim.row_to) == (2, 0, 4)
    assert "dead" in (chunks(database, job.id)[0].problem or "")
    assert_sound(database)


def test_a_chunk_comes_back_after_a_pause(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "BACKOFF_S", 1_000.0)
    monkeypatch.setattr(ledger, "LONGEST_BACKOFF_S", 1_000.0)
    add_job(database, rows=4)
    crashed = take(database, lease_s=-1)
    sweep(database)
    assert ledger.claim(database, "worker", lease_s=60) is None
    end_pause(database, crashed)
    assert take(database).chunk_id == crashed.chunk_id


@pytest.mark.parametrize("poison", [0, 5, 12])
def test_the_row_that_kills_its_worker_is_found_and_all_others_are_stored(
    database: Database, poison: int
) -> None:
    job = add_job(database, rows=13, chunk_rows=13)
    crashes = 0
    while claim := ledger.claim(database, "worker", lease_s=60):
        if claim.stage == "work" and claim.row_from <= poison < claim.row_to:
            expire(database, claim)
            sweep(database)
            crashes += 1
            assert_sound(database)
        else:
            assert ledger.commit(database, claim, work(database, claim))
    done = lookup.get_job(database, OWNER, job.id)
    assert (done.state, done.progress.rows_done, done.progress.rows_failed) == ("succeeded", 13, 1)
    errors = results.errors(database, job.id)
    assert [(error.row, error.code) for error in errors] == [(poison, "worker-died")]
    assert "died 2 times" in errors[0].message
    assert stored_rows(database, job.id) == [row for row in range(13) if row != poison]
    assert crashes <= 2 + 4 + 2, "two to begin with, one a halving, two on the row itself"
    assert_sound(database)


def test_the_dead_worker_of_a_row_given_up_cannot_commit_it(database: Database) -> None:
    add_job(database, rows=1)
    for _ in range(2):
        stale = take(database, lease_s=-1)
        sweep(database)
    assert not ledger.commit(database, stale, outcome_of(stale))
    assert_sound(database)


def test_transient_errors_neither_halve_a_chunk_nor_give_up_a_row(database: Database) -> None:
    job = add_job(database, rows=2)
    for _ in range(6):
        assert ledger.release(database, take(database), problem="storage does not answer")
    assert [(chunk.row_from, chunk.row_to) for chunk in chunks(database, job.id)] == [(0, 2)]
    take(database, lease_s=-1)
    assert sweep(database) == Swept(requeued=1)


def test_a_dead_workers_chunk_comes_back_before_its_lease_is_over(database: Database) -> None:
    add_job(database, rows=8)
    stale, living = take(database, "dead", lease_s=600), take(database, "living", lease_s=600)
    assert sweep(database) == Swept()
    assert queue.holders(database) == {"dead", "living"}
    assert sweep(database, dead={"dead", "long gone"}) == Swept(requeued=1)
    assert queue.holders(database) == {"living"}
    assert not ledger.commit(database, stale, outcome_of(stale))
    assert ledger.commit(database, living, outcome_of(living))
    assert take(database).attempt == 2
    assert_sound(database)


def test_a_chunk_that_another_worker_took_over_is_not_the_dead_ones(database: Database) -> None:
    add_job(database, rows=4)
    take(database, "dead", lease_s=-1)
    sweep(database)
    again = take(database, "living", lease_s=600)
    assert sweep(database, dead={"dead"}) == Swept()
    assert ledger.commit(database, again, outcome_of(again))


def test_a_lease_that_nobody_could_renew_is_no_crash(database: Database) -> None:
    job = add_job(database, rows=4)
    for _ in range(10):
        take(database, "cut off", lease_s=-1)
        assert sweep(database, blind=True) == Swept(requeued=1)
    assert [
        (chunk.row_from, chunk.row_to, chunk.crashes) for chunk in chunks(database, job.id)
    ] == [(0, 4, 0)]
    take(database, "dead", lease_s=-1)
    assert sweep(database, blind=True, dead={"dead"}) == Swept(requeued=1)
    assert chunks(database, job.id)[0].crashes == 1
    assert_sound(database)


def test_a_finish_outlives_every_outage_of_its_database(database: Database) -> None:
    job = add_job(database, rows=4)
    claim = take(database)
    assert ledger.commit(database, claim, outcome_of(claim))
    for _ in range(2 * CRASHES_TO_FAIL_FINISH):
        take(database, "cut off", lease_s=-1)
        assert sweep(database, blind=True) == Swept(requeued=1)
    last = take(database)
    assert ledger.commit(database, last, work(database, last))
    assert lookup.get_job(database, OWNER, job.id).state == "succeeded"
    assert_sound(database)


def test_a_finish_that_keeps_killing_its_worker_fails_the_job_in_the_end(
    database: Database,
) -> None:
    job = add_job(database, rows=4)
    claim = take(database)
    ledger.commit(database, claim, outcome_of(claim))
    for _ in range(CRASHES_TO_FAIL_FINISH - 1):
        take(database, lease_s=-1)
        assert sweep(database) == Swept(requeued=1)
    take(database, lease_s=-1)
    assert sweep(database) == Swept(jobs_failed=1)
    failed = lookup.get_job(database, OWNER, job.id)
    assert failed.state == "failed"
    assert "died 20 times" in (failed.problem or "")
    assert_sound(database)


def test_a_file_whose_reader_keeps_dying_is_rejected(database: Database) -> None:
    file = files.add_file(database, OWNER, "adult.csv", "csv")
    ledger.submit_file(database, OWNER, file.id, bytes=1)
    for _ in range(CRASHES_TO_FAIL):
        take(database, lease_s=-1)
        sweep(database)
    rejected = files.get_file(database, OWNER, file.id)
    assert rejected.state == "rejected"
    assert "died 5 times" in (rejected.reason or "")

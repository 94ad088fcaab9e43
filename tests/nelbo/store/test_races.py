"""Threads on both databases, all at the same moment: nothing is claimed, committed, queued or
accepted twice."""

from functools import partial
from typing import Any

import pytest

from nelbo.errors import Conflict, Gone, IdempotencyMismatch
from nelbo.store import catalog, files, ledger, lookup, results
from nelbo.store.claims import Claim
from nelbo.store.session import Database
from nelbo.store.sweep import sweep
from tests.nelbo.store.kit import (
    OWNER,
    SCORE,
    add_file,
    add_job,
    add_version,
    assert_sound,
    at_once,
    chunks,
    expire,
    outcome_of,
    take,
    work,
    work_off,
)


@pytest.fixture(autouse=True)
def _no_pause_after_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "BACKOFF_S", 0.0)


def test_many_claims_at_once_take_each_chunk_once(database: Database) -> None:
    jobs = [add_job(database, rows=30, chunk_rows=1) for _ in range(2)]

    def claim_all() -> list[Claim]:
        return list(iter(partial(ledger.claim, database, "worker", lease_s=60), None))

    claims = [claim for found in at_once([claim_all] * 8) for claim in found]
    assert len(claims) == len({claim.chunk_id for claim in claims}) == 60
    assert {claim.attempt for claim in claims} == {1}
    assert {claim.job_id for claim in claims} == {job.id for job in jobs}
    assert_sound(database)


def test_many_workers_finish_a_job_once(database: Database) -> None:
    job = add_job(database, rows=60, chunk_rows=3)

    def work_all() -> int:
        done = 0
        while lookup.get_job(database, OWNER, job.id).state != "succeeded":
            if claim := ledger.claim(database, "worker", lease_s=60):
                assert ledger.commit(database, claim, work(database, claim))
                done += 1
        return done

    assert sum(at_once([work_all] * 4)) == 21
    assert_sound(database)


def test_two_last_chunks_that_commit_at_once_queue_one_finish_chunk(database: Database) -> None:
    for _ in range(8):
        job = add_job(database, rows=2, chunk_rows=1)
        claims = [take(database), take(database)]
        assert at_once(
            [partial(ledger.commit, database, claim, outcome_of(claim)) for claim in claims]
        ) == [True, True]
        assert [chunk.stage for chunk in chunks(database, job.id)] == ["work", "work", "finish"]
        assert work_off(database) == 1
        assert lookup.get_job(database, OWNER, job.id).state == "succeeded"
    assert_sound(database)


def test_one_claim_committed_from_two_places_at_once_counts_once(database: Database) -> None:
    for _ in range(5):
        add_job(database, rows=2)
        claim = take(database)
        assert (
            at_once([partial(ledger.commit, database, claim, outcome_of(claim))] * 3) == [True] * 3
        )
        work_off(database)
    assert_sound(database)


def test_a_commit_and_the_sweeps_that_halve_its_chunk_leave_each_row_once(
    database: Database,
) -> None:
    committed = 0
    for _ in range(12):
        job = add_job(database, rows=8, chunk_rows=8)
        expire(database, take(database))
        sweep(database)
        claim = take(database)
        expire(database, claim)
        stored, *swept = at_once(
            [
                partial(ledger.commit, database, claim, outcome_of(claim)),
                partial(sweep, database),
                partial(sweep, database),
            ]
        )
        assert stored + sum(found.split for found in swept) == 1
        committed += stored
        assert_sound(database)
        work_off(database)
        assert lookup.get_job(database, OWNER, job.id).state == "succeeded"
    assert_sound(database)


def test_a_renewal_and_a_sweep_at_once_leave_the_chunk_with_one_of_them(database: Database) -> None:
    for _ in range(10):
        add_job(database, rows=2)
        claim = take(database)
        expire(database, claim)
        renewed, swept = at_once(
            [partial(ledger.renew, database, claim, 60), partial(sweep, database)]
        )
        # Renewed just before the sweep looked, it is not swept; swept first, it cannot be renewed.
        assert renewed + swept.requeued == 1
        assert ledger.commit(database, claim, outcome_of(claim)) == renewed
        work_off(database)
    assert_sound(database)


def test_a_cancel_and_a_commit_at_once_leave_the_chunk_stored_or_cancelled(
    database: Database,
) -> None:
    for _ in range(10):
        job = add_job(database, rows=4, chunk_rows=2)
        claim = take(database)
        stored, cancelled = at_once(
            [
                partial(ledger.commit, database, claim, outcome_of(claim)),
                partial(ledger.cancel, database, OWNER, job.id),
            ]
        )
        assert cancelled.state == "cancelled"
        done = lookup.get_job(database, OWNER, job.id)
        assert done.progress.rows_done == (2 if stored else 0)
        assert_sound(database)


def test_of_a_cancel_and_the_finish_at_once_one_wins(database: Database) -> None:
    for _ in range(10):
        job = add_job(database, rows=1)
        claim = take(database)
        ledger.commit(database, claim, outcome_of(claim))
        finish = take(database)
        outcome = results.finish(database, finish)

        def cancel(job_id: str = job.id) -> bool:
            try:
                return ledger.cancel(database, OWNER, job_id).state == "cancelled"
            except Conflict:
                return False

        stored, cancelled = at_once([partial(ledger.commit, database, finish, outcome), cancel])
        assert stored != cancelled
        assert lookup.get_job(database, OWNER, job.id).state == (
            "cancelled" if cancelled else "succeeded"
        )
        assert_sound(database)


def test_claims_fails_cancels_and_sweeps_at_once_never_lock_each_other_out(
    database: Database,
) -> None:
    for _ in range(5):
        job = add_job(database, rows=20, chunk_rows=1)
        claims = [take(database) for _ in range(4)]
        expire(database, claims[0])
        at_once(
            [
                partial(ledger.fail, database, claims[1], "no"),
                partial(sweep, database),
                partial(ledger.commit, database, claims[2], outcome_of(claims[2])),
                partial(ledger.release, database, claims[3], problem="no"),
                *[partial(ledger.claim, database, "worker", lease_s=60)] * 3,
            ]
        )
        assert lookup.get_job(database, OWNER, job.id).state == "failed"
        assert_sound(database)


def test_twenty_submissions_at_once_under_one_key_make_one_job(database: Database) -> None:
    version = add_version(database)
    submit = partial(
        ledger.submit,
        database,
        OWNER,
        SCORE,
        version_id=version.id,
        rows=10,
        chunk_rows=4,
        idempotency_key="k",
    )
    answers = at_once([partial(submit, request_digest="d")] * 20)
    assert len({job.id for job, _ in answers}) == 1
    assert sorted(created for _, created in answers) == [False] * 19 + [True]
    assert len(lookup.list_jobs(database, OWNER).jobs) == 1
    assert_sound(database)


def test_two_requests_at_once_under_one_key_make_one_job(database: Database) -> None:
    version = add_version(database)

    def submit(digest: str) -> str:
        try:
            more: Any = {"idempotency_key": "k", "request_digest": digest}
            return ledger.submit(
                database, OWNER, SCORE, version_id=version.id, rows=1, chunk_rows=1, **more
            )[0].id
        except IdempotencyMismatch:
            return "refused"

    answers = at_once([partial(submit, digest) for digest in "aabb"])
    assert answers.count("refused") == 2
    assert len(lookup.list_jobs(database, OWNER).jobs) == 1


def test_versions_registered_at_once_get_one_number_each(database: Database) -> None:
    register = partial(catalog.add_version, database, OWNER, "adult", {"order": []}, "digest")
    versions = at_once([register] * 6)
    assert sorted(version.number for version in versions) == [1, 2, 3, 4, 5, 6]
    assert catalog.resolve(database, OWNER, "adult").number == 6


def test_a_file_deleted_while_a_job_is_submitted_is_deleted_or_used(database: Database) -> None:
    version = add_version(database)
    for _ in range(5):
        file_id = add_file(database)

        def used(file_id: str = file_id) -> bool:
            try:
                add_job(database, version=version, file_id=file_id)
            except Gone:
                return False
            return True

        def deleted(file_id: str = file_id) -> bool:
            try:
                files.delete_file(database, OWNER, file_id)
            except Conflict:
                return False
            return True

        assert sum(at_once([used, deleted])) == 1

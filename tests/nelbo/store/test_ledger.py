"""The life of jobs and chunks: accept, claim, renew, give back, commit, fail, cancel, retry."""

import math
import sqlite3
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from nelbo.errors import Conflict, Gone, IdempotencyMismatch, NotFound, NotReady, Unavailable
from nelbo.ids import new_id
from nelbo.jobs import AugmentRequest, GenerateRequest, ReconstructRequest, ScoreRequest
from nelbo.rows import RowError, Scores
from nelbo.store import catalog, files, ledger, lookup, queue, results
from nelbo.store.claims import FinishOutcome, TableOutcome
from nelbo.store.session import Database, connect, now
from nelbo.store.sweep import Swept, sweep
from nelbo.store.tables import ChunkRow
from tests.nelbo.store.kit import (
    COLUMNS,
    OWNER,
    SCORE,
    add_file,
    add_job,
    add_version,
    assert_sound,
    chunks,
    outcome_of,
    stored_rows,
    take,
    work_off,
)
from tests.nelbo.store.lost_answer import lost_answers

LEASE = ledger.NextLease("worker", lease_s=60)


@pytest.fixture(autouse=True)
def _no_pause_after_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "BACKOFF_S", 0.0)


def test_a_job_is_accepted_with_all_its_chunks(database: Database) -> None:
    version = add_version(database)
    request = ScoreRequest(model="adult@champion", alpha=0.05)
    job, created = ledger.submit(
        database, OWNER, request, version_id=version.id, rows=10, chunk_rows=4
    )
    assert created
    assert (job.kind, job.state, job.model) == ("score", "queued", "adult@1")
    assert job.params == {"alpha": 0.05, "fdr": None, "explain": False}
    assert (job.progress.rows, job.progress.rows_done, job.progress.eta_s) == (10, 0, None)
    assert [(chunk.row_from, chunk.row_to, chunk.state) for chunk in chunks(database, job.id)] == [
        (0, 4, "queued"),
        (4, 8, "queued"),
        (8, 10, "queued"),
    ]
    assert lookup.get_job(database, OWNER, job.id) == job
    assert_sound(database)


@pytest.mark.parametrize(
    "request_",
    [
        SCORE,
        AugmentRequest(model="adult", per_row=3, seed=1),
        ReconstructRequest(model="adult", seed=1),
    ],
)
def test_a_claim_carries_what_the_work_needs(database: Database, request_: Any) -> None:
    file_id = add_file(database)
    version = add_version(database)
    add_job(database, request=request_, version=version, file_id=file_id)
    claim = take(database)
    assert (claim.kind, claim.stage, claim.owner) == (request_.kind, "work", OWNER)
    assert (claim.row_from, claim.row_to, claim.rows, claim.attempt, claim.fence) == (0, 4, 4, 1, 1)
    assert (claim.version_id, claim.file_id, claim.inline) == (version.id, file_id, None)
    assert claim.params == request_.model_dump(exclude={"kind", "model", "file", "rows"})


def test_rows_inline_come_with_the_claim(database: Database) -> None:
    rows = [{"length": "1.5", "colour": None}, {"length": "x\u00e4", "colour": "red"}]
    add_job(database, rows=2, inline=rows)
    assert take(database).inline == rows


def test_a_job_runs_from_claim_to_success(database: Database) -> None:
    job = add_job(database)
    assert work_off(database) == 4, "three chunks and the one that finishes"
    done = lookup.get_job(database, OWNER, job.id)
    assert (done.state, done.progress.rows_done, done.progress.rows_failed) == ("succeeded", 10, 0)
    assert done.started_at is not None
    assert done.finished_at is not None
    assert done.created_at <= done.started_at <= done.finished_at
    assert done.threshold == 0.01
    assert done.summary is not None
    assert done.summary["rows_scored"] == 10
    assert_sound(database)


def test_rows_with_errors_do_not_fail_the_job(database: Database) -> None:
    job = add_job(database)
    claim = take(database)
    assert ledger.commit(database, claim, outcome_of(claim, failed=[1, 3]))
    work_off(database)
    done = lookup.get_job(database, OWNER, job.id)
    assert (done.state, done.progress.rows_done, done.progress.rows_failed) == ("succeeded", 10, 2)
    assert [error.row for error in results.errors(database, job.id)] == [1, 3]
    assert stored_rows(database, job.id) == [0, 2, 4, 5, 6, 7, 8, 9]
    assert_sound(database)


def test_a_chunk_of_which_every_row_is_an_error_is_done(database: Database) -> None:
    job = add_job(database, rows=3, request=ScoreRequest(model="adult", explain=True))
    claim = take(database)
    assert ledger.commit(database, claim, outcome_of(claim, failed=[0, 1, 2]))
    work_off(database)
    done = lookup.get_job(database, OWNER, job.id)
    assert (done.state, done.progress.rows_failed) == ("succeeded", 3)
    assert list(results.scores(database, job.id, explain=True)) == []
    assert_sound(database)


@pytest.mark.parametrize(
    "request_",
    [
        GenerateRequest(model="adult", n=10),
        AugmentRequest(model="adult", per_row=2),
        ReconstructRequest(model="adult"),
    ],
)
def test_jobs_that_make_rows_run_from_claim_to_success(database: Database, request_: Any) -> None:
    job = add_job(database, request=request_)
    work_off(database)
    done = lookup.get_job(database, OWNER, job.id)
    assert (done.state, done.progress.rows_done, done.threshold) == ("succeeded", 10, None)
    copies = 2 if request_.kind == "augment" else 1
    assert done.summary == {"rows": 10, "rows_failed": 0, "rows_made": 10 * copies}
    assert_sound(database)


# Claim


def test_with_nothing_to_do_there_is_no_claim(database: Database) -> None:
    assert ledger.claim(database, "worker", lease_s=60) is None


def test_a_chunk_that_was_put_off_is_not_claimed_before_its_time(database: Database) -> None:
    add_job(database, rows=1)
    assert ledger.release(database, take(database), delay_s=600, problem="storage does not answer")
    assert ledger.claim(database, "worker", lease_s=60) is None
    assert queue.due_for_hint(database, 10) == []


# Renew and give back


def test_a_renewed_lease_holds_longer(database: Database) -> None:
    add_job(database, rows=1)
    claim = take(database, lease_s=1)
    assert ledger.renew(database, claim, 600)
    with database.read() as connection:
        left = connection.scalars(select(ChunkRow.lease_until - now())).one()
    assert left is not None
    assert 590 < left <= 600
    assert sweep(database) == Swept()


def test_a_lease_that_ran_out_can_be_renewed_while_nobody_took_the_chunk(
    database: Database,
) -> None:
    add_job(database, rows=1)
    claim = take(database, lease_s=-1)
    assert ledger.renew(database, claim, 60)
    assert ledger.commit(database, claim, outcome_of(claim))


def test_a_chunk_that_is_handed_back_unharmed_costs_no_attempt(database: Database) -> None:
    add_job(database, rows=1)
    assert ledger.release(database, take(database))
    again = take(database)
    assert (again.attempt, again.failures, again.fence) == (1, 0, 2)


def test_a_transient_error_counts_as_attempt_and_as_failure(database: Database) -> None:
    job = add_job(database, rows=1)
    assert ledger.release(database, take(database), problem="storage does not answer")
    again = take(database)
    assert (again.attempt, again.failures, again.fence) == (2, 1, 2)
    assert chunks(database, job.id)[0].crashes == 0
    assert_sound(database)


def test_pauses_double_and_end_somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "BACKOFF_S", 0.5)
    drawn = np.array([[ledger.backoff_s(times) for times in (1, 2, 3, 50)] for _ in range(100)])
    assert (drawn.max(axis=0) <= [0.5, 1, 2, 30]).all()
    assert (drawn.min(axis=0) >= [0.25, 0.5, 1, 15]).all()
    assert len(np.unique(drawn[:, 0])) > 50


# Fence


def test_whoever_lost_the_chunk_can_write_nothing_of_it(database: Database) -> None:
    job = add_job(database, rows=4)
    stale = take(database, "frozen", lease_s=-1)
    sweep(database)
    fresh = take(database, "fresh")
    assert (fresh.chunk_id, fresh.fence, fresh.attempt) == (stale.chunk_id, stale.fence + 1, 2)
    assert not ledger.commit(database, stale, outcome_of(stale, failed=[0]))
    assert not ledger.renew(database, stale, 60)
    assert not ledger.release(database, stale)
    assert not ledger.fail(database, stale, "no")
    assert stored_rows(database, job.id) == []
    assert results.errors(database, job.id) == []
    assert lookup.get_job(database, OWNER, job.id).progress.rows_done == 0
    assert ledger.commit(database, fresh, outcome_of(fresh))
    assert not ledger.commit(database, stale, outcome_of(stale))
    assert_sound(database)


def test_a_chunk_taken_back_but_not_claimed_again_refuses_its_former_holder(
    database: Database,
) -> None:
    add_job(database, rows=4)
    stale = take(database, lease_s=-1)
    sweep(database)
    assert not ledger.commit(database, stale, outcome_of(stale))
    assert not ledger.renew(database, stale, 60)
    assert_sound(database)


# Commit


def test_a_commit_can_be_repeated_and_counts_once(database: Database) -> None:
    job = add_job(database, rows=4)
    claim = take(database)
    assert not ledger.was_committed(database, claim)
    assert [ledger.commit(database, claim, outcome_of(claim)) for _ in range(3)] == [True] * 3
    assert ledger.was_committed(database, claim)
    assert lookup.get_job(database, OWNER, job.id).progress.rows_done == 4
    assert len([chunk for chunk in chunks(database, job.id) if chunk.stage == "finish"]) == 1
    assert_sound(database)


def test_a_finish_can_be_repeated(database: Database) -> None:
    job = add_job(database, rows=4)
    claim = take(database)
    ledger.commit(database, claim, outcome_of(claim))
    finish = take(database)
    assert finish.stage == "finish"
    outcome = results.finish(database, finish)
    assert [ledger.commit(database, finish, outcome) for _ in range(2)] == [True] * 2
    assert lookup.get_job(database, OWNER, job.id).state == "succeeded"


def test_a_commit_whose_answer_was_lost_is_a_success(database_url: str) -> None:
    with lost_answers(database_url) as database:
        job = add_job(database.whole, rows=4)
        claim = take(database.whole)
        assert ledger.commit(database.losing, claim, outcome_of(claim))
        assert database.lost == 1
        assert lookup.get_job(database.whole, OWNER, job.id).progress.rows_done == 4
        assert_sound(database.whole)


def test_who_commits_the_last_chunk_has_the_finish_before_other_jobs_have_their_turn(
    database: Database,
) -> None:
    job = add_job(database, rows=8, chunk_rows=4)
    first, last = take(database), take(database)
    other = add_job(database, rows=4)
    assert ledger.commit_and_go_on(database, first, outcome_of(first), LEASE).finish is None
    finish = ledger.commit_and_go_on(database, last, outcome_of(last), LEASE).finish
    assert finish is not None
    assert (finish.job_id, finish.stage, finish.attempt) == (job.id, "finish", 1)
    assert take(database).job_id == other.id
    assert ledger.commit(database, finish, results.finish(database, finish))
    assert lookup.get_job(database, OWNER, job.id).state == "succeeded"
    assert_sound(database)


def test_the_finish_of_a_worker_that_died_is_another_ones(database: Database) -> None:
    job = add_job(database, rows=4)
    claim = take(database)
    gone = ledger.NextLease("dead", lease_s=-1)
    assert ledger.commit_and_go_on(database, claim, outcome_of(claim), gone).finish is not None
    assert sweep(database) == Swept(requeued=1)
    finish = take(database)
    assert (finish.job_id, finish.stage, finish.attempt) == (job.id, "finish", 2)
    assert_sound(database)


def test_a_finish_that_was_claimed_with_a_commit_whose_answer_was_lost_is_not_lost(
    database_url: str,
) -> None:
    with lost_answers(database_url) as database:
        job = add_job(database.whole, rows=4)
        claim = take(database.whole)
        committed = ledger.commit_and_go_on(database.losing, claim, outcome_of(claim), LEASE)
        assert database.lost == 1
        assert committed.finish is not None
        assert (committed.finish.job_id, committed.finish.stage) == (job.id, "finish")
        assert_sound(database.whole)


def test_a_commit_that_never_arrived_is_unavailable_and_can_be_tried_again(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = connect(sqlite_url)
    add_job(database, rows=4)
    claim = take(database)

    def full(connection: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(database._engine.dialect, "do_commit", full)
        with pytest.raises(Unavailable, match="database or disk is full"):
            ledger.commit(database, claim, outcome_of(claim))
    assert not ledger.was_committed(database, claim)
    assert ledger.commit(database, claim, outcome_of(claim))
    assert_sound(database)
    database.dispose()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("which", ["nelbo", "surprise", "p_value", "kl", "terms", "surprises"])
def test_scores_that_are_no_numbers_are_refused(sqlite_url: str, bad: float, which: str) -> None:
    database = connect(sqlite_url)
    job = add_job(database, rows=4)
    claim = take(database)
    outcome = outcome_of(claim)
    assert isinstance(outcome, Scores)
    getattr(outcome, which).flat[2] = bad
    with pytest.raises(ValueError, match="NaN or inf"):
        ledger.commit(database, claim, outcome)
    assert stored_rows(database, job.id) == []
    database.dispose()


def test_an_outcome_that_is_not_of_the_claim_is_refused(database: Database) -> None:
    add_job(database, rows=8)
    claim, other = take(database), take(database)
    with pytest.raises(ValueError, match="once each"):
        ledger.commit(database, claim, outcome_of(other))
    with pytest.raises(ValueError, match="cannot end with a FinishOutcome"):
        ledger.commit(database, claim, FinishOutcome(summary={}))
    doubled = RowError(row=claim.row_from, column=None, code="c", message="m")
    whole = outcome_of(claim)
    assert isinstance(whole, Scores)
    with pytest.raises(ValueError, match="once each"):
        ledger.commit(database, claim, replace(whole, errors=[doubled]))
    with pytest.raises(ValueError, match="row order"):
        ledger.commit(database, claim, replace(whole, rows=whole.rows[::-1]))
    for short in (
        replace(whole, nelbo=whole.nelbo[1:]),
        replace(whole, surprise=whole.surprise[1:]),
        replace(whole, surprises=whole.surprises[:, 1:]),
    ):
        with pytest.raises(ValueError, match="do not fit"):
            ledger.commit(database, claim, short)
    assert_sound(database)


def test_a_table_that_misses_rows_is_refused(database: Database) -> None:
    add_job(database, rows=4, request=AugmentRequest(model="adult", per_row=2))
    claim = take(database)
    short = outcome_of(claim, failed=[1])
    assert isinstance(short, TableOutcome)
    with pytest.raises(ValueError, match="do not add up"):
        ledger.commit(database, claim, replace(short, errors=[]))
    with pytest.raises(ValueError, match="one per row"):
        ledger.commit(database, claim, replace(short, errors=[*short.errors, *short.errors]))
    assert ledger.commit(database, claim, short)


def test_text_that_a_database_cannot_hold_is_cleaned(database: Database) -> None:
    job = add_job(database, rows=2)
    claim = take(database)
    whole = outcome_of(claim, failed=[1])
    assert isinstance(whole, Scores)
    error = RowError.model_construct(
        row=1, column="a\x00", code="not-a-number", message="holds '\x00\ud800'"
    )
    assert ledger.commit(database, claim, replace(whole, errors=[error]))
    assert [(found.column, found.message) for found in results.errors(database, job.id)] == [
        ("a\ufffd", "holds '\ufffd?'")
    ]


# Fail, cancel, retry, delete


def test_a_permanent_error_fails_the_job_and_stops_the_rest(database: Database) -> None:
    job = add_job(database, rows=12)
    done, bad, other = take(database), take(database), take(database)
    assert ledger.commit(database, done, outcome_of(done))
    assert ledger.fail(database, bad, "the artifact is gone")
    assert not ledger.commit(database, other, outcome_of(other))
    assert not ledger.renew(database, other, 60)
    failed = lookup.get_job(database, OWNER, job.id)
    assert (failed.state, failed.problem, failed.progress.rows_done) == (
        "failed",
        "the artifact is gone",
        4,
    )
    assert [chunk.state for chunk in chunks(database, job.id)] == ["done", "failed", "cancelled"]
    assert ledger.claim(database, "worker", lease_s=60) is None
    assert_sound(database)


def test_a_cancelled_job_stops_at_once(database: Database) -> None:
    job = add_job(database, rows=12)
    done, held = take(database), take(database)
    assert ledger.commit(database, done, outcome_of(done))
    cancelled = ledger.cancel(database, OWNER, job.id)
    assert (cancelled.state, cancelled.cancel_requested) == ("cancelled", True)
    assert cancelled.finished_at is not None
    assert not ledger.renew(database, held, 60)
    assert not ledger.commit(database, held, outcome_of(held))
    assert not ledger.release(database, held)
    assert ledger.claim(database, "worker", lease_s=60) is None
    assert sweep(database) == Swept()
    assert lookup.get_job(database, OWNER, job.id) == cancelled
    assert_sound(database)


@pytest.mark.parametrize("end", ["cancel", "fail"])
def test_a_retry_continues_with_what_is_missing(database: Database, end: str) -> None:
    job = add_job(database, rows=12)
    done, held = take(database), take(database)
    assert ledger.commit(database, done, outcome_of(done, failed=[2]))
    if end == "cancel":
        ledger.cancel(database, OWNER, job.id)
    else:
        ledger.fail(database, held, "no")
    again = ledger.retry(database, OWNER, job.id)
    assert (again.state, again.problem, again.cancel_requested) == ("queued", None, False)
    assert again.progress.rows_done == 4
    assert not ledger.commit(database, held, outcome_of(held)), (
        "a claim from before the retry is over"
    )
    assert work_off(database) == 3, "two chunks and the one that finishes"
    finished = lookup.get_job(database, OWNER, job.id)
    assert (finished.state, finished.progress.rows_failed) == ("succeeded", 1)
    assert_sound(database)


def test_a_job_that_failed_while_finishing_goes_on_there(database: Database) -> None:
    job = add_job(database, rows=4)
    claim = take(database)
    ledger.commit(database, claim, outcome_of(claim))
    assert ledger.fail(database, take(database), "no memory")
    ledger.retry(database, OWNER, job.id)
    assert work_off(database) == 1
    assert lookup.get_job(database, OWNER, job.id).state == "succeeded"
    assert_sound(database)


def test_a_job_whose_file_was_deleted_cannot_be_retried(database: Database) -> None:
    file_id = add_file(database)
    job = add_job(database, file_id=file_id)
    with pytest.raises(Conflict, match=f"in use by score job {job.id}"):
        files.delete_file(database, OWNER, file_id)
    ledger.cancel(database, OWNER, job.id)
    files.delete_file(database, OWNER, file_id)
    with pytest.raises(Gone, match="was deleted"):
        ledger.retry(database, OWNER, job.id)
    assert lookup.get_job(database, OWNER, job.id).state == "cancelled"
    assert_sound(database)


def test_a_deleted_job_is_gone_with_its_results(database: Database) -> None:
    job = add_job(database, rows=4)
    with pytest.raises(Conflict, match="is queued; cancel it first"):
        ledger.delete(database, OWNER, job.id)
    work_off(database)
    ledger.delete(database, OWNER, job.id)
    with pytest.raises(Gone, match="was deleted"):
        lookup.get_job(database, OWNER, job.id)
    with pytest.raises(Gone, match="was deleted"):
        ledger.delete(database, OWNER, job.id)
    assert stored_rows(database, job.id) == []
    assert chunks(database, job.id) == []
    assert lookup.list_jobs(database, OWNER).jobs == []


def test_a_deleted_job_is_neither_claimed_nor_retried(database: Database) -> None:
    job = add_job(database, rows=4)
    ledger.cancel(database, OWNER, job.id)
    ledger.delete(database, OWNER, job.id)
    with pytest.raises(Gone, match="was deleted"):
        ledger.retry(database, OWNER, job.id)
    assert ledger.claim(database, "worker", lease_s=60) is None


# Internal jobs


def test_a_file_is_read_by_a_job_that_nobody_sees(database: Database) -> None:
    file = files.add_file(database, OWNER, "adult.csv", "csv", {"delimiter": ";"})
    assert file.state == "receiving"
    ledger.submit_file(database, OWNER, file.id, bytes=123)
    assert files.get_file(database, OWNER, file.id).state == "reading"
    assert lookup.list_jobs(database, OWNER).jobs == []
    claim = take(database)
    assert (claim.kind, claim.file_id, claim.stage) == ("read", file.id, "work")
    with pytest.raises(NotFound):
        lookup.get_job(database, OWNER, claim.job_id)
    with pytest.raises(NotFound):
        ledger.cancel(database, OWNER, claim.job_id)
    assert ledger.commit(database, claim, outcome_of(claim))
    ready = files.get_file(database, OWNER, file.id)
    assert (ready.state, ready.rows, ready.bytes, ready.digest, ready.notices) == (
        "ready",
        7,
        123,
        "d",
        ["a notice"],
    )
    assert ledger.claim(database, "worker", lease_s=60) is None, "there is nothing to finish"
    assert_sound(database)


def test_a_file_that_cannot_be_read_is_rejected_with_the_reason(database: Database) -> None:
    file = files.add_file(database, OWNER, "adult.csv", "csv")
    ledger.submit_file(database, OWNER, file.id, bytes=1)
    assert ledger.fail(database, take(database), "the file has no rows")
    rejected = files.get_file(database, OWNER, file.id)
    assert (rejected.state, rejected.reason) == ("rejected", "the file has no rows")
    with pytest.raises(Conflict, match="was rejected: the file has no rows"):
        add_job(database, file_id=file.id)
    assert_sound(database)


def test_a_file_is_received_once(database: Database) -> None:
    file = files.add_file(database, OWNER, "adult.csv", "csv")
    ledger.submit_file(database, OWNER, file.id, bytes=1)
    with pytest.raises(Conflict, match="is not being received"):
        ledger.submit_file(database, OWNER, file.id, bytes=1)


def test_a_pushed_version_is_pending_until_it_was_verified(database: Database) -> None:
    version = ledger.submit_version(database, OWNER, "adult")
    with pytest.raises(NotReady, match="ask again"):
        catalog.resolve(database, OWNER, "adult@1")
    with pytest.raises(Conflict, match="is pending"):
        add_job(database, version=version)
    claim = take(database)
    assert (claim.kind, claim.version_id) == ("verify", version.id)
    assert ledger.commit(database, claim, outcome_of(claim))
    ready = catalog.resolve(database, OWNER, "adult")
    assert (ready.id, ready.digest, catalog.get_manifest(database, ready)) == (
        version.id,
        "digest",
        {"order": list(COLUMNS)},
    )
    assert_sound(database)


def test_what_a_pushed_version_holds_is_not_known_before_it_was_verified(
    database: Database,
) -> None:
    version = ledger.submit_version(database, OWNER, "adult")
    assert (version.view.digest, catalog.get_manifest(database, version)) == (None, {})


def test_a_version_that_an_older_service_registered_with_its_manifest_becomes_ready(
    database: Database,
) -> None:
    with database.write() as connection:
        old = catalog.insert_version(
            connection, OWNER, "adult", {"order": ["old"]}, "digest", "pending", new_id()
        )
        ledger._enqueue(connection, OWNER, "verify", 1, 1, {"version_id": old.id, "params": {}})
    claim = take(database)
    assert ledger.commit(database, claim, outcome_of(claim))
    assert catalog.resolve(database, OWNER, "adult").id == old.id


def test_a_version_that_cannot_be_verified_is_rejected_with_the_reason(database: Database) -> None:
    ledger.submit_version(database, OWNER, "adult")
    assert ledger.fail(database, take(database), "a graph is not what the manifest says")
    with pytest.raises(Conflict, match="a graph is not what the manifest says"):
        catalog.resolve(database, OWNER, "adult@1")
    with pytest.raises(NotFound, match="no ready version"):
        catalog.resolve(database, OWNER, "adult")


# Idempotency keys


def test_a_key_used_again_gives_the_same_job(database: Database) -> None:
    version = add_version(database)
    first = add_job(database, version=version, idempotency_key="k", request_digest="d")
    second, created = ledger.submit(
        database,
        OWNER,
        SCORE,
        version_id=version.id,
        rows=10,
        chunk_rows=4,
        idempotency_key="k",
        request_digest="d",
    )
    assert (second.id, created) == (first.id, False)
    assert len(lookup.list_jobs(database, OWNER).jobs) == 1
    assert lookup.job_by_key(database, OWNER, "k", "d") == first
    assert lookup.job_by_key(database, "other", "k", "d") is None
    assert lookup.job_by_key(database, OWNER, None, "d") is None


def test_a_key_used_for_another_request_is_refused(database: Database) -> None:
    add_job(database, idempotency_key="k", request_digest="d")
    with pytest.raises(IdempotencyMismatch, match="'k' was used for another request"):
        add_job(database, idempotency_key="k", request_digest="e")


def test_owners_have_their_own_keys(database: Database) -> None:
    mine = add_job(database, idempotency_key="k", request_digest="d")
    theirs = add_job(database, idempotency_key="k", request_digest="e", owner="other")
    assert mine.id != theirs.id


# Owners


def test_nobody_sees_or_steers_the_job_of_another(database: Database) -> None:
    job = add_job(database)
    for look in (lookup.get_job, ledger.cancel, ledger.retry, ledger.delete):
        with pytest.raises(NotFound, match=f"no job {job.id}"):
            look(database, "other", job.id)
    assert lookup.list_jobs(database, "other").jobs == []


def test_nobody_can_use_the_version_or_file_of_another(database: Database) -> None:
    version, file_id = add_version(database), add_file(database)
    with pytest.raises(NotFound, match="no version"):
        add_job(database, owner="other", version=version)
    with pytest.raises(NotFound, match="no file"):
        add_job(database, owner="other", file_id=file_id)

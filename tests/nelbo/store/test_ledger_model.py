"""A model of the ledger: submits, claims, commits, crashes, outages, cancels, retries and deletions
in any order keep what must hold, on both databases."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from nelbo.errors import Conflict, Gone, IdempotencyMismatch, OverQuota
from nelbo.jobs import FINAL, JOB_TRANSITIONS
from nelbo.store import expiry, ledger, lookup, queue
from nelbo.store.claims import Claim
from nelbo.store.session import Database, connect
from nelbo.store.sweep import Swept, sweep
from nelbo.store.tables import ChunkRow
from tests.conftest import postgresql_database
from tests.nelbo.store.kit import (
    OWNER,
    add_job,
    add_version,
    assert_sound,
    chunks,
    expire,
    outcome_of,
    work,
    work_off,
)

QUOTA = 25
LIMITS = queue.QueueLimits(rows_of_owner=QUOTA, rows=10**9, jobs_of_owner=10**9, wait_s=10**9)


class Ledger(RuleBasedStateMachine):
    """`held` knows which claim is good and which worker has it, `committed` which claims were
    stored, `keys` which job an idempotency key was promised; the rest is asked of the database."""

    fresh: Callable[[], AbstractContextManager[str]]
    claims = Bundle("claims")
    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.place = type(self).fresh()
        self.database: Database = connect(self.place.__enter__())
        self.held: dict[int, tuple[Claim, str]] = {}
        self.committed: dict[tuple[int, int], str] = {}
        self.keys: dict[str, tuple[str, str]] = {}
        self.deleted: set[str] = set()
        self.workers = 0

    @initialize()
    def register(self) -> None:
        self.version = add_version(self.database)

    @rule(target=jobs, rows=st.integers(1, 9), chunk_rows=st.integers(1, 5))
    def submit(self, rows: int, chunk_rows: int) -> str:
        return add_job(self.database, rows=rows, chunk_rows=chunk_rows, version=self.version).id

    @rule(target=jobs, rows=st.integers(1, 9))
    def submit_within_the_quota(self, rows: int) -> Any:
        waiting = self.waiting()
        try:
            job = add_job(self.database, rows=rows, version=self.version, limits=LIMITS)
        except OverQuota:
            assert waiting + rows > QUOTA
            return multiple()
        assert waiting + rows <= QUOTA
        return job.id

    @rule(target=jobs, key=st.sampled_from("ab"), rows=st.integers(1, 3))
    def submit_under_a_key(self, key: str, rows: int) -> Any:
        known, digest = self.keys.get(key), str(rows)
        given = {"version": self.version, "idempotency_key": key, "request_digest": digest}
        try:
            job = add_job(self.database, rows=rows, **given)  # type: ignore[arg-type]
        except IdempotencyMismatch:
            assert known is not None
            assert known[1] != digest
            return multiple()
        except Gone:
            assert known is not None
            assert known[0] in self.deleted
            return multiple()
        assert known is None or known == (job.id, digest)
        self.keys[key] = (job.id, digest)
        return multiple() if known else job.id

    @rule(target=claims)
    def claim(self) -> Any:
        self.workers += 1
        worker = f"worker {self.workers}"
        claim = ledger.claim(self.database, worker, lease_s=60)
        if claim is None:
            return multiple()
        assert claim.chunk_id not in self.held, "a chunk has one holder"
        self.held[claim.chunk_id] = (claim, worker)
        return claim

    @rule(claim=claims)
    def commit(self, claim: Claim) -> None:
        key = (claim.chunk_id, claim.fence)
        good = self.holds(claim)
        if claim.stage == "finish" and claim.job_id in self.deleted:
            return
        outcome = (
            work(self.database, claim)
            if claim.stage == "finish"
            else outcome_of(claim, failed=[claim.row_from])
        )
        assert ledger.commit(self.database, claim, outcome) == (good or key in self.committed)
        assert ledger.was_committed(self.database, claim) == (good or key in self.committed)
        if good:
            del self.held[claim.chunk_id]
            self.committed[key] = claim.job_id

    @rule(claim=claims)
    def renew(self, claim: Claim) -> None:
        assert ledger.renew(self.database, claim, 60) == self.holds(claim)

    @rule(
        claim=claims, problem=st.none() | st.just("storage does not answer"), failed=st.booleans()
    )
    def release(self, claim: Claim, problem: str | None, failed: bool) -> None:
        assert ledger.release(self.database, claim, problem=problem, failed=failed) == self.holds(
            claim
        )
        self.drop(claim)

    @rule(claim=claims)
    def fail(self, claim: Claim) -> None:
        good = self.holds(claim)
        assert ledger.fail(self.database, claim, "no") == good
        if good:
            self.drop_job(claim.job_id)

    @rule(claim=claims)
    def crash(self, claim: Claim) -> None:
        """The worker is cut off or gone: its lease runs out."""
        if self.holds(claim):
            expire(self.database, claim)
        self.taken_back(claim, sweep(self.database))

    @rule(claim=claims)
    def die(self, claim: Claim) -> None:
        """The worker's process is seen to be gone, long before the end of its lease."""
        worker = self.held[claim.chunk_id][1] if self.holds(claim) else "nobody"
        self.taken_back(claim, sweep(self.database, dead={worker}))

    @rule(claim=claims)
    def outage(self, claim: Claim) -> None:
        """Nobody could renew: that is no crash of anyone."""
        crashes = sum(chunk.crashes for chunk in chunks(self.database, claim.job_id))
        good = self.holds(claim)
        if good:
            expire(self.database, claim)
        assert sweep(self.database, blind=True) == Swept(requeued=int(good))
        assert sum(chunk.crashes for chunk in chunks(self.database, claim.job_id)) == crashes
        self.drop(claim)

    @rule(job_id=jobs)
    def cancel(self, job_id: str) -> None:
        if job_id in self.deleted:
            return
        state = lookup.get_job(self.database, OWNER, job_id).state
        try:
            ledger.cancel(self.database, OWNER, job_id)
        except Conflict:
            assert "cancelled" not in JOB_TRANSITIONS[state]
        else:
            assert "cancelled" in JOB_TRANSITIONS[state]
            self.drop_job(job_id)

    @rule(job_id=jobs, limits=st.none() | st.just(LIMITS))
    def retry(self, job_id: str, limits: queue.QueueLimits | None) -> None:
        if job_id in self.deleted:
            return
        before, waiting = lookup.get_job(self.database, OWNER, job_id), self.waiting()
        left = before.progress.rows - before.progress.rows_done
        try:
            after = ledger.retry(self.database, OWNER, job_id, limits=limits)
        except Conflict:
            assert "queued" not in JOB_TRANSITIONS[before.state]
        except OverQuota:
            assert limits is not None
            assert waiting + left > QUOTA
        else:
            assert "queued" in JOB_TRANSITIONS[before.state]
            assert limits is None or waiting + left <= QUOTA
            assert after.progress.rows_done == before.progress.rows_done

    @rule(job_id=jobs)
    def delete(self, job_id: str) -> None:
        if job_id in self.deleted:
            return
        state = lookup.get_job(self.database, OWNER, job_id).state
        try:
            ledger.delete(self.database, OWNER, job_id)
        except Conflict:
            assert state not in FINAL
        else:
            assert state in FINAL
            self.gone({job_id})

    @rule()
    def sweep_by_age(self) -> None:
        """All that has ended is old; what has not stays, and what was committed elsewhere too."""
        known = lookup.list_jobs(self.database, OWNER, limit=1_000).jobs
        ended = {job.id for job in known if job.state in FINAL}
        assert expiry.expire_jobs(self.database, -1.0) == len(ended)
        while expiry.purge(self.database, -1.0, limit=3):
            pass
        self.gone(ended)

    @invariant()
    def what_must_hold_does(self) -> None:
        assert_sound(self.database)

    def teardown(self) -> None:
        """Let every worker die, then run all jobs to their end: each row is answered once."""
        try:
            for claim, _ in list(self.held.values()):
                assert ledger.release(self.database, claim)
            for job in lookup.list_jobs(self.database, OWNER).jobs:
                if job.state in ("failed", "cancelled"):
                    ledger.retry(self.database, OWNER, job.id)
            work_off(self.database)
            for job in lookup.list_jobs(self.database, OWNER).jobs:
                assert job.state == "succeeded"
                assert job.progress.rows_done == job.progress.rows
            assert_sound(self.database)
        finally:
            self.database.dispose()
            self.place.__exit__(None, None, None)

    def waiting(self) -> int:
        with self.database.read() as connection:
            return queue.backlog(connection, OWNER).rows_of_owner

    def holds(self, claim: Claim) -> bool:
        return claim.chunk_id in self.held and self.held[claim.chunk_id][0] == claim

    def taken_back(self, claim: Claim, swept: Swept) -> None:
        assert swept.requeued + swept.split + swept.rows_failed + swept.jobs_failed == self.holds(
            claim
        )
        self.drop(claim)

    def drop(self, claim: Claim) -> None:
        if self.holds(claim):
            del self.held[claim.chunk_id]

    def drop_job(self, job_id: str) -> None:
        self.held = {
            chunk_id: held for chunk_id, held in self.held.items() if held[0].job_id != job_id
        }

    def gone(self, job_ids: set[str]) -> None:
        self.deleted |= job_ids
        self.committed = {
            key: job_id for key, job_id in self.committed.items() if job_id not in job_ids
        }


BOUNDED = settings(
    max_examples=12,
    stateful_step_count=24,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "BACKOFF_S", 0.0)


@pytest.fixture(params=["sqlite", "postgresql"])
def _each_example_has_a_database_of_its_own(
    request: pytest.FixtureRequest,
    sqlite_template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @contextmanager
    def sqlite() -> Iterator[str]:
        yield f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'nelbo.db')}"
        for path in tmp_path.glob("nelbo.db*"):
            path.unlink()

    def postgresql() -> AbstractContextManager[str]:
        return postgresql_database(request.getfixturevalue("postgresql"), "template")

    monkeypatch.setattr(
        Ledger, "fresh", {"sqlite": sqlite, "postgresql": postgresql}[request.param], raising=False
    )


@pytest.mark.usefixtures("_each_example_has_a_database_of_its_own")
def test_any_order_of_events_keeps_what_must_hold() -> None:
    run_state_machine_as_test(Ledger, settings=BOUNDED)


@pytest.mark.usefixtures("_each_example_has_a_database_of_its_own")
def test_a_ledger_without_its_fence_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: a suite that cannot fail proves nothing."""
    monkeypatch.setattr(
        ledger, "_held", lambda claim: (ChunkRow.id == claim.chunk_id, ChunkRow.state == "running")
    )
    machine = Ledger()
    machine.register()
    machine.submit(rows=4, chunk_rows=4)
    stale: Any = machine.claim()
    machine.crash(claim=stale)
    machine.claim()
    assert len(machine.held) == 1
    assert not machine.holds(stale)
    with pytest.raises(AssertionError):
        machine.commit(claim=stale)
    machine.database.dispose()
    machine.place.__exit__(None, None, None)

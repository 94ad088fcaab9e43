"""A model of the ledger: submits, claims, commits, crashes, cancels and retries in any order keep what must hold."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule, run_state_machine_as_test

from nelbo.errors import Conflict
from nelbo.jobs import FINAL, JOB_TRANSITIONS
from nelbo.store import ledger, views
from nelbo.store.claims import Claim
from nelbo.store.session import Database, connect
from nelbo.store.sweep import sweep
from nelbo.store.tables import Chunk
from tests.nelbo.store.kit import OWNER, add_job, add_version, assert_sound, expire, outcome_of, work, work_off


class Ledger(RuleBasedStateMachine):
    """`held` knows which claim is good; `committed` which ones were stored; the rest is asked of the database."""

    template: Path
    claims = Bundle("claims")
    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=self.template.parent))
        self.database: Database = connect(f"sqlite:///{shutil.copy(self.template, self.folder / 'nelbo.db')}")
        self.held: dict[int, Claim] = {}
        self.committed: set[tuple[int, int]] = set()

    @initialize()
    def register(self) -> None:
        self.version = add_version(self.database)

    @rule(target=jobs, rows=st.integers(1, 9), chunk_rows=st.integers(1, 5))
    def submit(self, rows: int, chunk_rows: int) -> str:
        return add_job(self.database, rows=rows, chunk_rows=chunk_rows, version=self.version).id

    @rule(target=claims)
    def claim(self) -> Any:
        claim = ledger.claim(self.database, "worker", lease_s=60)
        if claim is None:
            return multiple()
        assert claim.chunk_id not in self.held, "a chunk has one holder"
        self.held[claim.chunk_id] = claim
        return claim

    @rule(claim=claims)
    def commit(self, claim: Claim) -> None:
        key = (claim.chunk_id, claim.fence)
        good = self.holds(claim)
        outcome = work(self.database, claim) if claim.stage == "finish" else outcome_of(claim, failed=[claim.row_from])
        assert ledger.commit(self.database, claim, outcome) == (good or key in self.committed)
        assert ledger.was_committed(self.database, claim) == (good or key in self.committed)
        if good:
            del self.held[claim.chunk_id]
            self.committed.add(key)

    @rule(claim=claims)
    def renew(self, claim: Claim) -> None:
        assert ledger.renew(self.database, claim, 60) == self.holds(claim)

    @rule(claim=claims, problem=st.none() | st.just("storage does not answer"))
    def release(self, claim: Claim, problem: str | None) -> None:
        assert ledger.release(self.database, claim, problem=problem) == self.holds(claim)
        self.drop(claim)

    @rule(claim=claims)
    def fail(self, claim: Claim) -> None:
        good = self.holds(claim)
        assert ledger.fail(self.database, claim, "no") == good
        if good:
            self.drop_job(claim.job_id)

    @rule(claim=claims)
    def crash(self, claim: Claim) -> None:
        good = self.holds(claim)
        if good:
            expire(self.database, claim)
        swept = sweep(self.database)
        assert swept.requeued + swept.split + swept.rows_failed + swept.jobs_failed == good
        self.drop(claim)

    @rule(job_id=jobs)
    def cancel(self, job_id: str) -> None:
        state = views.get_job(self.database, OWNER, job_id).state
        try:
            ledger.cancel(self.database, OWNER, job_id)
        except Conflict:
            assert "cancelled" not in JOB_TRANSITIONS[state]
        else:
            assert "cancelled" in JOB_TRANSITIONS[state]
            self.drop_job(job_id)

    @rule(job_id=jobs)
    def retry(self, job_id: str) -> None:
        before = views.get_job(self.database, OWNER, job_id)
        try:
            after = ledger.retry(self.database, OWNER, job_id)
        except Conflict:
            assert "queued" not in JOB_TRANSITIONS[before.state]
        else:
            assert "queued" in JOB_TRANSITIONS[before.state]
            assert after.progress.rows_done == before.progress.rows_done

    @invariant()
    def what_must_hold_does(self) -> None:
        assert_sound(self.database)

    def teardown(self) -> None:
        """Let every worker die, then run all jobs to their end: each row is answered once."""
        for claim in list(self.held.values()):
            assert ledger.release(self.database, claim)
        for job in views.list_jobs(self.database, OWNER).jobs:
            if job.state in ("failed", "cancelled"):
                ledger.retry(self.database, OWNER, job.id)
        work_off(self.database)
        for job in views.list_jobs(self.database, OWNER).jobs:
            assert job.state in FINAL
            assert job.state == "succeeded"
            assert job.progress.rows_done == job.progress.rows
        assert_sound(self.database)
        self.database.dispose()
        shutil.rmtree(self.folder)

    def holds(self, claim: Claim) -> bool:
        return self.held.get(claim.chunk_id) == claim

    def drop(self, claim: Claim) -> None:
        if self.holds(claim):
            del self.held[claim.chunk_id]

    def drop_job(self, job_id: str) -> None:
        self.held = {chunk_id: claim for chunk_id, claim in self.held.items() if claim.job_id != job_id}


BOUNDED = settings(
    max_examples=20,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True)
def _prepared(sqlite_template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "BACKOFF_S", 0.0)
    monkeypatch.setattr(Ledger, "template", sqlite_template, raising=False)


def test_any_order_of_events_keeps_what_must_hold() -> None:
    run_state_machine_as_test(Ledger, settings=BOUNDED)


def test_a_ledger_without_its_fence_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: a suite that cannot fail proves nothing."""
    monkeypatch.setattr(ledger, "_held", lambda claim: (Chunk.id == claim.chunk_id, Chunk.state == "running"))
    machine = Ledger()
    machine.register()
    machine.submit(rows=4, chunk_rows=4)
    stale = machine.claim()
    machine.crash(claim=stale)
    machine.claim()
    assert len(machine.held) == 1
    assert stale not in machine.held.values()
    with pytest.raises(AssertionError):
        machine.commit(claim=stale)
    machine.database.dispose()

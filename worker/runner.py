"""A chunk's way through a worker: claim, given rows, work, one guarded commit."""

import math
import time
from collections.abc import Callable
from functools import partial

from structlog.stdlib import BoundLogger

from nelbo import crash, logs
from nelbo.errors import InvalidArtifact, InvalidInput, NelboError, NotFound, Unavailable
from nelbo.sessions import Check
from nelbo.store import catalog, ledger, results
from nelbo.store.claims import Claim, Outcome
from nelbo.store.sweep import WORKER_DIED
from worker import given, pulse, reading, shutdown, verifying
from worker.confined import ModelDied
from worker.generation import augment, generate, reconstruct
from worker.lease import Lease, LeaseLost, ShuttingDown
from worker.process import Process

PERMANENT = (InvalidInput, NotFound)
"""Errors that no other try would mend."""
EXPECTED = (NelboError, ModelDied, OSError, MemoryError)
"""Errors whose message says enough; of others the log keeps the trace."""
MODEL_DEATHS = 3
"""Times that a model may be stopped or die over one chunk before the job fails."""
MOST_ATTEMPTS = 100
"""Of a chunk whose database or storage keeps going away: most of an hour, with the pauses between
them."""
STUCK_S = 300.0
"""Seconds without a sign of life from the work, after which a process is stuck. A batch of rows
takes far less."""
SLICE_S = 10.0
"""How long one hint keeps a process working, so that Celery can count, replace and stop its
children."""

log = logs.get(__name__)


def work(process: Process, slice_s: float = SLICE_S) -> None:
    """Run chunks, of whichever job it is the turn, until none is due or the slice is over."""
    end = time.monotonic() + slice_s
    while not shutdown.announced():
        asked_at = time.monotonic()
        claim = _claim(process)
        if claim is None:
            return
        crash.point("claimed")
        if not run(process, claim, asked_at):
            # A process that is ill itself, short of memory for one, must not go through the whole
            # queue like this.
            return
        if time.monotonic() >= end:
            process.hint(claim.job_id)
            return


def run(process: Process, claim: Claim, asked_at: float) -> bool:
    """Compute a claimed chunk and commit it, or say in the ledger why not. `asked_at`: the
    monotonic clock at the claim. False after an error that need not be the chunk's."""
    chunk_log = log.bind(
        job_id=claim.job_id,
        kind=claim.kind,
        stage=claim.stage,
        row_from=claim.row_from,
        rows=claim.rows,
    )
    database, settings = process.database, process.settings
    renew = partial(ledger.renew, database, claim, settings.lease_s)
    try:
        with Lease(renew, settings.lease_s, settings.renew_s, asked_at, _stuck_s(claim)) as lease:
            outcome = compute(process, claim, lease.check)
            crash.point("computed" if claim.stage == "work" else "finish")
            stored = ledger.commit(database, claim, outcome)
            crash.point("committed")
        chunk_log.info("chunk done" if stored else "commit refused", attempt=claim.attempt)
    except LeaseLost:
        chunk_log.warning("lease lost", attempt=claim.attempt)
    except ShuttingDown:
        _settle(chunk_log, "chunk handed back", partial(ledger.release, database, claim))
    except Exception as problem:
        if _is_permanent(claim, problem):
            _settle(
                chunk_log, "chunk failed", partial(ledger.fail, database, claim, _words(problem))
            )
        else:
            _try_later(process, claim, problem, chunk_log)
            return False
    return True


def compute(process: Process, claim: Claim, check: Check) -> Outcome:
    """The chunk's outcome. Reads what it needs, writes nothing that another try would not write
    again."""
    if claim.stage == "finish":
        return results.finish(process.database, claim)
    match claim.kind:
        case "read":
            return reading.read(process, claim, check)
        case "verify":
            return verifying.verify(process, claim, check)
    check = _within(check, process.settings.model_chunk_s)
    engine = process.engines.get(catalog.version_of(process.database, _need(claim.version_id)))
    match claim.kind:
        case "score":
            return engine.score(given.rows(process.storage, claim), claim.row_from, check)
        case "generate":
            return generate(engine, claim, check)
        case "augment":
            return augment(engine, given.rows(process.storage, claim), claim, check)
        case "reconstruct":
            return reconstruct(engine, given.rows(process.storage, claim), claim, check)


def _within(check: Check, limit_s: float) -> Check:
    """The check, which also stops a model whose chunk takes too long: each batch may be quick
    enough, and there are many."""
    end = time.monotonic() + limit_s

    def checked() -> None:
        check()
        if time.monotonic() > end:
            raise ModelDied(
                f"the model took more than {limit_s:g} s for one chunk of rows (the setting"
                " model_chunk_s) and was stopped"
            )

    return checked


def _stuck_s(claim: Claim) -> float:
    """A finish is one query over all results of a job, which calls no check however long it
    takes."""
    return math.inf if claim.stage == "finish" else STUCK_S


def _claim(process: Process) -> Claim | None:
    pulse.beat()
    try:
        return ledger.claim(process.database, process.name, lease_s=process.settings.lease_s)
    except Unavailable as problem:
        # The dispatcher hints again when the database is back.
        log.warning("claim not possible", problem=problem.message)
        return None


def _is_permanent(claim: Claim, problem: Exception) -> bool:
    """An artifact that was verified once and cannot be loaded now may lack memory only."""
    return isinstance(problem, PERMANENT) or (
        isinstance(problem, InvalidArtifact) and claim.kind == "verify"
    )


def _try_later(process: Process, claim: Claim, problem: Exception, chunk_log: BoundLogger) -> None:
    """Give the chunk back with back-off, or fail the job where it was tried often enough. The chunk
    is not to blame for a database or storage that was away, which costs it no more than time."""
    failed, words = not isinstance(problem, Unavailable), _words(problem)
    failures = claim.failures + int(failed)
    chunk_log.warning(
        "chunk not done",
        failures=failures,
        problem=words,
        exc_info=not isinstance(problem, EXPECTED),
    )
    most_failures = (
        MODEL_DEATHS if isinstance(problem, ModelDied) else process.settings.max_attempts
    )
    if failures >= most_failures or claim.attempt >= MOST_ATTEMPTS:
        times = failures if failed else claim.attempt
        advice = (
            "train a smaller model" if isinstance(problem, ModelDied) else "retry the job later"
        )
        words = f"chunk at row {claim.row_from} failed {times} times, last: {words}; {advice}"
        _settle(chunk_log, "chunk failed", lambda: ledger.fail(process.database, claim, words))
    else:
        delay_s = ledger.backoff_s(failures if failed else claim.attempt)
        back = partial(
            ledger.release, process.database, claim, delay_s=delay_s, problem=words, failed=failed
        )
        _settle(chunk_log, "chunk put off", back)


def _settle(chunk_log: BoundLogger, event: str, transition: Callable[[], bool]) -> None:
    """Write to the ledger what became of the chunk; where that fails too, its lease runs out and
    the sweep takes it back."""
    try:
        chunk_log.info(event, written=transition())
    except Unavailable as problem:
        chunk_log.warning("ledger not reached", event_not_written=event, problem=problem.message)


def _words(problem: Exception) -> str:
    """For the job's owner: our own message, else the error's name, as its text may hold paths or
    values of rows."""
    if isinstance(problem, NelboError):
        return problem.message
    if isinstance(problem, ModelDied):
        return f"{WORKER_DIED}: {problem}"
    return (
        "the worker ran out of memory"
        if isinstance(problem, MemoryError)
        else type(problem).__name__
    )


def _need(version_id: str | None) -> str:
    if version_id is None:
        raise InvalidInput("the job names no version of a model; submit it again")
    return version_id

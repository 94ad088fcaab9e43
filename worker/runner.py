"""A chunk's path through a worker: claim, source rows, work, one guarded commit."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from structlog.stdlib import BoundLogger

from nelbo import crash, logs
from nelbo.errors import InvalidArtifact, InvalidInput, NelboError, NotFound, Unavailable
from nelbo.sessions import Check
from nelbo.settings import Settings
from nelbo.store import catalog, ledger, results, workers
from nelbo.store.claims import Claim, Outcome
from nelbo.store.sweep import WORKER_DIED
from worker import cleaning, pulse, reading, shutdown, verifying
from worker.confined import ModelDied
from worker.explaining import explain
from worker.generation import augment, generate, odds, reconstruct
from worker.lease import Lease, LeaseLost, ShuttingDown
from worker.process import Process
from worker.source_rows import source_rows

PERMANENT = (InvalidInput, NotFound)
"""Errors that another try would not cure."""
EXPECTED = (NelboError, ModelDied, OSError, MemoryError)
"""Errors whose message is enough; for all others the log keeps the traceback."""
MODEL_DEATHS = 3
"""The job fails after a model was stopped or died this number of times over one chunk."""
EXPLAINED_ROWS = 100
"""Number of explained rows that count as one chunk of rows."""
MOST_ATTEMPTS = 100
"""Attempts at a chunk whose database or storage keeps going away.

With the pauses between them they take most of an hour.
"""
STUCK_S = 300.0
"""Seconds without a sign of life after which a process is stuck; a batch takes far less."""
SLICE_S = 10.0
"""Seconds that one hint keeps a process working.

The limit lets Celery count, replace and stop its children.
"""

log = logs.get(__name__)


def work(process: Process, slice_s: float = SLICE_S) -> None:
    """Run the chunks of the jobs whose turn it is, until none is due or `slice_s` is over."""
    end = time.monotonic() + slice_s
    while not shutdown.announced():
        asked_at = time.monotonic()
        claim = _claim(process)
        if claim is None:
            return
        crash.point("claimed")
        if not run(process, claim, asked_at):
            # The fault may be this process's own, such as a lack of memory. It must not fail the
            # whole queue.
            return
        if time.monotonic() >= end:
            process.hint(claim.job_id)
            return


def run(process: Process, claim: Claim, asked_at: float) -> bool:
    """Compute a claimed chunk and commit it; if that fails, record the reason in the ledger.

    `asked_at` is the monotonic clock at the claim. False means that this process may have caused
    the error, so that the caller must claim no more.
    """
    chunk_log = log.bind(
        job_id=claim.job_id,
        kind=claim.kind,
        stage=claim.stage,
        row_from=claim.row_from,
        rows=claim.rows,
    )
    database = process.database
    settings = process.settings
    renew = partial(ledger.renew, database, claim, settings.lease_s)
    try:
        with Lease(renew, settings.lease_s, settings.renew_s, asked_at, _stuck_s(claim)) as lease:
            outcome = compute(process, claim, lease.check)
            crash.point("computed" if claim.stage == "work" else "finish")
            asked_at = time.monotonic()
            next_lease = ledger.NextLease(process.name, settings.lease_s)
            committed = ledger.commit_and_go_on(database, claim, outcome, next_lease)
            crash.point("committed")
        chunk_log.info(
            "chunk done" if committed.stored else "commit refused", attempt=claim.attempt
        )
    except LeaseLost:
        chunk_log.warning("lease lost", attempt=claim.attempt)
    except ShuttingDown:
        _record(chunk_log, "chunk handed back", partial(ledger.release, database, claim))
    except Exception as problem:
        if _is_permanent(claim, problem):
            fail = partial(ledger.fail, database, claim, _message(problem))
            _record(chunk_log, "chunk failed", fail)
        else:
            _try_later(process, claim, problem, chunk_log)
            return False
    else:
        if committed.finish is not None:
            return run(process, committed.finish, asked_at)
    return True


def compute(process: Process, claim: Claim, check: Check) -> Outcome:
    """The chunk's outcome.

    Any file that this writes has the same content in every attempt.
    """
    if claim.stage == "finish":
        return _finish(process, claim, check)
    match claim.kind:
        case "read":
            return reading.read(process, claim, check)
        case "verify":
            return verifying.verify(process, claim, check)
        case "clean":
            return cleaning.clean_table(process, claim, check)
    check = _with_limit(check, _limit_s(claim, process.settings))
    version = catalog.version_of(process.database, _need(claim.version_id))
    engine = process.engines.get(version)
    match claim.kind:
        case "score":
            return engine.score(source_rows(process.storage, claim), claim.row_from, check)
        case "generate":
            return generate(engine, claim, check)
        case "augment":
            return augment(engine, process, claim, check)
        case "reconstruct":
            return reconstruct(engine, source_rows(process.storage, claim), claim, check)
        case "explain":
            return explain(engine, process.storage, claim, check)


def _finish(process: Process, claim: Claim, check: Check) -> Outcome:
    """The job's totals. With conditions, a model also says how probable they are."""
    outcome = results.finish(process.database, claim)
    if not claim.params.keys() & {"where", "like", "rarity"}:
        return outcome
    check = _with_limit(check, process.settings.model_chunk_s)
    version = catalog.version_of(process.database, _need(claim.version_id))
    summary = outcome.summary | odds(process.engines.get(version), claim, check)
    return replace(outcome, summary=summary)


def _limit_s(claim: Claim, settings: Settings) -> float:
    """Maximum time in seconds for a chunk. One with a whole table has the time of all the chunks
    that another job would divide it into, and as much for each EXPLAINED_ROWS that it explains."""
    if claim.kind != "explain":
        return settings.model_chunk_s
    rows = len(claim.params.get("row_numbers", ())) or claim.params["top"]
    parts = -(-claim.rows // settings.chunk_rows) - (-rows // EXPLAINED_ROWS)
    return settings.model_chunk_s * parts


def _with_limit(check: Check, limit_s: float) -> Check:
    """The check, with a time limit for the chunk: many batches may add up to a long time."""
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
    """Seconds without a check after which this chunk's process is stuck.

    A finish is one query over all results of a job; it calls no check, however long it takes.
    """
    return math.inf if claim.stage == "finish" else STUCK_S


def _claim(process: Process) -> Claim | None:
    pulse.beat()
    try:
        return ledger.claim(
            process.database,
            process.name,
            lease_s=process.settings.lease_s,
            can_clean=workers.CAN_CLEAN,
        )
    except Unavailable as problem:
        # The dispatcher hints again when the database is back.
        log.warning("claim not possible", problem=problem.message)
        return None


def _is_permanent(claim: Claim, problem: Exception) -> bool:
    """Whether another try cannot help.

    An artifact that was verified may fail to load only because memory is short.
    """
    return isinstance(problem, PERMANENT) or (
        isinstance(problem, InvalidArtifact) and claim.kind == "verify"
    )


def _try_later(process: Process, claim: Claim, problem: Exception, chunk_log: BoundLogger) -> None:
    """Give the chunk back with back-off, or fail the job after too many attempts.

    A database or storage that was away is no failure of the chunk; it costs an attempt only.
    """
    failed = not isinstance(problem, Unavailable)
    message = _message(problem)
    failures = claim.failures + int(failed)
    chunk_log.warning(
        "chunk attempt failed",
        failures=failures,
        problem=message,
        exc_info=not isinstance(problem, EXPECTED),
    )

    most_failures = process.settings.max_attempts
    advice = "retry the job later"
    if isinstance(problem, ModelDied):
        most_failures = MODEL_DEATHS
        advice = "train a smaller model"

    times = failures if failed else claim.attempt
    if failures >= most_failures or claim.attempt >= MOST_ATTEMPTS:
        reason = f"chunk at row {claim.row_from} failed {times} times, last: {message}; {advice}"
        _record(chunk_log, "chunk failed", partial(ledger.fail, process.database, claim, reason))
    else:
        release = partial(
            ledger.release,
            process.database,
            claim,
            delay_s=ledger.backoff_s(times),
            problem=message,
            failed=failed,
        )
        _record(chunk_log, "chunk postponed", release)


def _record(chunk_log: BoundLogger, event: str, transition: Callable[[], bool]) -> None:
    """Record in the ledger what happened to the chunk.

    Where the ledger does not answer, the lease runs out and the sweep takes the chunk back.
    """
    try:
        chunk_log.info(event, written=transition())
    except Unavailable as problem:
        chunk_log.warning("ledger not reached", event_not_written=event, problem=problem.message)


def _message(problem: Exception) -> str:
    """The message for the job's owner.

    Other errors are given by name only, as their text may hold paths or values of rows.
    """
    if isinstance(problem, NelboError):
        return problem.message
    if isinstance(problem, ModelDied):
        return f"{WORKER_DIED}: {problem}"
    if isinstance(problem, MemoryError):
        return "the worker ran out of memory"
    return type(problem).__name__


def _need(version_id: str | None) -> str:
    if version_id is None:
        raise InvalidInput("the job names no version of a model; submit it again")
    return version_id

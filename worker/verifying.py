"""Verify a pushed artifact before any job may use it: digests, operators, one trial run in a limited child."""

from nelbo.engine import Check
from nelbo.errors import InvalidArtifact
from nelbo.store import catalog
from nelbo.store.claims import Claim, VerifyOutcome
from worker import cache
from worker.limited import run_limited
from worker.process import Process

TRIAL_S = 120.0


def verify(process: Process, claim: Claim, check: Check) -> VerifyOutcome:
    """Raises InvalidArtifact, which rejects the version."""
    if claim.version_id is None:
        raise InvalidArtifact("the job names no version; push the artifact again")
    version = catalog.version_of(process.database, claim.version_id)
    with cache.temporary(process.settings.home) as temporary:
        # Not a copy of this machine's: that may be of an earlier push with the same manifest.
        folder = process.engines.unpacked(version, temporary)
        try:
            answer = run_limited("worker.trial", [str(folder), str(process.settings.read_memory_mib)], check, TRIAL_S)
        except TimeoutError:
            raise InvalidArtifact(f"one row took the artifact more than {TRIAL_S:.0f} s; train a smaller model") from None
    if answer["problem"]:
        raise InvalidArtifact(answer["problem"])
    return VerifyOutcome()

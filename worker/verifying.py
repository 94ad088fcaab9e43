"""Verifies a pushed artifact before any job may use it.

A limited child process unpacks it, checks it and runs rows through it.
"""

import re

from nelbo.artifact import check_manifest
from nelbo.errors import InvalidArtifact
from nelbo.sessions import Check
from nelbo.storage import artifact_key
from nelbo.store.claims import Claim, VerifyOutcome
from worker import cache
from worker.confined import COPIES
from worker.limited import run_limited
from worker.process import Process

TRIAL_S = 120.0
LONGEST_REASON = 500
_PATH = re.compile(r"(?<![\w.])/[^\s:'\"]+")


def verify(process: Process, claim: Claim, check: Check) -> VerifyOutcome:
    """Raises InvalidArtifact, which rejects the version."""
    if claim.version_id is None:
        raise InvalidArtifact("the job names no version; push the artifact again")
    with cache.temporary(process.settings.home) as temporary:
        packed = temporary / "artifact.zip"
        folder = temporary / "artifact"
        folder.mkdir()
        process.storage.fetch(artifact_key(claim.version_id), packed, check)
        memory_mib = process.settings.read_memory_mib + COPIES * packed.stat().st_size // 2**20
        args = [str(packed), str(folder), str(memory_mib)]
        try:
            answer = run_limited("worker.trial", args, check, TRIAL_S)
        except TimeoutError:
            raise InvalidArtifact(
                f"the trial of the artifact took more than {TRIAL_S:.0f} s; train a smaller model"
            ) from None

    if answer["problem"]:
        raise InvalidArtifact(_without_paths(answer["problem"]))
    # The child ran a stranger's graphs, so its answer is checked like a stranger's manifest.
    manifest = check_manifest(answer["manifest"]).model_dump(mode="json")
    return VerifyOutcome(manifest, str(answer["digest"])[:64], _seconds(answer["row_s"]))


def _seconds(answer: object) -> float | None:
    """A time that the child may have measured."""
    return answer if isinstance(answer, float) and 0 < answer <= TRIAL_S else None


def _without_paths(problem: str) -> str:
    """The reason for a rejection without paths of this machine or of ONNX Runtime's source."""
    return _PATH.sub("…", problem)[:LONGEST_REASON]

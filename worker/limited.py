"""Runs work on strangers' data (a table, an artifact) in a limited child process.

The child confines itself and answers with one line of JSON.
"""

import json
import math
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from nelbo.processes import NOTHING, Lifeline, start_confined
from nelbo.sessions import Check

CHECK_S = 0.2
LONGEST_ANSWER = 64 * 2**20
"""Bytes; a manifest whose letters are all escaped takes about 40 MiB."""


class ChildDied(OSError):
    """The child was killed or crashed before it answered. Another try may succeed."""

    def __init__(self, status: int, last_words: str) -> None:
        super().__init__(f"the limited process ended with status {status}: {last_words[:200]}")
        self.status = status
        self.last_words = last_words


def run_limited(
    module: str,
    args: Sequence[str],
    check: Check,
    limit_s: float = math.inf,
    env: Mapping[str, str] = NOTHING,
) -> dict[str, Any]:
    """The last line that `python -P -m module args` prints, as JSON.

    The child is killed when `check` raises, and after `limit_s` seconds, which raises TimeoutError.

    env: environment variables of the child beside those of `start_confined`.
    """
    lifeline = Lifeline()
    try:
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            child = start_confined(
                lifeline,
                module,
                args,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
            )
            _wait(child, check, time.monotonic() + limit_s)
            output.seek(0)
            errors.seek(0)
            return _answer(
                output.read(LONGEST_ANSWER), errors.read(LONGEST_ANSWER), child.returncode
            )
    finally:
        lifeline.close()


def _wait(child: subprocess.Popen[bytes], check: Check, end: float) -> None:
    try:
        while True:
            try:
                child.wait(CHECK_S)
                return
            except subprocess.TimeoutExpired:
                check()
                if time.monotonic() > end:
                    raise TimeoutError(f"process {child.pid} did not end in time") from None
    finally:
        child.kill()
        child.wait()


def _answer(output: bytes, errors: bytes, status: int) -> dict[str, Any]:
    lines = output.splitlines()
    try:
        answer: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError):
        last = (errors.decode(errors="replace").splitlines() or ["no message"])[-1]
        raise ChildDied(status, last) from None
    return answer

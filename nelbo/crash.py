"""Named points at which a test can kill a process, to prove that nothing is lost there.

For tests only. A process that was started with NELBO_CRASH_AT=<name> and NELBO_CRASH_MARKER=<path>
creates the marker file and kills itself when it reaches `point(<name>)`. A process that finds the
marker goes on.
"""

import os
import signal
from typing import Literal, get_args

Point = Literal[
    "submit",  # in the transaction that accepts a job, before COMMIT
    "submitted",  # a job is accepted, its hint is not sent
    "uploaded",  # a file's bytes are stored, the job that reads it is not
    "pushed",  # an artifact's bytes are stored, its version is not
    "hint",  # the dispatcher has read which chunks need a hint
    "hinted",  # it has sent the hints and not recorded that yet
    "claimed",  # a worker holds a chunk
    "renew",  # it is about to renew the lease
    "computed",  # it has the outcome, no transaction is open
    "commit",  # in the transaction that stores the outcome, before COMMIT
    "committed",  # the outcome is stored
    "finish",  # the worker has the outcome of the whole job, no transaction is open
    "finishing",  # in the transaction that ends the job, before COMMIT
    "sweep",  # in the transaction that takes back a chunk, before COMMIT
    "split",  # in the transaction that halves a chunk, between the two halves
]
POINTS: tuple[Point, ...] = get_args(Point)

_AT = os.environ.get("NELBO_CRASH_AT", "")
_MARKER = os.environ.get("NELBO_CRASH_MARKER", "")


def point(name: Point) -> None:
    """Kill this process if NELBO_CRASH_AT names this point and no process has died there yet."""
    if name == _AT:
        _die()


def _die() -> None:
    try:
        # Only one process can create the file.
        os.close(os.open(_MARKER, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)

"""Places at which a test lets a process die, by name: what must survive a crash anywhere is tried
exactly there.

For tests only. A process that was started with NELBO_CRASH_AT=<name> and NELBO_CRASH_MARKER=<path>
kills itself when it gets to `point(<name>)`, the first time alone: the marker is a file that it
leaves, and whoever finds it goes on.
"""

import os
import signal
from typing import Literal, get_args

Point = Literal[
    "submit",  # in the transaction that accepts a job, before COMMIT
    "submitted",  # a job is accepted, its hint is not sent
    "uploaded",  # a file's bytes are stored, the job that reads it is not
    "pushed",  # an artifact's bytes are stored, its version is not
    "hint",  # a dispatcher found chunks that nobody was told of
    "hinted",  # it told of them and did not note that yet
    "claimed",  # a worker holds a chunk
    "renew",  # it is about to renew the lease
    "computed",  # it knows the outcome, no transaction is open
    "commit",  # in the transaction that stores the outcome, before COMMIT
    "committed",  # the outcome is stored
    "finish",  # the outcome of the whole job is known, no transaction is open
    "finishing",  # in the transaction that ends the job, before COMMIT
    "sweep",  # in the transaction that takes back a chunk, before COMMIT
    "split",  # in the same, between the two halves
]
POINTS: tuple[Point, ...] = get_args(Point)

_AT = os.environ.get("NELBO_CRASH_AT", "")
_MARKER = os.environ.get("NELBO_CRASH_MARKER", "")


def point(name: Point) -> None:
    """Die here, if this is the place and nobody died here before."""
    if name == _AT:
        _die()


def _die() -> None:
    try:
        # Made by one process alone, however many get here.
        os.close(os.open(_MARKER, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)

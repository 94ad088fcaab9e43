"""`python -m tests.system.faults.zombie POINT with|without`: a worker that freezes itself at a
crash point, and then goes on.

It ends after that chunk. Without the fence it commits as if nobody could have taken its chunk
meanwhile: the negative control of the suite.
"""

import os
import signal
import sys
from typing import Any

from nelbo import crash
from nelbo.store import ledger
from nelbo.store.claims import Claim
from nelbo.store.tables import ChunkRow
from worker import shutdown, solo


def freeze(name: crash.Point) -> None:
    """The first time; after this chunk it is over."""
    if name == sys.argv[1]:
        crash.point = lambda name: None
        os.kill(os.getpid(), signal.SIGSTOP)
        shutdown.announce()


def held_by_anyone(claim: Claim) -> tuple[Any, ...]:
    return (ChunkRow.id == claim.chunk_id,)


def main() -> None:
    crash.point = freeze
    # Frozen as it renews its lease, it would keep SQLite's write lock.
    ledger.renew = lambda *_: True
    if sys.argv[2] == "without":
        ledger._held = held_by_anyone
    solo.main()


if __name__ == "__main__":
    main()

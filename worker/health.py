"""`python -P -m worker.health`: exit status 0 while this host's dispatcher gives signs of life in the database.

For a container's health check. `celery inspect ping` would ask the pool instead, which gives no answer while it is busy.
"""

import socket
import sys

from nelbo.errors import NelboError
from nelbo.settings import read_settings
from nelbo.store import workers
from nelbo.store.session import Database, connect

LONGEST_SILENCE_S = 30.0
"""Some rounds of the dispatcher, and one of them with a database that was slow to answer."""


def is_alive(database: Database, host: str) -> bool:
    """Whether a worker on this host was seen a short while ago, by the database's clock."""
    return any(beat.host == host for beat in workers.heartbeats(database, within_s=LONGEST_SILENCE_S))


def main() -> None:
    try:
        database = connect(read_settings().database)
        alive = is_alive(database, socket.gethostname())
    except NelboError as problem:
        sys.exit(problem.message)
    if not alive:
        sys.exit(f"no dispatcher on {socket.gethostname()} was seen in the last {LONGEST_SILENCE_S:.0f} s")


if __name__ == "__main__":
    main()

"""This host's sign of life: a file that is touched while its worker is well, so that a health check
starts no Python.

    test -n "$(find "$NELBO_HOME/health/$HOSTNAME" -mmin -1)"

is true while it was touched within the last minute. Hosts that share a data folder have a file
each.
"""

import socket
import time
from pathlib import Path

from nelbo import logs
from nelbo.home import HEALTH

FORGET_S = 86_400.0
"""Age at which the file of another host is removed: its container is gone."""

log = logs.get(__name__)


def beat(home: Path) -> None:
    """Say that this host's worker is well. A folder that cannot be written to is told of in the log
    and by the file's age."""
    try:
        file_of(home).parent.mkdir(parents=True, exist_ok=True)
        file_of(home).touch()
        _forget_hosts_that_are_gone(home)
    except OSError as problem:
        log.warning("sign of life not given", problem=str(problem))


def file_of(home: Path) -> Path:
    """Of this host."""
    return home / HEALTH / socket.gethostname()


def _forget_hosts_that_are_gone(home: Path) -> None:
    for file in file_of(home).parent.iterdir():
        if time.time() - file.stat().st_mtime > FORGET_S:
            file.unlink(missing_ok=True)

"""This host's health file, which is touched while the host's worker is well.

A health check reads it without starting Python:

    test -n "$(find "$NELBO_HOME/health/$HOSTNAME" -mmin -1)"

is true if the file was touched within the last minute. Hosts that share a data folder have one file
each.
"""

import socket
import time
from pathlib import Path

from nelbo import logs
from nelbo.home import HEALTH

FORGET_S = 86_400.0
"""Age in seconds at which another host's file is removed, as its container is gone."""

log = logs.get(__name__)


def touch(home: Path) -> None:
    """Record that this host's worker is well.

    Where the file cannot be written, the log and the file's age say so.
    """
    try:
        health_file(home).parent.mkdir(parents=True, exist_ok=True)
        health_file(home).touch()
        _forget_other_hosts(home)
    except OSError as problem:
        log.warning("health file not written", problem=str(problem))


def health_file(home: Path) -> Path:
    """The health file of this host."""
    return home / HEALTH / socket.gethostname()


def _forget_other_hosts(home: Path) -> None:
    for file in health_file(home).parent.iterdir():
        if time.time() - file.stat().st_mtime > FORGET_S:
            file.unlink(missing_ok=True)

"""The data folder (NELBO_HOME): the names in it, and the record of a running `nelbo up`."""

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict

DATABASE = "nelbo.db"
STORAGE = "storage"
CACHE = "cache"
HEALTH = "health"
LOGS = "logs"
UP_RECORD = "up.json"
UP_LOCK = "up.lock"


class RunningUp(BaseModel):
    """The address of a running `nelbo up`, its process, and the parts that it started."""

    model_config = ConfigDict(frozen=True)

    url: str
    pid: int
    database: str = ""
    broker: str = ""


def record_up(home: Path, up: RunningUp) -> None:
    """Write the record. A reader sees either all of it or nothing."""
    temporary = (home / UP_RECORD).with_suffix(".tmp")
    temporary.touch(mode=0o600)  # the addresses may hold passwords
    temporary.write_text(up.model_dump_json(indent=2))
    temporary.replace(home / UP_RECORD)


def running_up(home: Path) -> RunningUp | None:
    """The `nelbo up` that runs on this folder, or None."""
    try:
        up = RunningUp.model_validate_json((home / UP_RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return up if is_alive(up.pid) else None


def is_alive(pid: int) -> bool:
    """Whether a process of this or another user is running."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return True

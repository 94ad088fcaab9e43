"""Ids of jobs, files, versions and changes.

They are UUIDs of version 7 (RFC 9562), which start with a time.
"""

import os
import time
import uuid


def new_id() -> str:
    """An id that nobody can guess.

    Ids sort by their time of creation, with a resolution of a quarter of a microsecond.
    """
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    fraction = nanoseconds * 2**12 // 1_000_000
    random = int.from_bytes(os.urandom(8), "big") >> 2
    value = (milliseconds << 80) | (0x7 << 76) | (fraction << 64) | (0b10 << 62) | random
    return str(uuid.UUID(int=value))


def made_at(name: str) -> float | None:
    """The time when an id was created, in seconds since the epoch; None for any other name."""
    try:
        value = uuid.UUID(name)
    except ValueError:
        return None
    return (value.int >> 80) / 1_000 if value.version == 7 else None

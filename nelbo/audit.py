"""The audit as data: which actions it records, and who may have made a change. No I/O."""

from dataclasses import dataclass
from typing import Literal

Action = Literal[
    "version.push",
    "version.ready",
    "version.reject",
    "version.delete",
    "model.delete",
    "alias.set",
    "alias.delete",
    "file.delete",
    "job.delete",
    "key.create",
    "key.import",
    "key.rotate",
    "key.revoke",
    "owner.erase",
]


@dataclass(frozen=True)
class Actor:
    """Who makes a change: an owner, with the id of their key, their address and the request; or a
    program."""

    name: str
    key: str | None = None
    address: str | None = None
    request_id: str | None = None


# A name with a blank is the name of no owner.
COMMAND_LINE = Actor("command line")
"""Whoever runs `nelbo` where the database is."""
ITSELF = Actor("nelbo itself")
"""A worker that verified a version, the API that read the keys file."""

"""The audit as data: the actions that it records, and the author of a change. No I/O."""

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
    """The author of a change: an owner, with their key's id, address and request; or a program."""

    name: str
    key: str | None = None
    address: str | None = None
    request_id: str | None = None


# The names of owners have no blanks, so these two cannot be owners.
COMMAND_LINE = Actor("command line")
"""A user who runs `nelbo` with access to the database."""
ITSELF = Actor("nelbo itself")
"""A worker that verified a version, or the API that read the keys file."""

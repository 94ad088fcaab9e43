"""The audit as data: who made a change, and the change as an administrator sees it. No I/O."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, Field

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


class Change(BaseModel):
    """One change of a model, a version, an alias or a key, or one deletion."""

    id: str
    at: Annotated[float, Field(description="seconds since the epoch, by the database's clock")]
    by: Annotated[
        str,
        Field(
            description="the owner who made the change, or the program: 'command line', 'nelbo"
            " itself'"
        ),
    ]
    key: Annotated[str | None, Field(description="id of the key that was used")]
    address: Annotated[str | None, Field(description="address of the client")]
    request_id: Annotated[str | None, Field(description="X-Request-ID of the request")]
    owner: Annotated[str, Field(description="the owner of what was changed")]
    action: Annotated[str, Field(examples=["model.delete", "alias.set", "key.revoke"])]
    subject: Annotated[str, Field(description="what was changed", examples=["adult@champion"])]
    detail: Annotated[str | None, Field(description="what it was changed to", examples=["adult@3"])]

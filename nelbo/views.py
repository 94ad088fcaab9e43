"""The views of files, models, versions, jobs and changes that users see.

They are JSON over HTTP, and objects in the client and on the command line.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field

from nelbo.artifact import check_manifest
from nelbo.jobs import Kind, State
from nelbo.schema import Column, Schema

FileState = Literal["receiving", "reading", "ready", "rejected"]
VersionState = Literal["pending", "ready", "rejected"]

FILE_STATES: tuple[FileState, ...] = get_args(FileState)
VERSION_STATES: tuple[VersionState, ...] = get_args(VersionState)


class File(BaseModel):
    """An uploaded table.

    `rows`, `digest`, `columns` and `notices` are set when it is ready, `reason` when it is
    rejected.
    """

    id: str
    name: str
    format: str
    state: FileState
    bytes: int | None
    rows: int | None
    digest: str | None
    """The digest of names, types and values (nelbo.files.Digest).

    It does not depend on the file's format.
    """
    columns: list[Column] | None
    notices: list[str]
    reason: str | None
    created_at: float
    """Seconds since the epoch, by the database's clock."""


class Model(BaseModel):
    """A model's name, the numbers of its versions and its aliases.

    The plain name stands for the alias `champion`.
    """

    name: str
    versions: tuple[int, ...]
    """The numbers of its versions, ascending."""
    aliases: dict[str, int]
    created_at: float


class Version(BaseModel):
    """An artifact that is registered under a model's name. Times are seconds since the epoch."""

    model: str
    version: int
    state: VersionState
    reason: str | None = None
    """The reason why a pushed version was rejected."""
    digest: str | None = None
    """The artifact's digest, set when the version is ready."""
    created_at: float


class VersionDetails(Version):
    """A version with its schema and metrics, which are set when it is ready."""

    table_schema: Schema | None = None
    metrics: dict[str, float] = {}
    smallest_p_value: float | None = None
    """At a smaller alpha, no row can be an anomaly."""
    table_digest: str | None = None
    """The digest of the training table, comparable to an uploaded file's."""


def details(version: Version, manifest: Mapping[str, Any]) -> VersionDetails:
    """The version with data from its manifest, which is empty until the version is ready."""
    if not manifest:
        return VersionDetails(**version.model_dump())
    checked = check_manifest(manifest)
    return VersionDetails(
        **version.model_dump(),
        table_schema=checked.table_schema,
        metrics=checked.metrics,
        smallest_p_value=checked.calibration.smallest,
        table_digest=checked.table_digest,
    )


class Progress(BaseModel):
    """The numbers of rows accepted, done and failed; `rows_done` includes failed rows."""

    rows: int
    rows_done: int
    rows_failed: int
    eta_s: Annotated[
        float | None, Field(description="estimated seconds until the end, at the pace so far")
    ] = None


class Job(BaseModel):
    """A job. Times are seconds since the epoch, by the database's clock."""

    id: str
    kind: Kind
    state: State
    model: str | None
    """name@version, fixed when the job was accepted; None for a clean job, which needs none."""
    params: dict[str, Any]
    file: str | None
    progress: Progress
    threshold: float | None
    """Of a finished score job: rows with p-value <= threshold are anomalies."""
    summary: dict[str, Any] | None
    problem: str | None
    cancel_requested: bool
    created_at: float
    started_at: float | None
    finished_at: float | None


class Change(BaseModel):
    """One change of a model, version, alias or key, or one deletion."""

    id: str
    at: Annotated[float, Field(description="seconds since the epoch, by the database's clock")]
    by: Annotated[
        str,
        Field(
            description="the owner who made the change, or a program: 'command line' or"
            " 'nelbo itself'"
        ),
    ]
    key: Annotated[str | None, Field(description="id of the key that was used")]
    address: Annotated[str | None, Field(description="address of the client")]
    request_id: Annotated[str | None, Field(description="X-Request-ID of the request")]
    owner: Annotated[str, Field(description="owner of the changed object")]
    action: Annotated[str, Field(examples=["model.delete", "alias.set", "key.revoke"])]
    subject: Annotated[str, Field(description="the changed object", examples=["adult@champion"])]
    detail: Annotated[str | None, Field(description="its new value", examples=["adult@3"])]

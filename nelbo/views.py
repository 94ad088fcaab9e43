"""What users see of files, models, versions, jobs and changes: as JSON over HTTP, as objects in the
client and on the command line."""

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
    """An uploaded table. `rows`, `digest`, `columns` and `notices` are known when it is ready,
    `reason` when it is rejected."""

    id: str
    name: str
    format: str
    state: FileState
    bytes: int | None
    rows: int | None
    digest: str | None
    """Of names, types and values (nelbo.files.Digest), whatever file they came in."""
    columns: list[Column] | None
    notices: list[str]
    reason: str | None
    created_at: float
    """Seconds since the epoch, by the database's clock."""


class Model(BaseModel):
    """A model's name, the numbers of its versions, and its aliases; `champion` is what the plain
    name means."""

    name: str
    versions: tuple[int, ...]
    """Their numbers, ascending."""
    aliases: dict[str, int]
    created_at: float


class Version(BaseModel):
    """An artifact that is registered under a model's name, as anyone sees it. Times are seconds
    since the epoch."""

    model: str
    version: int
    state: VersionState
    reason: str | None = None
    """Why a pushed version was rejected."""
    digest: str | None = None
    """That of the artifact, known when the version is ready."""
    created_at: float


class VersionDetails(Version):
    """A version with what its manifest says of the table it wants and of its quality, known when
    the version is ready."""

    table_schema: Schema | None = None
    metrics: dict[str, float] = {}
    smallest_p_value: float | None = None
    """No row can be an anomaly at a smaller alpha."""
    table_digest: str | None = None
    """That of the table that was trained on, as an uploaded file has one."""


def details(version: Version, manifest: Mapping[str, Any]) -> VersionDetails:
    """The version with what its manifest says. The manifest is empty until the version is ready."""
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
    """Rows accepted, done and recorded as errors; `rows_done` counts both results and errors."""

    rows: int
    rows_done: int
    rows_failed: int
    eta_s: Annotated[
        float | None, Field(description="seconds that are left at the pace so far")
    ] = None


class Job(BaseModel):
    """What anyone sees of a job. Times are seconds since the epoch, by the database's clock."""

    id: str
    kind: Kind
    state: State
    model: str
    """name@version, as it was pinned when the job was accepted."""
    params: dict[str, Any]
    file: str | None
    progress: Progress
    threshold: float | None
    """Score jobs, when finished: rows with p-value <= threshold are anomalies."""
    summary: dict[str, Any] | None
    problem: str | None
    cancel_requested: bool
    created_at: float
    started_at: float | None
    finished_at: float | None


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

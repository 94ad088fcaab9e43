"""Models: push, list and delete versions, and set aliases."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response, status
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool

from api import admission
from api.deps import By, Owner, Service, ServiceDep
from api.errors import answers
from api.manifests import of_manifest
from api.middleware import allow_body
from api.pages import Limit, Page
from nelbo import crash
from nelbo.artifact import MAX_ARTIFACT_BYTES
from nelbo.audit import Actor
from nelbo.errors import (
    Conflict,
    Gone,
    InvalidArtifact,
    InvalidInput,
    InvalidRequest,
    NotAuthenticated,
    NotFound,
    Overloaded,
    OverQuota,
    TooLarge,
    Unavailable,
)
from nelbo.ids import new_id
from nelbo.jobs import WHOLE
from nelbo.storage import artifact_key, push_key
from nelbo.store import catalog, ledger, usage
from nelbo.views import Model, Version, VersionDetails, details

MAX_PUSH_BYTES = MAX_ARTIFACT_BYTES + 2**20
"""Maximum size of a zip: that of an artifact, and room for the records of the zip."""
router = APIRouter(prefix="/v1/models", tags=["models"])
Name = Annotated[
    str,
    Path(
        min_length=1,
        max_length=100,
        pattern=r"^[0-9A-Za-z][0-9A-Za-z._-]*$",
        description="name of a model",
        examples=["adult"],
    ),
]
After = Annotated[
    str, Query(max_length=100, pattern=r"^[ -~]*$", description="next_cursor of the previous page")
]
Which = Annotated[
    str,
    Path(
        max_length=100, description="number of a version, or an alias", examples=["3", "champion"]
    ),
]
Number = Annotated[int, Path(ge=1, lt=2**31, description="number of a version", examples=[3])]
Alias = Annotated[
    str, Path(max_length=100, pattern=r"^[A-Za-z][0-9A-Za-z._-]*$", examples=["champion"])
]
BODY = {
    "requestBody": {
        "required": True,
        "description": "A zip of the files of an artifact, as `nelbo push` sends it.",
        "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class Target(BaseModel):
    """The version that an alias names."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: Annotated[
        int, Field(ge=1, lt=2**31, description="number of a ready version", examples=[3]), WHOLE
    ]


@router.post(
    "/{name}/versions",
    operation_id="push_version",
    summary="Push an artifact as the next version",
    status_code=status.HTTP_202_ACCEPTED,
    response_description="Stored; a worker verifies it next (state pending)",
    openapi_extra=BODY,
    responses=answers(
        NotAuthenticated,
        TooLarge,
        InvalidArtifact,
        InvalidRequest,
        OverQuota,
        Overloaded,
        Unavailable,
    ),
)
async def push_version(
    name: Name, request: Request, response: Response, service: ServiceDep, owner: Owner, by: By
) -> Version:
    """The version gets a number and is `pending` until a worker has verified the artifact.

    Then it is `ready`, with its digest, schema and metrics, or `rejected`, with the reason.
    """
    limit = min(MAX_PUSH_BYTES, service.settings.max_upload_bytes)
    allow_body(request.scope, limit, "no artifact is larger")
    await run_in_threadpool(admission.need_readers, service, owner)
    await run_in_threadpool(
        admission.need_room, service, owner, request.headers.get("content-length")
    )
    version_id = new_id()
    with service.uploads.begun(owner) as upload:
        room = partial(admission.need_room, service, owner)
        size = await upload.receive(request, service.storage, push_key(version_id), room)
        crash.point("pushed")
        entry = await run_in_threadpool(_register, service, owner, name, version_id, size, by)
        await run_in_threadpool(usage.note_bytes, service.database, version_id, size)
    service.hint(entry.id)  # No job has this id: a worker that gets the hint takes what is next.
    response.headers["Location"] = f"/v1/models/{name}/versions/{entry.number}"
    response.headers["Retry-After"] = "1"
    return entry.view


def _register(
    service: Service, owner: str, name: str, version_id: str, size: int, by: Actor
) -> catalog.VersionEntry:
    key = push_key(version_id)
    if not size:
        service.storage.delete(key)
        raise InvalidArtifact("the body is empty; push the folder of an artifact with `nelbo push`")
    service.storage.move(key, artifact_key(version_id))
    try:
        return ledger.submit_version(service.database, owner, name, version_id=version_id, by=by)
    except NotAuthenticated:  # the key was revoked during the upload
        service.storage.delete(artifact_key(version_id))
        raise


@router.get(
    "",
    operation_id="list_models",
    summary="List models by name",
    responses=answers(NotAuthenticated, InvalidRequest, Unavailable),
)
def list_models(
    service: ServiceDep, owner: Owner, limit: Limit = 50, cursor: After = ""
) -> Page[Model]:
    models = catalog.list_models(service.database, owner, limit=limit + 1, after=cursor)
    return Page.of(models, limit, key=lambda model: model.name)


@router.get(
    "/{name}",
    operation_id="get_model",
    summary="Look at a model",
    responses=answers(NotAuthenticated, NotFound, Gone, InvalidRequest, Unavailable),
)
def get_model(name: Name, service: ServiceDep, owner: Owner) -> Model:
    return catalog.get_model(service.database, owner, name)


@router.get(
    "/{name}/versions",
    operation_id="list_versions",
    summary="List a model's versions, newest first",
    responses=answers(NotAuthenticated, NotFound, Gone, InvalidRequest, Unavailable),
)
def list_versions(name: Name, service: ServiceDep, owner: Owner) -> Page[Version]:
    versions = catalog.list_versions(service.database, owner, name)
    return Page(items=[entry.view for entry in versions], next_cursor=None)


@router.get(
    "/{name}/versions/{version}",
    response_model=VersionDetails,
    operation_id="get_version",
    summary="Look at a version, by number or alias",
    responses=answers(NotAuthenticated, NotFound, Gone, InvalidRequest, Unavailable),
)
def get_version(name: Name, version: Which, service: ServiceDep, owner: Owner) -> Response:
    number = _number(service, owner, name, version)
    entry = catalog.get_version(service.database, owner, name, number)
    headers = {"Retry-After": "1"} if entry.state == "pending" else None
    content = of_manifest(
        service.database, entry, lambda manifest: to_json(details(entry.view, manifest))
    )
    return Response(content, headers=headers, media_type="application/json")


def _number(service: Service, owner: str, name: str, which: str) -> int:
    if which.isascii() and which.isdecimal():
        return int(which[:18])
    model = catalog.get_model(service.database, owner, name)
    if which not in model.aliases:
        raise NotFound(
            f"model {name} has no alias {which!r}; it has: {', '.join(model.aliases) or 'none'}"
        )
    return model.aliases[which]


@router.put(
    "/{name}/aliases/{alias}",
    operation_id="set_alias",
    summary="Point an alias at a version",
    responses=answers(
        NotAuthenticated, NotFound, Conflict, Gone, InvalidRequest, InvalidInput, Unavailable
    ),
)
def set_alias(
    name: Name, alias: Alias, target: Target, service: ServiceDep, owner: Owner, by: By
) -> Model:
    """The name of a model alone means `champion`. Once set, it no longer follows new versions."""
    catalog.set_alias(service.database, owner, name, alias, target.version, by=by)
    return catalog.get_model(service.database, owner, name)


@router.delete(
    "/{name}/aliases/{alias}",
    operation_id="delete_alias",
    summary="Delete an alias",
    status_code=status.HTTP_204_NO_CONTENT,
    response_class=Response,
    responses=answers(NotAuthenticated, NotFound, InvalidRequest, Unavailable),
)
def delete_alias(name: Name, alias: Alias, service: ServiceDep, owner: Owner, by: By) -> None:
    """Without its alias, `champion` follows the newest ready version again."""
    catalog.delete_alias(service.database, owner, name, alias, by=by)


@router.delete(
    "/{name}/versions/{version}",
    operation_id="delete_version",
    summary="Delete a version",
    status_code=status.HTTP_204_NO_CONTENT,
    response_class=Response,
    responses=answers(NotAuthenticated, NotFound, Conflict, Gone, InvalidRequest, Unavailable),
)
def delete_version(name: Name, version: Number, service: ServiceDep, owner: Owner, by: By) -> None:
    version_id = catalog.delete_version(service.database, owner, name, version, by=by)
    service.storage.delete(artifact_key(version_id))


@router.delete(
    "/{name}",
    operation_id="delete_model",
    summary="Delete a model with all its versions",
    status_code=status.HTTP_204_NO_CONTENT,
    response_class=Response,
    responses=answers(NotAuthenticated, NotFound, Conflict, Gone, InvalidRequest, Unavailable),
)
def delete_model(name: Name, service: ServiceDep, owner: Owner, by: By) -> None:
    for version_id in catalog.delete_model(service.database, owner, name, by=by):
        service.storage.delete(artifact_key(version_id))

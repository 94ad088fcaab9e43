"""Files: upload a table, show it, list and delete files."""

import codecs
from functools import partial
from typing import Annotated, Literal

import anyio
from fastapi import APIRouter, Depends, Path, Query, Request, Response, status
from starlette.concurrency import run_in_threadpool

from api import admission
from api.deps import By, Owner, Service, ServiceDep
from api.errors import answers
from api.middleware import allow_body
from api.pages import Cursor, Limit, Page
from api.uploads import Upload
from nelbo import crash, logs
from nelbo.errors import (
    Conflict,
    Gone,
    InvalidInput,
    InvalidRequest,
    NelboError,
    NotAuthenticated,
    NotFound,
    Overloaded,
    OverQuota,
    TooLarge,
    Unavailable,
)
from nelbo.files import CsvOptions, format_of
from nelbo.storage import file_prefix, upload_key
from nelbo.store import files, ledger
from nelbo.views import File

log = logs.get(__name__)
router = APIRouter(prefix="/v1/files", tags=["files"])
FileId = Annotated[
    str, Path(description="id of a file", examples=["0198c6d0-1f0e-7b6e-8d0c-2f6f3f1f7a90"])
]
TYPES = (
    "application/octet-stream",
    "text/csv",
    "text/tab-separated-values",
    "application/vnd.apache.parquet",
    "application/x-ndjson",
    "application/jsonl",
    "application/json",
    "application/gzip",
    "application/zstd",
)
"""Content types of an upload. A web page may send none of them to other sites without asking."""
BODY = {
    "requestBody": {
        "required": True,
        "description": "The content of the file, as `curl -X POST -H 'Content-Type: text/csv' -T"
        " adult.csv` sends it. The suffix of the name is the format. The type must be one of these,"
        " but does not matter otherwise.",
        "content": {type: {"schema": {"type": "string", "format": "binary"}} for type in TYPES},
    }
}


def _csv(
    delimiter: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=1,
            description="delimiter of CSV; a space: any number of spaces",
        ),
    ] = None,
    encoding: Annotated[
        str | None,
        Query(max_length=40, description="encoding of CSV and JSON Lines, such as utf-8"),
    ] = None,
    decimal: Annotated[Literal[".", ","] | None, Query(description="decimal sign of CSV")] = None,
    header: Annotated[
        bool | None,
        Query(description="whether the first line of a CSV file holds the column names"),
    ] = None,
    skip: Annotated[
        int | None,
        Query(ge=0, description="number of lines to skip at the beginning of a CSV file"),
    ] = None,
) -> CsvOptions:
    try:
        codecs.lookup(encoding or "utf-8")
    except (LookupError, ValueError):
        raise InvalidInput(
            f"{encoding!r} is not an encoding; try utf-8, utf-16 or windows-1252"
        ) from None
    return CsvOptions(delimiter, encoding, decimal, header, skip)


Csv = Annotated[CsvOptions, Depends(_csv)]
"""The dialect of a CSV file; what is not set is detected."""


@router.post(
    "",
    operation_id="upload_file",
    summary="Upload a table",
    status_code=status.HTTP_201_CREATED,
    response_description="Stored; a worker reads it next (state reading)",
    openapi_extra=BODY,
    responses=answers(
        NotAuthenticated, TooLarge, InvalidInput, InvalidRequest, OverQuota, Overloaded, Unavailable
    ),
)
async def upload_file(
    request: Request,
    response: Response,
    service: ServiceDep,
    owner: Owner,
    name: Annotated[
        str,
        Query(
            min_length=1,
            max_length=255,
            description="name of the file; its suffix is the format: adult.csv",
        ),
    ],
    csv: Csv,
) -> File:
    """The format is CSV, Parquet or JSON Lines, also compressed (`.csv.gz`, `.jsonl.zst`).

    A job can use the file when its state is `ready`.
    """
    format = _format(name)
    limit = service.settings.max_upload_bytes
    allow_body(request.scope, limit, "this is the setting max_upload_bytes")
    with service.uploads.begun(owner) as upload:
        entry = await _received(request, service, upload, name, format, csv)
    service.hint(entry.id)  # No job has this id: a worker that gets the hint takes what is next.
    response.headers["Location"] = f"/v1/files/{entry.id}"
    return await run_in_threadpool(_file, service, owner, entry.id)


async def _received(
    request: Request, service: Service, upload: Upload, name: str, format: str, csv: CsvOptions
) -> files.FileEntry:
    """Receive a file, store it and submit it to be read."""
    owner = upload.owner
    await run_in_threadpool(admission.need_readers, service, owner)
    await run_in_threadpool(
        admission.need_room, service, owner, request.headers.get("content-length")
    )
    entry = await run_in_threadpool(
        files.add_file, service.database, owner, name, format, csv.given()
    )
    try:
        room = partial(admission.need_room, service, owner)
        size = await upload.receive(request, service.storage, upload_key(entry.id), room)
        if size == 0:
            raise InvalidInput(
                f"{name} is empty; send the file's content as the body of the request"
            )
        crash.point("uploaded")
        await run_in_threadpool(ledger.submit_file, service.database, owner, entry.id, size)
    except BaseException as problem:
        reason = problem.message if isinstance(problem, NelboError) else "the upload broke off"
        with anyio.CancelScope(shield=True):
            await run_in_threadpool(_give_up, service, owner, entry.id, reason)
        raise
    return entry


def _format(name: str) -> str:
    format = format_of(name)
    if format == "arrow":
        # Readers of Arrow trust the buffers of a file, as its documentation warns.
        raise InvalidInput(
            f"{name}: Arrow files are not accepted over HTTP; send Parquet (the commands and the"
            " client convert by themselves)"
        )
    return format


def _give_up(service: Service, owner: str, file_id: str, reason: str) -> None:
    """Delete an upload, and keep only the reason.

    If even that fails, the sweep of old uploads does it later.
    """
    try:
        # False means that the upload was accepted, and only the answer to the commit was lost.
        if files.reject_file(service.database, owner, file_id, reason):
            service.storage.delete(file_prefix(file_id))
    except NelboError as problem:
        log.warning("upload not cleaned up", file_id=file_id, problem=problem.message)


def _file(service: Service, owner: str, file_id: str) -> File:
    return _view(files.get_file(service.database, owner, file_id))


def _view(entry: files.FileEntry) -> File:
    return File.model_validate(entry, from_attributes=True)


@router.get(
    "",
    operation_id="list_files",
    summary="List files, newest first",
    responses=answers(NotAuthenticated, InvalidRequest, Unavailable),
)
def list_files(
    service: ServiceDep, owner: Owner, limit: Limit = 50, cursor: Cursor = None
) -> Page[File]:
    """A page of files with many columns may be shorter than `limit`."""
    entries, more = files.list_files(service.database, owner, limit=limit, before=cursor)
    next_cursor = entries[-1].id if more else None
    return Page(items=[_view(entry) for entry in entries], next_cursor=next_cursor)


@router.get(
    "/{file_id}",
    operation_id="get_file",
    summary="Look at a file",
    responses=answers(NotAuthenticated, NotFound, Gone, Unavailable),
)
def get_file(file_id: FileId, service: ServiceDep, owner: Owner, response: Response) -> File:
    file = _file(service, owner, file_id)
    if file.state in ("receiving", "reading"):
        response.headers["Retry-After"] = "1"
    return file


@router.delete(
    "/{file_id}",
    operation_id="delete_file",
    summary="Delete a file",
    status_code=status.HTTP_204_NO_CONTENT,
    response_class=Response,
    responses=answers(NotAuthenticated, NotFound, Conflict, Gone, Unavailable),
)
def delete_file(file_id: FileId, service: ServiceDep, owner: Owner, by: By) -> None:
    """Results of jobs that used the file are kept."""
    files.delete_file(service.database, owner, file_id, by=by)
    service.storage.delete(file_prefix(file_id))

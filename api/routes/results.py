"""The results of jobs in four formats, the rows with errors, and the least likely rows."""

import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pyarrow as pa
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.deps import Owner, ServiceDep
from api.errors import answers
from api.memory import give_back
from api.negotiation import MEDIA_TYPES, Format, encoded, for_people, preferred_format
from api.pages import Limit, Page
from api.routes.jobs import JobId
from nelbo.errors import (
    Conflict,
    Gone,
    InvalidRequest,
    JobFailed,
    NotAcceptable,
    NotAuthenticated,
    NotFound,
    NotReady,
    Overloaded,
    OverQuota,
    Unavailable,
)
from nelbo.rows import Anomaly, RowError
from nelbo.store import lookup, results
from nelbo.store.session import Database
from nelbo.views import Job

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["results"])
BINARY = {"schema": {"type": "string", "format": "binary"}}
TEXT = {"schema": {"type": "string"}}
CONTENT: dict[str, Any] = {
    MEDIA_TYPES["parquet"]: BINARY,
    MEDIA_TYPES["arrow"]: BINARY,
    MEDIA_TYPES["csv"]: TEXT
    | {
        "example": "row,nelbo,surprise,p_value,anomaly\n"
        "0,12.3,0.9,0.41,false\n1,48.9,6.2,0.002,true\n"
    },
    MEDIA_TYPES["jsonl"]: TEXT
    | {"example": '{"row":0,"nelbo":12.3,"surprise":0.9,"p_value":0.41,"anomaly":false}\n'},
}


class Error(RowError):
    """One row that failed, and why."""

    # The API's description calls a row error by this name.


async def _downloading(service: ServiceDep, owner: Owner) -> AsyncIterator[None]:
    """Hold a place until the last byte is sent or the client has left; then return the memory."""
    with service.downloads.taken(owner):
        yield
    await run_in_threadpool(give_back)


@router.get(
    "/results",
    operation_id="get_results",
    summary="The results of a job, in row order",
    response_class=StreamingResponse,
    dependencies=[Depends(_downloading)],
    responses={
        200: {
            "description": "The whole table, as one stream. Its columns are, for score: row, nelbo,"
            " surprise, p_value, anomaly (with explain also term_<column> for each column, kl, and"
            " surprise_<column> for each column); for generate: those of the training table; for"
            " augment: row, copy and those; for reconstruct: row and those; for explain, one row"
            " for each cell: row, the identifiers of the table, nelbo, surprise, p_value, column,"
            " value, expected, low, high, share, missing, term, cell_surprise, reason, against"
            " (with repair: nelbo, surprise, p_value, column, value, repaired, nelbo_after,"
            " surprise_after, p_value_after); for clean, one row for"
            " each suspicious cell, the oddest row of the table first: row, the identifiers of the"
            " table, surprise, p_value, q_value, column, value, expected, low, high, share, reason,"
            " cell_surprise.",
            "content": CONTENT,
            "headers": {
                "Content-Disposition": {
                    "schema": {"type": "string"},
                    "description": "name for the file",
                }
            },
        },
        **answers(
            NotAuthenticated,
            NotFound,
            NotAcceptable,
            NotReady,
            JobFailed,
            Gone,
            InvalidRequest,
            OverQuota,
            Overloaded,
            Unavailable,
        ),
    },
)
def get_results(
    job_id: JobId,
    request: Request,
    service: ServiceDep,
    owner: Owner,
    accept: Annotated[
        str | None, Header(description="media types of the format (default: Parquet)")
    ] = None,
    format: Annotated[Format | None, Query(description="format, instead of Accept")] = None,
    safe: Annotated[
        bool | None,
        Query(
            description="in CSV, put an apostrophe before text that a spreadsheet would run as a"
            " formula (default: true for browsers, false for programs)"
        ),
    ] = None,
) -> StreamingResponse:
    job = _succeeded(lookup.get_job(service.database, owner, job_id))
    chosen = format or preferred_format(accept)
    suffix = "arrows" if chosen == "arrow" else chosen
    if safe is None:
        safe = for_people(request.headers)
    return StreamingResponse(
        encoded(_batches(service.database, job), chosen, safe),
        media_type=MEDIA_TYPES[chosen],
        headers={
            "Content-Disposition": f'attachment; filename="{job.kind}-{job.id}.{suffix}"',
            "Vary": "Accept, Sec-Fetch-Mode, Sec-Fetch-Dest",
        },
    )


def _succeeded(job: Job) -> Job:
    if job.state == "succeeded":
        return job
    if job.state in ("failed", "cancelled"):
        end = "was cancelled" if job.state == "cancelled" else "failed"
        reason = f": {job.problem}" if job.problem else ""
        raise JobFailed(f"job {job.id} {end}{reason}; it has no results")
    done = f"{job.progress.rows_done:,} of {job.progress.rows:,} rows"
    raise NotReady(
        f"job {job.id} is {job.state} ({done}); its results are available after it has succeeded",
        retry_after=1,
    )


def _batches(database: Database, job: Job) -> Iterator[pa.RecordBatch]:
    """The results, at least one batch, so that a table without rows has its columns.

    The first batch is read before the answer begins, so that an error is still an answer.
    """
    if job.kind != "score":
        return _begun(results.tables(database, job.id))
    explain = bool(job.params.get("explain"))
    batches = results.scores(database, job.id, explain=explain)
    first = next(batches, None)
    if first is not None:
        return itertools.chain([first], batches)
    schema = results.score_schema(database, job.id, explain=explain)
    return iter([pa.RecordBatch.from_pylist([], schema=schema)])


def _begun(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    return itertools.chain(list(itertools.islice(batches, 1)), batches)


@router.get(
    "/errors",
    response_model=Page[Error],
    operation_id="list_errors",
    summary="The rows that failed, and why",
    responses=answers(NotAuthenticated, NotFound, Gone, InvalidRequest, Unavailable),
)
def list_errors(
    job_id: JobId,
    service: ServiceDep,
    owner: Owner,
    limit: Limit = 100,
    cursor: Annotated[
        int, Query(ge=-1, lt=2**62, description="next_cursor of the previous page")
    ] = -1,
) -> Page[RowError]:
    """The errors are in row order. While the job runs, there may be more later."""
    job = lookup.get_job(service.database, owner, job_id)
    errors = results.errors(service.database, job.id, after_row=cursor, limit=limit + 1)
    return Page.of(errors, limit, key=lambda error: str(error.row))


@router.get(
    "/anomalies",
    operation_id="list_anomalies",
    summary="The least likely rows of a score job, in the order of its rank",
    responses=answers(NotAuthenticated, NotFound, Conflict, Gone, InvalidRequest, Unavailable),
)
def list_anomalies(
    job_id: JobId, service: ServiceDep, owner: Owner, limit: Limit = 100
) -> Page[Anomaly]:
    """The rows with the highest surprise come first or, by the job's rank, those with the highest
    nelbo. Each row has the surprise of each cell, the most surprising first, and its terms: the
    nats that each column adds. At most 1,000 rows are kept.
    """
    job = lookup.get_job(service.database, owner, job_id)
    if job.kind != "score":
        raise Conflict(f"job {job.id} is a {job.kind} job; only score jobs have anomalies")
    return Page(items=results.anomalies(service.database, job.id, limit=limit), next_cursor=None)

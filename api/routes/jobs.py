"""Jobs: submit one of five kinds, watch it, cancel it, retry it."""

import re
from contextlib import nullcontext
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response, status
from pydantic import TypeAdapter
from starlette.concurrency import run_in_threadpool
from starlette.convertors import StringConvertor, register_url_convertor

from api import admission, submission
from api.bodies import MAX_JSON_BYTES, ROWS_ADVICE
from api.deps import By, Owner, Service, ServiceDep
from api.errors import REFERENCE, answers
from api.middleware import allow_body
from api.pages import Cursor, Limit, Page
from nelbo import crash
from nelbo.errors import (
    Conflict,
    Gone,
    IdempotencyMismatch,
    InvalidInput,
    InvalidRequest,
    NotAuthenticated,
    NotFound,
    NotReady,
    Overloaded,
    OverQuota,
    TooLarge,
    Unavailable,
)
from nelbo.jobs import FINAL, JobRequest, Kind, State
from nelbo.store import ledger, lookup
from nelbo.views import Job

MAX_WAIT_S = 60.0
"""Maximum number of seconds for `Prefer: wait=N`."""
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?", re.IGNORECASE)
"""The preference of RFC 7240 that this service supports."""


class JobIdConvertor(StringConvertor):
    """An id in an address, without an action: `/v1/jobs/ID:cancel` is not the job `ID:cancel`."""

    regex = "[^/:]+"


register_url_convertor("job_id", JobIdConvertor())
router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
JobId = Annotated[
    str, Path(description="id of a job", examples=["0198c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11"])
]

Prefer = Annotated[
    str | None,
    Header(description="wait=N: answer when the job has ended, at most N s later"),
]

# The example of Conflict itself says "cancel it", which helps in neither of these cases.
NOT_TO_CANCEL = Conflict(
    "job 0198c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11 is succeeded already; only a queued or running job"
    " can be cancelled"
)
NOT_TO_RETRY = Conflict(
    "job 0198c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11 is succeeded; only a failed or cancelled job can be"
    " retried"
)

EXAMPLES: dict[str, Any] = {
    "score a file": {
        "value": {"kind": "score", "model": "adult", "file": "0198c6d0-1f0e-7b6e-8d0c-2f6f3f1f7a90"}
    },
    "score rows": {
        "value": {
            "kind": "score",
            "model": "adult@3",
            "rows": [{"age": 39, "workclass": "State-gov"}],
            "alpha": 0.05,
        }
    },
    "generate": {"value": {"kind": "generate", "model": "adult@champion", "n": 10_000, "seed": 7}},
    "augment": {
        "value": {
            "kind": "augment",
            "model": "adult",
            "file": "0198c6d0-1f0e-7b6e-8d0c-2f6f3f1f7a90",
            "per_row": 3,
        }
    },
    "augment with spread": {
        "value": {
            "kind": "augment",
            "model": "adult",
            "rows": [{"age": 39, "workclass": "State-gov"}],
            "per_row": 3,
            "spread": 0.3,
        }
    },
    "explain": {
        "value": {
            "kind": "explain",
            "model": "adult",
            "file": "0198c6d0-1f0e-7b6e-8d0c-2f6f3f1f7a90",
            "top": 3,
        }
    },
    "clean": {
        "value": {"kind": "clean", "file": "0198c6d0-1f0e-7b6e-8d0c-2f6f3f1f7a90", "alpha": 0.01}
    },
    "reconstruct": {
        "value": {
            "kind": "reconstruct",
            "model": "adult",
            "rows": [{"age": None, "workclass": "Private"}],
        }
    },
}

_SCHEMA = TypeAdapter(JobRequest).json_schema(ref_template=REFERENCE)
REQUEST_SCHEMAS: dict[str, Any] = _SCHEMA.pop("$defs")
"""The schemas of OpenAPI that the body of a job refers to.

FastAPI does not know them, because the route parses its body itself.
"""
BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": _SCHEMA, "examples": EXAMPLES}},
    },
}


@router.post(
    "",
    operation_id="submit_job",
    summary="Submit a job",
    status_code=status.HTTP_202_ACCEPTED,
    response_description="Accepted: the job is stored and will run",
    openapi_extra=BODY,
    responses={
        200: {"model": Job, "description": "With `Prefer: wait=N`: the job finished in time"},
        **answers(
            NotAuthenticated,
            NotFound,
            Conflict,
            Gone,
            NotReady,
            TooLarge,
            InvalidRequest,
            InvalidInput,
            IdempotencyMismatch,
            OverQuota,
            Overloaded,
            Unavailable,
        ),
    },
)
async def submit_job(
    request: Request,
    response: Response,
    service: ServiceDep,
    owner: Owner,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=200,
            pattern=r"^[!-~]+$",
            description="key of the request; sent again with the same key, it is the same job",
        ),
    ] = None,
    prefer: Prefer = None,
) -> Job:
    """The request is checked as far as possible, and then stored in one transaction.

    A job needs the id of a ready `file` or a few `rows`; `generate` needs neither.
    """
    allow_body(request.scope, MAX_JSON_BYTES, ROWS_ADVICE)
    match = _WAIT.search(prefer or "")
    # The place comes first, because a refused request must not leave a job.
    with service.waiting.taken(owner) if match else nullcontext():
        async with service.bodies.received(request, owner) as body:
            job = await service.bodies.work(
                body, partial(_submit, service, owner, body, idempotency_key)
            )
        if match:
            job = await _ended(service, owner, job, float(match[1]))
            response.headers["Preference-Applied"] = f"wait={match[1]}"
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    if job.state in FINAL:
        response.status_code = status.HTTP_200_OK if match else status.HTTP_202_ACCEPTED
    else:
        response.headers["Retry-After"] = "1"
    return job


def _submit(service: Service, owner: str, body: bytearray, key: str | None) -> Job:
    received = len(body)
    request = submission.parse(body, service.requests)
    body.clear()  # The request has its content.
    digest = submission.digest(request)
    earlier = lookup.job_by_key(service.database, owner, key, digest)
    if earlier is not None:
        return earlier

    admission.need_room(service, owner, str(received))
    plan = submission.plan(service.database, service.settings, owner, request)
    job, created = ledger.submit(
        service.database,
        owner,
        request,
        version_id=plan.version_id,
        rows=plan.rows,
        chunk_rows=plan.chunk_rows,
        file_id=plan.file_id,
        inline=plan.inline,
        idempotency_key=key,
        request_digest=digest,
        limits=admission.limits(service.settings),
    )
    if created:
        crash.point("submitted")
        service.hint(job.id)
    return job


async def _ended(service: Service, owner: str, job: Job, wait_s: float) -> Job:
    """The job when it has ended, or its state after wait_s seconds."""
    if job.state in FINAL:
        return job
    await service.endings.wait(job.id, min(wait_s, MAX_WAIT_S))
    return await run_in_threadpool(lookup.get_job, service.database, owner, job.id)


@router.get(
    "",
    operation_id="list_jobs",
    summary="List jobs, newest first",
    responses=answers(NotAuthenticated, InvalidRequest, Unavailable),
)
def list_jobs(
    service: ServiceDep,
    owner: Owner,
    limit: Limit = 50,
    cursor: Cursor = None,
    state: Annotated[State | None, Query(description="only jobs in this state")] = None,
    kind: Annotated[Kind | None, Query(description="only jobs of this kind")] = None,
) -> Page[Job]:
    page = lookup.list_jobs(
        service.database, owner, state=state, kind=kind, limit=limit, cursor=cursor
    )
    return Page(items=page.jobs, next_cursor=page.cursor)


@router.get(
    "/{job_id:job_id}",
    operation_id="get_job",
    summary="Look at a job",
    responses=answers(NotAuthenticated, NotFound, Gone, OverQuota, Overloaded, Unavailable),
)
async def get_job(
    job_id: JobId, service: ServiceDep, owner: Owner, response: Response, prefer: Prefer = None
) -> Job:
    job = await run_in_threadpool(lookup.get_job, service.database, owner, job_id)
    match = _WAIT.search(prefer or "")
    if match:
        # A job that has ended needs no place.
        with nullcontext() if job.state in FINAL else service.waiting.taken(owner):
            job = await _ended(service, owner, job, float(match[1]))
        response.headers["Preference-Applied"] = f"wait={match[1]}"
    if job.state not in FINAL:
        response.headers["Retry-After"] = "1"
    return job


@router.post(
    "/{job_id:job_id}:cancel",
    operation_id="cancel_job",
    summary="Ask a job to stop",
    responses=answers(NotAuthenticated, NotFound, NOT_TO_CANCEL, Gone, Unavailable),
)
def cancel_job(job_id: JobId, service: ServiceDep, owner: Owner) -> Job:
    """Queued chunks stop at once; a running chunk stops between two batches."""
    return ledger.cancel(service.database, owner, job_id)


@router.post(
    "/{job_id:job_id}:retry",
    operation_id="retry_job",
    summary="Queue a failed or cancelled job again",
    status_code=status.HTTP_202_ACCEPTED,
    response_description="Queued: only the missing chunks run",
    responses=answers(
        NotAuthenticated, NotFound, NOT_TO_RETRY, Gone, OverQuota, Overloaded, Unavailable
    ),
)
def retry_job(job_id: JobId, service: ServiceDep, owner: Owner, response: Response) -> Job:
    admission.need_disk(service)
    job = ledger.retry(service.database, owner, job_id, limits=admission.limits(service.settings))
    service.hint(job.id)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    response.headers["Retry-After"] = "1"
    return job


@router.delete(
    "/{job_id:job_id}",
    operation_id="delete_job",
    summary="Delete a job with its results and errors",
    status_code=status.HTTP_204_NO_CONTENT,
    response_class=Response,
    responses=answers(NotAuthenticated, NotFound, Conflict, Gone, Unavailable),
)
def delete_job(job_id: JobId, service: ServiceDep, owner: Owner, by: By) -> None:
    ledger.delete(service.database, owner, job_id, by=by)

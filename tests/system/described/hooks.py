"""What Schemathesis cannot know from a description: real tables and artifacts, ids that exist, work
that takes a moment.

Loaded by Schemathesis itself (SCHEMATHESIS_HOOKS).
"""

import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx2
import schemathesis
from hypothesis import strategies as st
from schemathesis.openapi.checks import RejectedPositiveData, UseAfterFree

from api.routes.files import TYPES
from nelbo.jobs import FINAL
from tests.artifacts import linear_artifact, packed
from tests.deadline import until
from tests.system.described import KEPT

CSV = (
    b"id,length,colour,width,weight\na,1.5,red,-2.5,10\nb,,green,-1,9.5\nc,0.5,blue,,11\n"
    b"d,wide,red,-2,10\n"
)
"""Rows of the hand-made model; the last one holds a text where a number should be, so that jobs
have errors."""
ROWS = [
    {"id": "a", "length": 1.5, "colour": "red", "width": -2.5, "weight": 10},
    {"id": "b", "length": None, "colour": "green", "width": -1, "weight": 9.5},
]
ENDS = FINAL | {"ready", "rejected"}
with tempfile.TemporaryDirectory() as folder:
    ARTIFACT = packed(linear_artifact(Path(folder) / "linear"))

Case = schemathesis.Case[Any]
Values = dict[str, Any] | None
Operation = schemathesis.APIOperation[Any, Any, Any, Any]

ready_files: list[str] = []
ready_versions: list[str] = []
"""What jobs can be about, the newest last."""
unfinished_jobs: list[str] = []
cancelled_jobs: list[str] = []
deleted_models: set[str] = set()
"""Names under which nothing was pushed again."""
IN_THE_STATE = {
    "gone": "earlier cases delete what links lead to",
    "invalid-input": "a description gives the form; whether a column, a suffix or an encoding"
    " exists is beyond it",
    "invalid-artifact": "the form of an artifact is any bytes",
    "idempotency-mismatch": "an earlier case used the key",
    "not-acceptable": "Accept is any text, as in HTTP",
    "too-large": "each service sets limits of its own",
}
"""Problems that may answer a request of the described form, and why. What is wrong with the form is
invalid-request."""

for media_type in sorted(set(TYPES) - {"application/json"}):  # bodies of jobs are JSON too
    schemathesis.openapi.media_type(
        media_type, st.sampled_from([CSV, CSV, CSV, b"", b"a,b\n1", b"\x00\xff" * 50])
    )
schemathesis.openapi.media_type(
    "application/zip", st.sampled_from([ARTIFACT, ARTIFACT, ARTIFACT[:-9], CSV, b""])
)


@schemathesis.hook
def before_load_schema(_: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """Jobs about what was uploaded and pushed. A link of OpenAPI's own cannot fill one field of a
    body."""
    uploaded = raw_schema["paths"]["/v1/files"]["post"]["responses"]["201"]
    uploaded["links"]["submit_job"] = {
        "operationId": "submit_job",
        "requestBody": {"file": "$response.body#/id"},
    }
    pushed = raw_schema["paths"]["/v1/models/{name}/versions"]["post"]["responses"]["202"]
    pushed["links"]["submit_job"] = {
        "operationId": "submit_job",
        "requestBody": {"model": "$response.body#/model"},
    }
    pushed["links"]["set_alias"] = {
        "operationId": "set_alias",
        "parameters": {"name": "$response.body#/model"},
        "requestBody": {"version": "$response.body#/version"},
    }


@schemathesis.hook
def map_query(context: schemathesis.HookContext, query: Values) -> Values:
    """Most names get a suffix that is known, and most encodings are one."""
    name = (query or {}).get("name")
    if not query or not is_for(context, "upload_file") or not isinstance(name, str):
        return query
    if 0 < len(name) < 250 and len(name) % 4:
        query = query | {"name": f"{name}.csv"}
        if isinstance(query.get("encoding"), str):
            query["encoding"] = "utf-8"
    return query


@schemathesis.hook
def map_path_parameters(context: schemathesis.HookContext, path_parameters: Values) -> Values:
    """Jobs that can be cancelled and retried, as long as there are some."""
    for operation, jobs in (("cancel_job", unfinished_jobs), ("retry_job", cancelled_jobs)):
        if is_for(context, operation) and jobs:
            return {"job_id": jobs.pop()}
    return path_parameters


@schemathesis.hook
def map_headers(context: schemathesis.HookContext, headers: Values) -> Values:
    """Some jobs are waited for."""
    if headers and is_for(context, "submit_job") and len(headers.get("prefer") or "") % 3 == 1:
        return headers | {"prefer": "wait=1"}
    return headers


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:
    """Fields of the right type get values that mean something; wrong ones stay as they are."""
    if not is_for(context, "submit_job") or not isinstance(body, dict):
        return body
    body = dict(body)
    if isinstance(body.get("model"), str) and body["model"]:
        body["model"] = ready_versions[-1] if ready_versions else KEPT
    if type(body.get("n")) is int and body["n"] > 0:  # True is no integer in JSON
        body["n"] = body["n"] % 1_500 + 1
    if body.get("kind") in ("score", "augment", "reconstruct", "explain", "clean"):
        name_rows(body)
    return body


def is_for(context: schemathesis.HookContext, operation: str) -> bool:
    assert context.operation is not None
    return operation_of(context.operation) == operation


def operation_of(operation: Operation) -> str:
    return str(operation.definition.raw["operationId"])


def name_rows(body: dict[str, Any]) -> None:
    """Rows of a file or of the body's own, not both: that one of two is needed is said in words in
    the description."""
    file, rows = body.get("file"), body.get("rows")
    if isinstance(file, str) and rows is None and ready_files:
        body["file"] = ready_files[-1]
    elif isinstance(file, str | None) and isinstance(rows, list | None):
        body.pop("file", None)
        body["rows"] = ROWS


@schemathesis.hook
def filter_case(_: schemathesis.HookContext, case: Case) -> bool:
    return case.method.upper() != "DELETE" or (case.path_parameters or {}).get("name") != KEPT


@schemathesis.hook
def filter_failure(
    _: schemathesis.HookContext, failure: Exception, case: Case, response: schemathesis.Response
) -> bool:
    if isinstance(failure, RejectedPositiveData):
        problem = response.json()
        one_of_two = any(field["code"] == "exactly-one-of" for field in problem["errors"])
        return problem["type"].removeprefix("/problems/") not in IN_THE_STATE and not one_of_two
    if isinstance(failure, UseAfterFree):
        # A push makes a model of the deleted one's name.
        return (case.path_parameters or {}).get("name", "") in deleted_models | {""}
    return True


@schemathesis.hook
def after_call(_: schemathesis.HookContext, case: Case, response: schemathesis.Response) -> None:
    """Wait until what was stored is read or verified, and until most jobs have ended."""
    match operation_of(case.operation), response.status_code:
        case "upload_file", 201:
            if waited_for(response) == "ready":
                ready_files.append(response.json()["id"])
        case "push_version", 202:
            version = response.json()
            deleted_models.discard(version["model"])
            if waited_for(response) == "ready":
                ready_versions.append(f"{version['model']}@{version['version']}")
        case "submit_job", 202:
            note_job(response)
        case "cancel_job", 200:
            cancelled_jobs.append(response.json()["id"])
        case _, 204:
            forget(operation_of(case.operation), case.path_parameters or {})


def note_job(response: schemathesis.Response) -> None:
    """Half of the jobs have ended when the next step comes, the others go on."""
    job_id = response.json()["id"]
    if job_id[-1] in "01234567":
        unfinished_jobs.append(job_id)
    else:
        waited_for(response)


def forget(operation: str, deleted: dict[str, Any]) -> None:
    """Deleted files and models are no more to be named."""
    name = deleted.get("name", "")
    ready_files[:] = [file for file in ready_files if file != deleted.get("file_id")]
    ready_versions[:] = [version for version in ready_versions if version.partition("@")[0] != name]
    if operation == "delete_model":
        deleted_models.add(name)


def waited_for(response: schemathesis.Response) -> str:
    """The state at the end of what goes on behind an answer."""
    address = urljoin(str(response.request.url), response.headers["location"][0])
    authorization = {"Authorization": str(response.request.headers["Authorization"])}

    def state() -> str | None:
        answer = httpx2.get(address, headers=authorization).json()
        return answer["state"] if answer["state"] in ENDS else None

    return until(state, f"{address} to end") or ""

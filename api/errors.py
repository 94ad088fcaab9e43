"""The service's errors as problem documents (RFC 9457), and the pages that explain their types."""

import html
from http import HTTPStatus
from math import ceil
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from nelbo.errors import (
    FieldError,
    ForeignRequest,
    InvalidRequest,
    MethodNotAllowed,
    NelboError,
    NotFound,
    TooLarge,
    TooSlow,
    UnsupportedMediaType,
    problem_types,
)

MEDIA_TYPE = "application/problem+json"
METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
REFERENCE = "#/components/schemas/{model}"


class Problem(BaseModel):
    """A problem document. `type` is the address of a page that explains this kind of problem."""

    type: Annotated[str, Field(examples=["/problems/not-found"])]
    title: str
    status: int
    detail: Annotated[str, Field(description="what was found, what was expected, the next step")]
    instance: Annotated[str, Field(description="address of the request")]
    request_id: Annotated[
        str, Field(description="X-Request-ID of this request, to find it in the service's log")
    ]
    errors: Annotated[
        list[FieldError], Field(description="the invalid fields: JSON pointers and reasons")
    ] = []


def respond(request: Request, error: NelboError) -> Response:
    """The response to a request that ended in this error."""
    problem = Problem(
        type=f"/problems/{error.code}",
        title=error.title,
        status=error.status,
        detail=error.message,
        instance=request.url.path,
        request_id=request.scope.get("request_id", ""),
        errors=list(getattr(error, "fields", ())),
    )
    headers = {} if error.retry_after is None else {"Retry-After": str(ceil(error.retry_after))}
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(problem.model_dump_json(), error.status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Turn every error that a route or the router raises into a problem document."""
    app.add_exception_handler(NelboError, _on_nelbo_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.include_router(router)


def _on_nelbo_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, NelboError)
    return respond(request, error)


def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = respond(request, _translated(request, error))
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        response.headers["Allow"] = ", ".join(_methods(request))
    return response


def _methods(request: Request) -> list[str]:
    """All methods of an address.

    The router's own list has those of the first matching route only.
    """
    scopes = [dict(request.scope) | {"method": method} for method in METHODS]
    return [
        scope["method"]
        for scope in scopes
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)
    ]


def _translated(request: Request, error: HTTPException) -> NelboError:
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            return NotFound(
                f"there is nothing at {request.url.path}; the service is described at /docs"
            )
        case HTTPStatus.METHOD_NOT_ALLOWED:
            methods = ", ".join(_methods(request))
            return MethodNotAllowed(
                f"{request.method} is not a method of {request.url.path}, which has {methods}; see"
                " /docs"
            )
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return TooLarge(error.detail)
        case HTTPStatus.REQUEST_TIMEOUT:
            return TooSlow(error.detail)
        case _:
            return InvalidRequest(
                "the body cannot be read; send JSON in UTF-8 with Content-Type: application/json"
            )


def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    fields = [_field_error(entry) for entry in error.errors()[:20]]
    reasons = "; ".join(f"{field.pointer}: {field.detail}" for field in fields[:3])
    return respond(request, InvalidRequest(f"the request is not valid: {reasons}", fields))


def _field_error(entry: dict[str, Any]) -> FieldError:
    parts = [str(part).replace("~", "~0").replace("/", "~1") for part in entry["loc"]]
    pointer = "".join(f"/{part}" for part in parts)
    return FieldError(pointer, entry["type"].replace("_", "-"), entry["msg"])


def answers(*errors: type[NelboError] | NelboError) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` for a route that can end in these errors.

    The example is that of the class, or the message of an error object.
    """
    responses: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        message = error.message if isinstance(error, NelboError) else error.example
        content = {"schema": {"$ref": REFERENCE.format(model="Problem")}, "examples": {}}
        answer = responses.setdefault(
            error.status, {"description": error.title, "content": {MEDIA_TYPE: content}}
        )
        examples = answer["content"][MEDIA_TYPE]["examples"]
        examples[error.code] = {"summary": error.title, "value": _example(error, message)}
    return responses


def describe(openapi: dict[str, Any]) -> None:
    """Complete an OpenAPI description.

    It gets the problem document and the errors that can happen before any route runs. It loses the
    standard 422 that FastAPI adds to routes with parameters.
    """
    for path in openapi["paths"].values():
        for operation in path.values():
            if "HTTPValidationError" in str(operation["responses"].get("422", "")):
                del operation["responses"]["422"]
            add_answers(operation, ForeignRequest)
            if "requestBody" in operation:
                add_answers(operation, TooSlow, TooLarge, UnsupportedMediaType)
    schemas = openapi["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    problem = Problem.model_json_schema(ref_template=REFERENCE)
    schemas |= problem.pop("$defs") | {"Problem": problem}


def add_answers(operation: dict[str, Any], *errors: type[NelboError] | NelboError) -> None:
    """Add responses to an operation, beside those that it lists itself."""
    for status, answer in answers(*errors).items():
        listed = operation["responses"].setdefault(str(status), answer)["content"][MEDIA_TYPE]
        listed["examples"] = answer["content"][MEDIA_TYPE]["examples"] | listed["examples"]


def _example(error: type[NelboError] | NelboError, message: str) -> dict[str, Any]:
    return {
        "type": f"/problems/{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": message,
        "instance": "/v1/jobs",
        "request_id": "0198c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11",
        "errors": [],
    }


router = APIRouter(tags=["health"])


class ProblemType(BaseModel):
    """The explanation of a problem type."""

    type: str
    title: str
    status: int
    description: str


@router.get(
    "/problems/{code}",
    operation_id="get_problem_type",
    summary="What a problem type means",
    response_model=ProblemType,
    responses={
        200: {"description": "As JSON, or as a page for a browser", "content": {"text/html": {}}},
        **answers(NotFound),
    },
)
def get_problem_type(code: Annotated[str, Path(examples=["gone"])], request: Request) -> Response:
    types = problem_types()
    if code not in types:
        raise NotFound(f"no problem type {code!r}; there are: {', '.join(sorted(types))}")
    error = types[code]
    page = ProblemType(
        type=f"/problems/{code}",
        title=error.title,
        status=error.status,
        description=_description(error),
    )
    if "text/html" in request.headers.get("accept", ""):
        return HTMLResponse(_page(page), headers={"Vary": "Accept"})
    return JSONResponse(page.model_dump(), headers={"Vary": "Accept"})


def _description(error: type[NelboError]) -> str:
    return " ".join((error.__doc__ or "").replace("`", "").split())


def _page(problem: ProblemType) -> str:
    title = html.escape(problem.title)
    description = html.escape(problem.description)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<h1>{title}</h1><p>{description}</p><p>HTTP status {problem.status},"
        f" <code>{problem.type}</code></p></html>"
    )

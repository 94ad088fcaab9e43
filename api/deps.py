"""The dependencies of routes: the parts of the service, and the caller."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from pydantic import TypeAdapter
from starlette.concurrency import run_in_threadpool

from api.access import check_scope
from api.auth import ApiKeys, Caller, prefix_of
from api.bodies import JsonBodies, check_type
from api.endings import Endings
from api.hints import Hints
from api.middleware import log_also
from api.places import Places
from api.tries import Tries
from api.uploads import Uploads
from nelbo import logs
from nelbo.audit import Actor
from nelbo.errors import NotAuthenticated
from nelbo.jobs import JobRequest
from nelbo.settings import Settings
from nelbo.storage import Storage
from nelbo.store.session import Database

log = logs.get(__name__)


@dataclass(frozen=True)
class Service:
    """The parts of a running service."""

    settings: Settings
    database: Database
    storage: Storage
    keys: ApiKeys
    tries: Tries
    hints: Hints | None
    """None where no broker is configured: the dispatcher then finds the work in SQL."""

    broker_answers: Callable[[], bool]
    """Whether the broker answers; only the readiness probe calls it."""

    bodies: JsonBodies
    uploads: Uploads
    waiting: Places
    """Places for requests that wait for the end of their job."""
    endings: Endings
    downloads: Places
    """Places for downloads of results."""

    requests: TypeAdapter[JobRequest]
    """Parses the request of a job, within the limits of the settings."""

    def hint(self, job_id: str) -> None:
        """Send the workers a hint about a committed job; the request does not wait for it."""
        if self.hints is not None:
            self.hints.offer(job_id)


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]

# Only for OpenAPI. The header is read below, where an invalid one becomes a problem document.
_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="API key",
    description="nb_<id>_<secret>, where the service uses keys",
)


async def _caller(
    request: Request, service: ServiceDep, _: Annotated[object, Depends(_bearer)]
) -> Caller:
    authorization = request.headers.get("authorization")
    caller = service.keys.remembered(authorization)
    if caller is None:
        caller = await _looked_up(service, authorization, client_of(request))
    log_also(
        request.scope, owner=caller.owner, key=None if caller.key is None else f"nb_{caller.key}"
    )
    check_scope(caller.scope, request.scope["route"].operation_id)
    return caller


async def _looked_up(service: Service, authorization: str | None, address: str) -> Caller:
    refusal = service.tries.refusal(address) if authorization else None
    # Callers behind one proxy share an address, so a live key is accepted whatever others try.
    if refusal is not None and not await run_in_threadpool(service.keys.is_listed, authorization):
        raise refusal
    try:
        return await run_in_threadpool(service.keys.look_up, authorization)
    except NotAuthenticated as problem:
        if authorization:
            service.tries.add(address)
            log.warning(
                "API key refused",
                client=address,
                key=prefix_of(authorization),
                reason=problem.message,
            )
        raise


def client_of(request: Request) -> str:
    """The client's address; empty for a connection through a Unix socket."""
    return request.client.host if request.client else ""


async def check_body(request: Request, _: Annotated[Caller, Depends(_caller)]) -> None:
    """Raise UnsupportedMediaType for a body of another type than the route's.

    The key is checked first, so that callers without one learn only that.
    """
    check_type(request)


async def _owner(caller: Annotated[Caller, Depends(_caller)]) -> str:
    return caller.owner


Owner = Annotated[str, Depends(_owner)]


async def _actor(request: Request, caller: Annotated[Caller, Depends(_caller)]) -> Actor:
    return Actor(caller.owner, caller.key, client_of(request), request.scope["request_id"])


By = Annotated[Actor, Depends(_actor)]
"""The author of a change, for the audit."""

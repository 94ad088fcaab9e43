"""What routes are given: the service's parts, and who asks."""

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
    """None where no broker is set: the dispatcher finds the work in SQL."""

    broker_answers: Callable[[], bool]
    """Asks the broker; for the readiness probe alone."""

    bodies: JsonBodies
    uploads: Uploads
    waiting: Places
    """Of requests that wait for the end of their job."""
    downloads: Places
    """Of results that are sent."""

    requests: TypeAdapter[JobRequest]
    """Reads the request of a job, within the settings' limits."""

    def hint(self, job_id: str) -> None:
        """Tell the workers of a job, after it was committed; costs the request nothing."""
        if self.hints is not None:
            self.hints.offer(job_id)


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]

# Only for the words in OpenAPI; the header itself is read below, where a wrong one becomes a
# problem document.
_bearer = HTTPBearer(
    auto_error=False, scheme_name="API key", description="nb_<id>_<secret>, where keys are set up"
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
    # Others may share the address, behind one proxy: who holds a live key is let in whatever they
    # try.
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
                why=problem.message,
            )
        raise


def client_of(request: Request) -> str:
    """The client's address; empty where it came through a socket file."""
    return request.client.host if request.client else ""


async def check_body(request: Request, _: Annotated[Caller, Depends(_caller)]) -> None:
    """Raise UnsupportedMediaType for a body of another type than the route's; who holds no key is
    told that first."""
    check_type(request)


async def _owner(caller: Annotated[Caller, Depends(_caller)]) -> str:
    return caller.owner


Owner = Annotated[str, Depends(_owner)]


async def _actor(request: Request, caller: Annotated[Caller, Depends(_caller)]) -> Actor:
    return Actor(caller.owner, caller.key, client_of(request), request.scope["request_id"])


By = Annotated[Actor, Depends(_actor)]
"""Who makes a change, for the audit."""

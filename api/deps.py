"""What routes are given: the service's parts, and the owner who asks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from pydantic import TypeAdapter

from api.auth import Keys
from api.bodies import JsonBodies
from api.hints import Hints
from api.uploads import Uploads
from nelbo.jobs import JobRequest
from nelbo.settings import Settings
from nelbo.storage import Storage
from nelbo.store.session import Database


@dataclass(frozen=True)
class Service:
    """The parts of a running service."""

    settings: Settings
    database: Database
    storage: Storage
    keys: Keys
    hints: Hints | None
    """None where no broker is set: the dispatcher finds the work in SQL."""

    broker_answers: Callable[[], bool]
    """Asks the broker; for the readiness probe alone."""

    bodies: JsonBodies
    uploads: Uploads

    requests: TypeAdapter[JobRequest]
    """Reads the request of a job, within the settings' limits."""

    def hint(self, job_id: str) -> None:
        """Tell the workers of a job, after it was committed; costs the request nothing."""
        if self.hints is not None:
            self.hints.offer(job_id)


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Parts = Annotated[Service, Depends(_service)]

# Only for the words in OpenAPI; the header itself is read below, where a wrong one becomes a problem document.
_bearer = HTTPBearer(auto_error=False, scheme_name="API key", description="nb_<id>_<secret>, where keys are set up")


async def _owner(request: Request, service: Parts, _: Annotated[object, Depends(_bearer)]) -> str:
    return service.keys.owner(request.headers.get("authorization"))


Owner = Annotated[str, Depends(_owner)]

"""Probes. The service is ready with a database; without a broker, jobs only start later."""

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from api.admission import need_database_room
from api.deps import Service, ServiceDep
from api.errors import answers
from nelbo.errors import Unavailable

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The process is alive."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """The service accepts requests.

    `degraded`: the broker does not answer, so that jobs start some seconds later, or a part of the
    keys file cannot be read.
    """

    status: Literal["ready", "degraded"]
    database: Literal["ok"] = "ok"
    broker: Annotated[Literal["ok", "down", "none"], Field(description="none: there is no broker")]
    keys: Annotated[
        Literal["ok", "degraded", "none"],
        Field(description="none: no key is needed, and everyone is the owner `local`"),
    ]


@router.get("/healthz", operation_id="get_health", summary="Is the process alive?")
async def get_health() -> Health:
    return Health()


@router.get(
    "/readyz",
    operation_id="get_readiness",
    summary="Can the service take requests?",
    responses=answers(Unavailable),
)
def get_readiness(service: ServiceDep) -> Readiness:
    service.database.check()
    need_database_room(service)
    broker = _broker(service)
    keys = service.keys.state()
    degraded = broker == "down" or keys == "degraded"
    return Readiness(status="degraded" if degraded else "ready", broker=broker, keys=keys)


def _broker(service: Service) -> Literal["ok", "down", "none"]:
    if service.hints is None:
        return "none"
    return "ok" if service.broker_answers() else "down"

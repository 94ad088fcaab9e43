"""Bodies: of the types alone that a route lists."""

from collections.abc import Collection

from fastapi import Request
from fastapi.routing import APIRoute

from nelbo.errors import UnsupportedMediaType


async def check_type(request: Request) -> None:
    """Raise UnsupportedMediaType unless the body has one of the types that the route's description lists.

    A web page may send text, forms and bodies without a type to other sites unasked; for all other types its browser asks
    first (CORS), and this service never agrees.
    """
    types = _types(request.scope.get("route"))
    sent = request.headers.getlist("content-type")
    if types and (len(sent) != 1 or sent[0].partition(";")[0].strip().lower() not in types):
        what = " and ".join(sent) or "no Content-Type"
        raise UnsupportedMediaType(f"the body is sent as {what}; send the header Content-Type: {' or '.join(types)}")


def _types(route: object) -> Collection[str]:
    """The media types of a route's body, nothing for a route without a body."""
    if not isinstance(route, APIRoute):
        return ()
    described = (route.openapi_extra or {}).get("requestBody")
    if described is not None:
        return tuple(described["content"])
    return ("application/json",) if route.body_field else ()

"""Refuse requests for other hosts, and changes that the page of another site asks for.

A web page can make a browser send requests to any address, also to this machine. It cannot forge
three headers: Host is the host name in the address, Origin and Sec-Fetch-Site say which site the
page belongs to.
"""

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import Scope

from nelbo.errors import ForeignRequest, InvalidInput

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
CHANGES_NOTHING = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
OWN_PAGE = frozenset({"same-origin", "none"})
"""Sec-Fetch-Site of the service's own pages, and of addresses that a person has typed."""


def host_names(setting: str) -> frozenset[str]:
    """The names in a list separated by commas: `name` for any port, or `name:port`."""
    names = frozenset(name.strip().lower() for name in setting.split(",") if name.strip())
    for name in names:
        if "/" in name or " " in name:
            raise InvalidInput(
                f"NELBO_HOSTS contains {name!r}, which is not a host name; examples are"
                " nelbo.example and nelbo.example:8765"
            )
    return names


def check_host(scope: Scope, further: Collection[str]) -> None:
    """Raise ForeignRequest unless Host is this machine with the service's port, or a further name.

    Otherwise a page whose host name was made to resolve to 127.0.0.1 (DNS rebinding) could read and
    change everything.
    """
    host = Headers(scope=scope).get("host", "").lower()
    port = scope["server"][1]
    own = [f"{name}:{port}" for name in LOOPBACK]
    with_port = host if _has_port(host) else f"{host}:80"
    if with_port not in own and not _named(host, further):
        raise ForeignRequest(
            f"the request names the host {host!r}; without keys this service answers to"
            f" {', '.join(own)} alone: use one of these, or add the name to the setting hosts"
        )


def check_page(scope: Scope, further: Collection[str]) -> None:
    """Raise ForeignRequest if the page of another site asks for a change."""
    if scope["method"] in CHANGES_NOTHING:
        return
    headers = Headers(scope=scope)
    host = headers.get("host", "")
    foreign_sites = [site for site in headers.getlist("sec-fetch-site") if site not in OWN_PAGE]
    foreign_origins = [
        origin for origin in headers.getlist("origin") if not _own_origin(origin, host, further)
    ]
    foreign = foreign_sites + foreign_origins
    if foreign:
        raise ForeignRequest(
            f"a web page of another site ({foreign[0]}) asks for a change, which is not allowed;"
            " use a page of this service, or a program. The setting hosts adds host names of the"
            " service"
        )


def _own_origin(origin: str, host: str, further: Collection[str]) -> bool:
    scheme, separator, name = origin.lower().partition("://")
    return (
        scheme in ("http", "https")
        and bool(separator)
        and (name == host.lower() or _named(name, further))
    )


def _named(host: str, names: Collection[str]) -> bool:
    return host in names or (_has_port(host) and host.rpartition(":")[0] in names)


def _has_port(host: str) -> bool:
    return host.rpartition(":")[2].isdecimal() and not host.endswith("]")

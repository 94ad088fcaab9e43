"""Which requests are meant for this service: those that name its host, and no change that another
site's page asks for.

A browser sends what any page tells it to any address, this machine's included. A page cannot forge
three headers: Host is the name under which the browser found the service, Origin and Sec-Fetch-Site
say whose page it is.
"""

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import Scope

from nelbo.errors import ForeignRequest, InvalidInput

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
CHANGES_NOTHING = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
OWN_PAGE = frozenset({"same-origin", "none"})
"""Sec-Fetch-Site of a page of the service's own, and of what a person typed into the address
bar."""


def host_names(setting: str) -> frozenset[str]:
    """The names in a list that is separated by commas: `name` for any port, or `name:port`."""
    names = frozenset(name.strip().lower() for name in setting.split(",") if name.strip())
    for name in names:
        if "/" in name or " " in name:
            raise InvalidInput(
                f"NELBO_HOSTS holds {name!r}; it takes names such as nelbo.example or"
                " nelbo.example:8765"
            )
    return names


def check_host(scope: Scope, further: Collection[str]) -> None:
    """Raise ForeignRequest unless Host names this machine with the service's port, or is among the
    further names.

    Without it, a page whose own name was made to lead to 127.0.0.1 (DNS rebinding) could read and
    change everything.
    """
    host = Headers(scope=scope).get("host", "").lower()
    port = scope["server"][1]
    own = [f"{name}:{port}" for name in LOOPBACK]
    with_port = host if _has_port(host) else f"{host}:80"
    if with_port not in own and not _named(host, further):
        raise ForeignRequest(
            f"the request names the host {host!r}; without keys this service answers to"
            f" {', '.join(own)} alone: use one of"
            " these, or add the name to the setting hosts"
        )


def check_page(scope: Scope, further: Collection[str]) -> None:
    """Raise ForeignRequest where the page of another site asks for a change."""
    if scope["method"] in CHANGES_NOTHING:
        return
    headers = Headers(scope=scope)
    sites, origins = headers.getlist("sec-fetch-site"), headers.getlist("origin")
    foreign = [site for site in sites if site not in OWN_PAGE]
    foreign += [
        origin for origin in origins if not _own_origin(origin, headers.get("host", ""), further)
    ]
    if foreign:
        raise ForeignRequest(
            f"a web page of another site ({foreign[0]}) asks for a change, which it may not; use a"
            " page of this service's"
            " own, or a program. The setting hosts holds further names of the service"
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

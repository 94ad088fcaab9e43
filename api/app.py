"""The HTTP service. It checks requests, stores jobs and answers; it never runs a model.

`python -P -m api.app [--host HOST] [--port PORT]` starts it. Settings are NELBO_* variables.
"""

import argparse
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from ipaddress import ip_address
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn
from fastapi import Depends, FastAPI

import nelbo
from api import access, bodies, errors, links, memory
from api.auth import ApiKeys
from api.connections import BACKLOG, Connection, allow_many
from api.deps import Service, check_body
from api.endings import Endings
from api.hints import Hints
from api.middleware import AroundRequests
from api.origins import LOOPBACK, host_names
from api.places import Places
from api.routes import audit, docs, files, health, jobs, models, results
from api.tries import Tries
from api.uploads import Uploads
from nelbo import logs, privacy
from nelbo.jobs import bounded_request
from nelbo.settings import Settings, read_settings
from nelbo.storage import open_storage
from nelbo.store.session import connect

if TYPE_CHECKING:
    from celery import Celery

DESCRIPTION = """
Find unusual rows in tables, and make new rows like those of a table. The work is done in jobs.

Upload a table (`POST /v1/files`), submit a job (`POST /v1/jobs`), and fetch its results as Parquet,
Arrow, CSV or JSON Lines. Every error is a problem document (RFC 9457); its `type` is the address of
an explanation.
"""
TAGS = [
    {
        "name": "files",
        "description": "Uploaded tables. Their states: receiving → reading → ready or rejected.",
    },
    {
        "name": "models",
        "description": "Models with numbered versions. An alias, such as `champion`, names one.",
    },
    {
        "name": "jobs",
        "description": "Jobs. Their states: queued → running → succeeded, failed or cancelled.",
    },
    {
        "name": "results",
        "description": "The results of a job, the rows with errors, and the least likely rows.",
    },
    {
        "name": "audit",
        "description": "Changes and deletions, and who made them. It needs the scope `admin`.",
    },
    {"name": "health", "description": "Probes, and explanations of the problem types."},
]


def create_app(settings: Settings) -> FastAPI:
    """The service with these settings. Its lifespan opens and closes what it uses."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service = _open(settings)
        app.state.service = service
        try:
            yield
        finally:
            if service.hints is not None:
                service.hints.close()
            service.keys.close()
            service.bodies.close()
            service.database.dispose()

    app = FastAPI(
        title="Nelbo",
        version=nelbo.__version__,
        summary="Batch anomaly scoring and synthetic rows",
        description=DESCRIPTION,
        openapi_tags=TAGS,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_middleware(AroundRequests, hosts=host_names(settings.hosts))
    errors.install(app)
    for module in (files, models, jobs, results, audit):
        app.include_router(module.router, dependencies=[Depends(check_body)])
    for module in (health, docs):
        app.include_router(module.router)
    _describe_exactly(app)
    return app


def _open(settings: Settings) -> Service:
    database = connect(settings.database)
    return Service(
        settings=settings,
        database=database,
        storage=open_storage(settings.storage),
        keys=ApiKeys(database, settings.api_keys_file, settings.require_keys),
        tries=Tries(settings.max_wrong_keys),
        hints=_hints(settings),
        broker_answers=_asks_broker(settings),
        bodies=bodies.JsonBodies(),
        uploads=Uploads(settings.max_uploads, settings.max_uploads_of_owner),
        waiting=_places(
            settings,
            "waiting",
            "requests that wait for their job",
            "; try again, or fetch the job later",
        ),
        endings=Endings(database),
        downloads=_places(
            settings, "downloads", "downloads of results", "; try again when one has ended"
        ),
        requests=bounded_request(settings.max_inline_rows, settings.max_columns),
    )


def _places(settings: Settings, name: str, what: str, advice: str) -> Places:
    """Places whose numbers are the settings max_NAME and max_NAME_of_owner."""
    return Places(
        getattr(settings, f"max_{name}"),
        getattr(settings, f"max_{name}_of_owner"),
        what,
        f" (the settings max_{name} and max_{name}_of_owner){advice}",
        retry_after=5,
    )


def _hints(settings: Settings) -> Hints | None:
    if not settings.broker:
        return None
    celery = _celery(settings, 2.0)

    def send(job_id: str) -> bool:
        from nelbo.broker import send_hint  # loads Celery, see _celery

        return send_hint(celery(), job_id)

    return Hints(send)


def _asks_broker(settings: Settings) -> Callable[[], bool]:
    if not settings.broker:
        return lambda: False
    celery = _celery(settings, 1.0)

    def answers() -> bool:
        from nelbo.broker import waiting_hints  # loads Celery, see _celery

        return waiting_hints(celery()) is not None

    return answers


def _celery(settings: Settings, timeout_s: float) -> Callable[[], "Celery"]:
    """A function that loads Celery at its first call.

    So an API that starts again after a crash can answer before Celery is loaded.
    """

    @cache
    def celery() -> "Celery":
        from nelbo.broker import make_app

        return make_app(settings, timeout_s)

    return celery


def _describe_exactly(app: FastAPI) -> None:
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        description = generate()
        if "Problem" not in description["components"]["schemas"]:
            errors.describe(description)
            access.describe(description)
            links.describe(description)
            description["components"]["schemas"] |= jobs.REQUEST_SCHEMAS
        return description

    # FastAPI's documented way to change the description.
    app.openapi = openapi  # type: ignore[method-assign]


class Server(uvicorn.Server):
    """A server whose requests wait no longer for their jobs once it has to stop."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        service: Service | None = getattr(self._app.state, "service", None)
        if service is not None:
            service.endings.stop()


def server(app: FastAPI, settings: Settings, host: str, port: int) -> uvicorn.Server:
    """The server of the application, for an address or for the sockets that `run` receives."""
    return Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            http=Connection,
            ws="none",
            log_config=None,
            access_log=False,  # AroundRequests logs each request with its id
            server_header=False,
            # Without a proxy, any client could claim another address.
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=settings.trusted_proxies,
            timeout_graceful_shutdown=20,
            backlog=BACKLOG,
        ),
        app,
    )


def main() -> None:
    """Serve until SIGTERM or ^C. Answers that have begun are completed first."""
    parser = argparse.ArgumentParser(prog="python -P -m api.app", description="Serve the HTTP API.")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--port", type=int, default=8765, help="port to listen on (default: %(default)s)"
    )
    options = parser.parse_args()
    settings = read_settings()
    _check_reach(settings, options.host)
    logs.configure(settings.log_level)
    privacy.close_to_others()
    privacy.prepare(settings)
    memory.give_back_large_blocks()
    allow_many()
    server(create_app(settings), settings, options.host, options.port).run()


def _check_reach(settings: Settings, host: str) -> None:
    """Exit if the service would be open to others without keys, unless a setting allows that."""
    keys = settings.require_keys or settings.api_keys_file is not None
    if not keys and not settings.open_to_all and not _loopback(host):
        sys.exit(
            f"without API keys, everyone who reaches {host} could read and change everything: set"
            " NELBO_REQUIRE_KEYS=true (`nelbo keys create` creates keys), listen on 127.0.0.1, or"
            " set NELBO_OPEN_TO_ALL=true to allow it"
        )


def _loopback(host: str) -> bool:
    if host in LOOPBACK:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False  # The address of a name may change.


if __name__ == "__main__":
    main()

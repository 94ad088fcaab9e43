"""What one process of the worker holds: settings, database, storage, engines. Made after the fork,
on first use."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from celery import current_app

from nelbo import copies
from nelbo.broker import send_hint
from nelbo.processes import my_name
from nelbo.settings import Settings, read_settings
from nelbo.storage import Storage, open_storage
from nelbo.store.session import Database, connect
from worker import confined
from worker.engines import Engines


@dataclass(frozen=True)
class Process:
    """`name` stands in the chunks that this process claims; `hint` passes a job on to whoever is
    free next."""

    name: str
    settings: Settings
    database: Database
    storage: Storage
    engines: Engines
    hint: Callable[[str], object]


def make(settings: Settings, hint: Callable[[str], object]) -> Process:
    storage = open_storage(settings.storage)
    limits = confined.Limits(settings.model_batch_s, settings.model_memory_mib)
    engines = Engines(storage, copies.artifacts(settings.home), limits)
    return Process(my_name(), settings, connect(settings.database), storage, engines, hint)


@functools.cache
def here() -> Process:
    """This process's, made by the first task. Never called in the Celery main process, so nothing
    of it is forked."""
    app = current_app._get_current_object()
    return make(read_settings(), lambda job_id: send_hint(app, job_id))

"""The resources of one worker process: settings, database, storage and engines.

They are created on first use, after the fork.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

from celery import current_app

from nelbo import copies
from nelbo.broker import send_hint
from nelbo.processes import my_name
from nelbo.row_copies import Integers
from nelbo.settings import Settings, read_settings
from nelbo.storage import Storage, open_storage
from nelbo.store.session import Database, connect
from worker import confined
from worker.engines import Engines


@dataclass(frozen=True)
class Process:
    """The resources of a process.

    `name` is recorded in the chunks that this process claims; `hint` passes a job on to a free
    process.
    """

    name: str
    settings: Settings
    database: Database
    storage: Storage
    engines: Engines
    hint: Callable[[str], object]
    copies: dict[str, Integers] = field(default_factory=dict, compare=False)
    """The number of copies of each row of the balanced job that had the last such chunk here."""


def make(settings: Settings, hint: Callable[[str], object]) -> Process:
    storage = open_storage(settings.storage)
    limits = confined.ModelLimits(settings.model_batch_s, settings.model_memory_mib)
    engines = Engines(storage, copies.artifacts(settings.home), limits)
    return Process(my_name(), settings, connect(settings.database), storage, engines, hint)


@functools.cache
def here() -> Process:
    """The resources of this process, created by its first task.

    The Celery main process never calls this, so that nothing of it is forked.
    """
    app = current_app._get_current_object()
    return make(read_settings(), lambda job_id: send_hint(app, job_id))

"""The Celery side: a prefork pool whose children take hints. The main process opens neither
database nor ONNX Runtime.

A SQLite transaction or an ONNX session made before a fork locks or crashes the children, so each
child makes its own on first use (`worker.process`). The modules are imported before the fork:
children share their memory and start at once.
"""

import logging
import warnings
from functools import partial
from typing import Any

from celery import signals
from celery.exceptions import SecurityWarning

from nelbo import logs
from nelbo.broker import make_app
from nelbo.confinement import limit_memory
from nelbo.processes import Lifeline, end_with_parent
from nelbo.settings import read_settings
from worker import shutdown

MOST_KIB = 700_000
"""A child that holds more resident memory after a task is replaced by a fresh one."""


def main() -> None:
    settings = read_settings()
    logs.configure(settings.log_level)
    lifeline = Lifeline()
    signals.worker_process_init.connect(partial(_child_started, lifeline), weak=False)
    signals.worker_shutting_down.connect(_shutting_down)
    app = make_app(settings, timeout_s=5.0)
    app.conf.update(imports=("worker.tasks",), worker_max_memory_per_child=MOST_KIB)
    app.set_default()
    _quieten()
    app.worker_main(
        [
            "--quiet",
            "worker",
            "--pool=prefork",
            f"--concurrency={settings.worker_processes}",
            f"--loglevel={settings.log_level}",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
        ]
    )


def _quieten() -> None:
    """Celery tells of each hint twice; the runner tells of each chunk."""
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Said to root because of pickle, which this application does not accept.
    warnings.filterwarnings("ignore", category=SecurityWarning)


def _child_started(lifeline: Lifeline, **_: Any) -> None:
    """In a forked child: end when the Celery main process is gone, which Celery's own children may
    not notice."""
    lifeline.drop()
    limit_memory(read_settings().worker_memory_mib)
    end_with_parent(lifeline.reading, grace_s=0.0)


def _shutting_down(**_: Any) -> None:
    """SIGTERM makes Celery wait for its tasks, which see this between two batches and hand their
    chunk back.

    Celery's soft shutdown is of no use here: it always sleeps its whole time-out while a task runs,
    and tells of the shutdown only after that.
    """
    shutdown.announce()


if __name__ == "__main__":
    main()

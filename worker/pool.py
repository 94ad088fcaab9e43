"""The Celery prefork pool, whose children take hints.

The main process opens neither database nor ONNX Runtime. A SQLite transaction or an ONNX session
from before a fork locks or crashes the children, so each child creates its own on first use
(`worker.process`). The modules are imported before the fork, so that the children share their
memory and start at once.
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
"""A child with more resident memory than this after a task is replaced by a fresh one."""


def main() -> None:
    settings = read_settings()
    logs.configure(settings.log_level)
    lifeline = Lifeline()
    signals.worker_process_init.connect(partial(_child_started, lifeline), weak=False)
    signals.worker_shutting_down.connect(_shutting_down)
    app = make_app(settings, timeout_s=5.0)
    app.conf.update(imports=("worker.tasks",), worker_max_memory_per_child=MOST_KIB)
    app.set_default()
    _silence_celery()
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


def _silence_celery() -> None:
    """Celery logs each hint twice, and the runner logs each chunk."""
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Celery warns of pickle under root, but this application does not accept pickle.
    warnings.filterwarnings("ignore", category=SecurityWarning)


def _child_started(lifeline: Lifeline, **_: Any) -> None:
    """In a forked child: end when the main process is gone, which Celery may not notice."""
    lifeline.drop()
    limit_memory(read_settings().worker_memory_mib)
    end_with_parent(lifeline.reading, grace_s=0.0)


def _shutting_down(**_: Any) -> None:
    """Announce the shutdown to running tasks, which then hand their chunk back between two batches.

    After SIGTERM Celery waits for its tasks. Its soft shutdown is of no use here: while a task
    runs, it sleeps its whole time-out, and announces the shutdown only after that.
    """
    shutdown.announce()


if __name__ == "__main__":
    main()

"""Logs: one line per event, with ids and counts as fields; JSON unless output is a terminal.

They never hold row contents or secrets.
"""

import logging
import sys
from typing import TextIO

import structlog
from structlog.stdlib import BoundLogger

STEPS: list[structlog.types.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]


def get(name: str) -> BoundLogger:
    """The logger of a module: `log.info("chunk done", job_id=…, rows=…)`.

    Its lines go through the standard library, so they look like those of other packages.
    """
    steps = [structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs]
    log: BoundLogger = structlog.wrap_logger(
        logging.getLogger(name), processors=steps, wrapper_class=BoundLogger
    )
    return log


def configure(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Write all logs of this process to `stream`, in one format.

    stream: standard error if None.
    """
    stream = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(stream))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # alembic logs each of its plugins in each process.
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _formatter(stream: TextIO) -> logging.Formatter:
    renderer: structlog.types.Processor = structlog.processors.JSONRenderer()
    if stream.isatty():
        renderer = structlog.dev.ConsoleRenderer()
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=STEPS,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )

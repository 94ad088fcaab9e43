"""Logs: one line for each event with ids and counts as fields; JSON where no terminal watches. No
row contents, no secrets."""

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
    """The logger of a module: `log.info("chunk done", job_id=…, rows=…)`. Its lines go through the
    standard library, so they look like those of other packages."""
    steps = [structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs]
    log: BoundLogger = structlog.wrap_logger(
        logging.getLogger(name), processors=steps, wrapper_class=BoundLogger
    )
    return log


def configure(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send what this process logs to `stream` (standard error), in one form."""
    stream = sys.stderr if stream is None else stream
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer() if stream.isatty() else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=STEPS,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # Its plugins introduce themselves to each process.
    logging.getLogger("alembic").setLevel(logging.WARNING)

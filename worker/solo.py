"""`python -P -m worker.solo`: one process that works without a broker.

It ends when no chunk is due, or after a minute.
"""

import signal

from nelbo import logs
from nelbo.confinement import limit_memory
from nelbo.settings import read_settings
from worker import process, runner, shutdown

SLICE_S = 60.0


def main() -> None:
    settings = read_settings()
    logs.configure(settings.log_level)
    limit_memory(settings.worker_memory_mib)
    signal.signal(signal.SIGTERM, lambda *_: shutdown.announce())
    runner.work(process.make(settings, hint=lambda job_id: None), SLICE_S)


if __name__ == "__main__":
    main()

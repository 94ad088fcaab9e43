"""The pulse of a worker's processes: a file that the work itself touches.

Thus a stuck pool does not pass for a healthy one. `worker.app` names the file in an environment
variable, for the processes that work and for the dispatcher that watches it.
"""

import os
import tempfile
import time
from pathlib import Path

VARIABLE = "WORKER_PULSE"
BEAT_S = 1.0
"""The file is touched at most once in this number of seconds."""


def new_file() -> Path:
    """A new file in a folder that only this user can enter."""
    file = Path(tempfile.mkdtemp(prefix="nelbo-worker-")) / "pulse"
    file.touch()
    return file


def beat() -> None:
    """Record that this process works, or that there was nothing to do."""
    if (file := os.environ.get(VARIABLE)) and silence_s() > BEAT_S:
        Path(file).touch()


def silence_s() -> float:
    """Seconds since the last beat of any process of this worker; 0 where no file is named."""
    file = os.environ.get(VARIABLE)
    return max(0.0, time.time() - Path(file).stat().st_mtime) if file else 0.0

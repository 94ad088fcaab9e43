"""Child processes that never outlive their parent, and whether a named process is still alive.

A parent that is killed cannot end its children. Each child therefore watches a pipe, whose writing
end only the parent holds. At end of file the parent is gone, and the child ends itself as after
SIGTERM.
"""

import functools
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from nelbo import programs

ORPHAN_GRACE_S = 25.0
HEALTHY_S = 10.0
"""A child that ran for at least this time is started again at once, any other after a pause."""
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 10.0

LIFELINE = "LIFELINE"
"""Environment variable with the reading end of a confined process's lifeline."""
INHERITED = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
"""The environment variables of a confined process: they locate its code and hold no secret."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Without these, NumPy's libraries start a thread per core."""

NOTHING: Mapping[str, str] = MappingProxyType({})

Life = Literal["alive", "dead", "unknown"]
_NAME = re.compile(r".*\.(?P<namespace>[0-9a-f]{8})\.(?P<started>\d+):(?P<pid>\d+)")


class Lifeline:
    """The pipe. `reading` goes to the children.

    A child that is forked without exec also holds `writing` and must call `drop`.
    """

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()

    def drop(self) -> None:
        os.close(self.writing)

    def close(self) -> None:
        os.close(self.writing)
        os.close(self.reading)


def command(lifeline: Lifeline, module: str, args: Sequence[str] = ()) -> list[str]:
    """`python -P -m module args` under a lifeline. The child must inherit `lifeline.reading`."""
    return [sys.executable, "-P", "-m", "nelbo.processes", str(lifeline.reading), module, *args]


def end_with_parent(reading: int, grace_s: float = ORPHAN_GRACE_S) -> None:
    """Watch the lifeline in a thread.

    At its end this process gets SIGTERM, and exits `grace_s` later if it still runs.
    """
    threading.Thread(target=_watch, args=(reading, grace_s), name="lifeline", daemon=True).start()


def start_confined(
    lifeline: Lifeline,
    module: str,
    args: Sequence[str],
    keep: Sequence[int] = (),
    env: Mapping[str, str] = NOTHING,
    **options: Any,
) -> subprocess.Popen[bytes]:
    """Start `python -P -m module args`. The module must call `confine` and `exit_with_parent`.

    Its environment holds no secret (INHERITED).

    keep: descriptors that stay open. env: further environment variables. options: further
    arguments of Popen.
    """
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
    environment |= ONE_THREAD
    environment |= {LIFELINE: str(lifeline.reading), "ORT_DISABLE_TELEMETRY": "1"}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "nelbo.programs", module, *args],
        pass_fds=(lifeline.reading, *keep),
        env={**environment, **env},
        **options,
    )


def exit_with_parent() -> None:
    """Let a confined process exit as soon as its parent is gone.

    A process that was not started by `start_confined` has no lifeline and is not watched.
    """

    def watch(reading: int) -> None:
        os.read(reading, 1)
        os._exit(1)  # a confined process may not send signals, not even to itself

    if reading := os.environ.get(LIFELINE):
        threading.Thread(target=watch, args=(int(reading),), name="lifeline", daemon=True).start()


@dataclass
class Child:
    """`python -P -m module args` under a lifeline.

    log: file to which its output is appended. keep: descriptors that stay open in the child.
    """

    name: str
    module: str
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    log: Path | None = None
    keep: Sequence[int] = ()
    process: subprocess.Popen[bytes] | None = None
    _pause_s: float = 0.0
    _started: float = 0.0
    _not_before: float = 0.0

    def start(self, lifeline: Lifeline) -> None:
        # In a session of its own the child gets no ^C from the terminal. The parent gets it and
        # ends its children in order.
        output = open(self.log, "ab") if self.log else None  # noqa: SIM115
        try:
            self.process = subprocess.Popen(
                command(lifeline, self.module, self.args),
                cwd=self.cwd,
                env={**os.environ, "PYTHONSAFEPATH": "1", **self.env},
                pass_fds=(lifeline.reading, *self.keep),
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        finally:
            if output:
                output.close()
        self._started = time.monotonic()

    def revive(self, lifeline: Lifeline) -> int | None:
        """Start the child again if it ended and its pause is over.

        Returns the exit status, once, of a child that has ended since the last call.
        """
        now = time.monotonic()
        if self.process is None:
            if now >= self._not_before:
                self.start(lifeline)
            return None
        if (status := self.process.poll()) is not None:
            self.process = None
            self._pause_s = pause_after(now - self._started, self._pause_s)
            self._not_before = now + self._pause_s
        return status

    def end(self, signal_number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(signal_number)


def pause_after(lived_s: float, last_pause_s: float) -> float:
    """Seconds until a child that ended is started again: 0 if it ran well, else a doubled pause."""
    if lived_s >= HEALTHY_S:
        return 0.0
    return min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, last_pause_s * 2))


def keep_running(
    children: Sequence[Child],
    lifeline: Lifeline,
    stop: threading.Event,
    tell: Callable[[Child, int], None],
) -> None:
    """Start the children, and start them again whenever they end, until `stop` is set.

    tell: called with a child that ended and its exit status.
    """
    while True:
        for child in children:
            if (status := child.revive(lifeline)) is not None:
                tell(child, status)
        if stop.wait(0.1):
            return


def end_all(
    children: Sequence[Child], grace_s: float, hurry: threading.Event | None = None
) -> None:
    """Send SIGTERM to all, and SIGKILL to those that still run after `grace_s` seconds.

    SIGKILL is sent at once when `hurry` is set.
    """
    for child in children:
        child.end()
    deadline = time.monotonic() + grace_s
    for child in children:
        while child.process is not None and child.process.poll() is None:
            if time.monotonic() > deadline or (hurry is not None and hurry.is_set()):
                child.end(signal.SIGKILL)
                child.process.wait()
            time.sleep(0.02)


def my_name() -> str:
    """A name that is unique for all time: host name, process namespace, start time, process id."""
    host = socket.gethostname()
    namespace = _namespace()
    started = _start_time(os.getpid())
    if namespace and started:
        host = f"{host}.{namespace}.{started}"
    return f"{host}:{os.getpid()}"


def life(name: str) -> Life:
    """Whether the process with this name (`my_name`) is alive.

    It is unknown for a process of another machine, container or user.
    """
    parts = _NAME.fullmatch(name)
    if parts is None or parts["namespace"] != _namespace():
        return "unknown"
    return "alive" if _start_time(int(parts["pid"])) == parts["started"] else "dead"


@functools.cache
def _namespace() -> str:
    """The machine since its last boot, the PID namespace and the user, as 8 hexadecimal digits.

    Within these a process id means one process, and /proc shows it: it may hide the processes of
    other users. Empty if the system does not tell.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        pids = os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
    return hashlib.sha256(f"{boot}{pids}{os.getuid()}".encode()).hexdigest()[:8]


def _start_time(pid: int) -> str:
    """The start of a process in clock ticks since boot; empty if it is not running.

    psutil gives seconds since 1970, which move with the machine's clock, so /proc is read here.
    """
    try:
        # The name, in brackets, may hold any character. Behind it, the state is the first field and
        # the start time the twentieth.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _watch(reading: int, grace_s: float) -> None:
    os.read(reading, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s)
    os._exit(1)


def main() -> None:
    """`python -P -m nelbo.processes FD MODULE ARGS`: run a module under the lifeline FD."""
    end_with_parent(int(sys.argv[1]))
    programs.run(sys.argv[2:])


if __name__ == "__main__":
    main()

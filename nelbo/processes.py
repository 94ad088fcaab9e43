"""Child processes that never outlive their parent: started, watched, started again, ended in order;
and who still lives.

A parent that is killed cannot end its children, so each child watches a pipe whose writing end the
parent alone holds: end of file means that the parent is gone, and the child ends itself as on
SIGTERM.
"""

import functools
import hashlib
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nelbo import programs

ORPHAN_GRACE_S = 25.0
HEALTHY_S = 10.0
"""A child that lived so long is started again at once; the pauses are for one that dies right after
its start."""
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 10.0

LIFELINE = "LIFELINE"
"""Environment variable with the reading end of a confined process's lifeline."""
INHERITED = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
"""The environment that a confined process gets: where its code is, and no secret."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""For NumPy's libraries, which would otherwise start a thread for each core."""

Life = Literal["alive", "dead", "unknown"]
_NAME = re.compile(r".*\.(?P<place>[0-9a-f]{8})\.(?P<started>\d+):(?P<pid>\d+)")


class Lifeline:
    """The pipe. `reading` goes to the children; whoever is forked without an exec calls `drop` to
    let go of `writing`."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()

    def drop(self) -> None:
        os.close(self.writing)

    def close(self) -> None:
        os.close(self.writing)
        os.close(self.reading)


def command(lifeline: Lifeline, module: str, args: Sequence[str] = ()) -> list[str]:
    """`python -P -m module args` under a lifeline, whose `reading` the child must be passed."""
    return [sys.executable, "-P", "-m", "nelbo.processes", str(lifeline.reading), module, *args]


def end_with_parent(reading: int, grace_s: float = ORPHAN_GRACE_S) -> None:
    """Watch the lifeline from a thread: at its end send this process SIGTERM, and end it for good
    `grace_s` later."""
    threading.Thread(target=_watch, args=(reading, grace_s), name="lifeline", daemon=True).start()


def start_confined(
    lifeline: Lifeline, module: str, args: Sequence[str], keep: Sequence[int] = (), **options: Any
) -> subprocess.Popen[bytes]:
    """Start `python -P -m module args`, a module that confines itself and then calls
    `exit_with_parent`.

    Its environment tells it where its code is, and no secret. `keep` are descriptors that stay
    open; `options` are Popen's.
    """
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "nelbo.programs", module, *args],
        pass_fds=(lifeline.reading, *keep),
        env=environment
        | ONE_THREAD
        | {LIFELINE: str(lifeline.reading), "ORT_DISABLE_TELEMETRY": "1"},
        **options,
    )


def exit_with_parent() -> None:
    """In a confined process: leave at once when the parent is gone. Started as another one, it has
    no lifeline to watch."""

    def watch(reading: int) -> None:
        os.read(reading, 1)
        os._exit(1)  # it could not even send itself a signal

    if reading := os.environ.get(LIFELINE):
        threading.Thread(target=watch, args=(int(reading),), name="lifeline", daemon=True).start()


@dataclass
class Child:
    """`python -P -m module args` under a lifeline. Its output is appended to `log`; `keep` are
    files that it holds open."""

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
        # A session of its own: a ^C at the terminal reaches the parent alone, which ends its
        # children in order.
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
        """Start the child again if it ended and its pause is over; the exit status of one that is
        found ended."""
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
    """Seconds until a child that ended is started again: none where it had run well, else twice the
    last pause."""
    return (
        0.0 if lived_s >= HEALTHY_S else min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, last_pause_s * 2))
    )


def keep_running(
    children: Sequence[Child],
    lifeline: Lifeline,
    stop: threading.Event,
    tell: Callable[[Child, int], None],
) -> None:
    """Start the children and start again whichever ends, after telling of it with its exit status,
    until `stop` is set."""
    while True:
        for child in children:
            if (status := child.revive(lifeline)) is not None:
                tell(child, status)
        if stop.wait(0.1):
            return


def end_all(
    children: Sequence[Child], grace_s: float, hurry: threading.Event | None = None
) -> None:
    """SIGTERM to all, SIGKILL to what is left after `grace_s` seconds or as soon as `hurry` is
    set."""
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
    """A name that no other process has, had or will have: host, where its id means something, own
    start, id."""
    place, started = _place(), _started_at(os.getpid())
    where = (
        f"{socket.gethostname()}.{place}.{started}" if place and started else socket.gethostname()
    )
    return f"{where}:{os.getpid()}"


def life(name: str) -> Life:
    """Whether the process of this name (`my_name`) lives; unknown where it is one of another
    machine or container."""
    known = _NAME.fullmatch(name)
    if known is None or known["place"] != _place():
        return "unknown"
    return "alive" if _started_at(int(known["pid"])) == known["started"] else "dead"


@functools.cache
def _place() -> str:
    """This start of the machine, this PID namespace and this user, in 8 letters: where process ids
    mean the same and all processes can be seen (/proc may hide those of other users). Empty if not
    told."""
    try:
        told = (
            Path("/proc/sys/kernel/random/boot_id").read_text()
            + os.readlink("/proc/self/ns/pid")
            + str(os.getuid())
        )
    except OSError:
        return ""
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def _started_at(pid: int) -> str:
    """When a process was started, in clock ticks since the machine was; empty where it is not (or
    is dead and not reaped)."""
    try:
        # The name, in brackets, may hold anything; state is the first field behind it, the start
        # the twentieth.
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
    """`python -P -m nelbo.processes FD MODULE ARGS`: run the module as `python -m` would, under the
    lifeline FD."""
    reading, module = int(sys.argv[1]), sys.argv[2]
    sys.argv = sys.argv[2:]
    end_with_parent(reading)
    programs.prepare()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

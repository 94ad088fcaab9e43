"""A service to measure: `nelbo up` with its data in a folder, and what its processes use."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from nelbo.client import Client, find_url
from nelbo.settings import Settings
from tests.benchmarks.speed.turns import Run, cpu_s_of
from tests.deadline import until
from tests.processes import command, descendants, forget_peak, peak_mib

NELBO = Path(sys.executable).with_name("nelbo")
MODEL = "adult"
"""The name of the model on the service."""
STOP_S = 60.0


@dataclass(frozen=True)
class Service:
    """A running `nelbo up`. `servers` are processes that it uses and did not start."""

    home: Path
    pid: int
    client: Client
    servers: tuple[int, ...] = ()

    def measured(
        self, work: Callable[[], object], figures: Callable[[float], Mapping[str, float]]
    ) -> Run:
        """A run of work that this process asks of the service."""
        cpu = self._cpu_s()
        began = time.perf_counter()
        work()
        seconds = time.perf_counter() - began
        return Run(figures(seconds), self._cpu_s() - cpu)

    def api_pid(self) -> int:
        [pid] = [pid for pid in self._pids() if " api.app " in command(pid)]
        return pid

    def peak_mib(self) -> float:
        """The most memory that one of the processes has held since `forget_peaks`."""
        return max(map(_peak_mib, self._pids()))

    def forget_peaks(self) -> None:
        for pid in self._pids():
            with suppress(OSError):
                forget_peak(pid)

    def _pids(self) -> set[int]:
        return {self.pid, *descendants(self.pid)}

    def _cpu_s(self) -> float:
        return cpu_s_of([self.pid, *self.servers]) + time.process_time()


def _peak_mib(pid: int) -> float:
    """0 for a process that has ended."""
    try:
        return peak_mib(pid)
    except (OSError, IndexError):
        return 0.0


@contextmanager
def started(
    home: Path, servers: tuple[int, ...] = (), env: Mapping[str, str] | None = None
) -> Iterator[Service]:
    process = start_up(home, env or {})
    try:
        with connected(home) as client:
            yield Service(home, process.pid, client, servers)
    finally:
        stop_up(process)


def start_up(home: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    others = {name: text for name, text in os.environ.items() if not name.startswith("NELBO_")}
    home.mkdir(exist_ok=True)
    with (home.parent / f"{home.name}.output").open("ab") as output:
        return subprocess.Popen(
            [NELBO, "up", "--port", "0"],
            env={**others, "NELBO_HOME": str(home), **env},
            stdout=output,
            stderr=output,
        )


def stop_up(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    process.wait(STOP_S)


def connected(home: Path, pause_s: float = 0.05) -> Client:
    """A client of the `nelbo up` that starts on this folder, as soon as it answers."""
    settings = Settings(home=home, url="")
    url = until(lambda: find_url(settings), "the service", deadline_s=120, pause_s=pause_s)
    return Client(url, settings=settings)

"""Processes of this machine, read from /proc: who lives, and who is whose child."""

import signal
from pathlib import Path


def hear_control_c() -> None:
    """For Popen's preexec_fn: a shell starts what runs in the background with SIGINT ignored, and
    children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def alive(pid: int) -> bool:
    return _state(pid) not in ("", "Z")


def stopped(pid: int) -> bool:
    """Frozen by SIGSTOP."""
    return _state(pid) == "T"


def descendants(pid: int) -> set[int]:
    found = children(pid)
    return found.union(*map(descendants, found))


def children(pid: int) -> set[int]:
    return {
        int(path.name)
        for path in Path("/proc").iterdir()
        if path.name.isdigit() and _parent(int(path.name)) == pid
    }


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def umask(pid: int) -> int:
    """Of a living process."""
    [line] = [
        line
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("Umask:")
    ]
    return int(line.split()[1], 8)


def peak_mib(pid: int) -> float:
    """The most memory that a process has held since it began, or since `forget_peak`."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _state(pid: int) -> str:
    fields = _stat(pid)
    return fields[0] if fields else ""


def _stat(pid: int) -> list[str]:
    """State, parent and more of a process; its name, in brackets before, may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []

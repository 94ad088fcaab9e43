"""A program on the command line: its streams, its signals, and how an error becomes one sentence
and an exit code."""

import contextlib
import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType

from nelbo.errors import NelboError

STOPPED = 128
"""A program that a signal stops has this exit code plus the signal's number: 130 after ^C, 143
after SIGTERM."""
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_signals: list[int] = []
"""Those that asked this process to stop."""


def prepare() -> None:
    """Make standard streams that can be written to, whatever the terminal, and let signals end the
    work in order."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a text stream of Python's own
    for number in _STOPS:
        _handle(number, _stop)


def run(work: Callable[[], object], say: Callable[[str], None]) -> None:
    """Do the work of a program and end it: what failed is told to `say` in one sentence, a stop by
    a signal is not."""
    code, sentence = 0, None
    try:
        work()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        code = STOPPED + signal.SIGINT
    except BrokenPipeError:
        code = 1
    except NelboError as problem:
        code, sentence = problem.exit_code, problem.message
    except Exception as problem:
        code, sentence = 1, _sentence(problem)
    if _signals:  # a library may have turned the stop into an error of its own
        code, sentence = STOPPED + _signals[0], None
    if sentence is not None:
        with contextlib.suppress(OSError):
            say(sentence)
    try:
        code = _flushed(say) or code
    except KeyboardInterrupt:
        code = STOPPED + signal.SIGINT
    _ignore_stops()
    sys.exit(code)


def _sentence(problem: Exception) -> str:
    match problem:
        case MemoryError():
            return "there is not enough memory; make some free, or give a smaller table"
        case OSError():
            if problem.filename is None and problem.errno in _FULL:
                return (
                    "a temporary file or standard output cannot be written:"
                    f" {problem.strerror or problem}"
                )
            where = f"{problem.filename}: " if problem.filename else ""
            return f"{where}{problem.strerror or problem}"
    if "can't allocate memory" in str(problem):  # torch
        return _sentence(MemoryError())
    if os.environ.get("NELBO_LOG_LEVEL", "").upper() == "DEBUG":
        traceback.print_exception(problem)
    return (
        f"a fault of Nelbo itself: {type(problem).__name__}: {problem} (NELBO_LOG_LEVEL=DEBUG"
        " shows where)"
    )


def _flushed(say: Callable[[str], None]) -> int:
    """Write what standard output still holds; 1 where that fails. A reader that is gone needs no
    words."""
    try:
        sys.stdout.flush()
    except OSError as problem:
        if not isinstance(problem, BrokenPipeError):
            with contextlib.suppress(OSError):
                say(f"standard output cannot be written: {problem.strerror}")
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # or Python tries again at its end
        return 1
    return 0


def _open_closed_streams() -> None:
    """Take the numbers 0, 1 and 2 where they are closed, or the next file that is opened gets what
    is printed."""
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(
                os.devnull, flags
            )  # the lowest free number; writing to standard output is then an error
    sys.stdin = sys.stdin or open(0)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8")  # noqa: SIM115


def _handle(number: int, handler: Callable[[int, FrameType | None], object]) -> None:
    if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and a shell's `&` want it
        signal.signal(number, handler)


def _ignore_stops() -> None:
    """The work is done; a signal while Python ends must not make another exit code of it."""
    for number in _STOPS:
        if signal.getsignal(number) is _stop:
            signal.signal(number, signal.SIG_IGN)


def _stop(number: int, frame: FrameType | None) -> None:
    _signals.append(number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(STOPPED + number)

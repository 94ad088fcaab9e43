"""A program on the command line: its streams, its signals and its exit code."""

import contextlib
import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from types import FrameType

from nelbo.errors import NelboError

STOPPED = 128
"""A program that a signal stops has this exit code plus the signal's number.

That is 130 after ^C and 143 after SIGTERM.
"""
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_signals: list[int] = []
"""The signals that asked this process to stop."""


def prepare() -> None:
    """Make the standard streams writable on any terminal, and let signals end the work in order."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        # It is a text stream of Python's own.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    for number in _STOPS:
        _handle(number, _stop)


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """While the block loads modules, a signal ends the program without a word: nothing has begun,
    and a library that is interrupted while it is loaded shows its trace."""
    handled = [number for number in _STOPS if signal.getsignal(number) is _stop]
    for number in handled:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, _stop)


def run(work: Callable[[], object], say: Callable[[str], None]) -> None:
    """Do the work of a program, and exit with its code.

    An error is one sentence for `say`. A stop by a signal is silent.
    """
    code = 0
    sentence = None
    try:
        work()
    except SystemExit as end:
        code = _code_of(end)
    except KeyboardInterrupt:
        code = STOPPED + signal.SIGINT
    except BrokenPipeError:
        code = 1
    except NelboError as problem:
        code = problem.exit_code
        sentence = problem.message
    except Exception as problem:
        code = 1
        sentence = _sentence(problem)

    if _signals:  # a library may have turned the stop into an error of its own
        code = STOPPED + _signals[0]
        sentence = None

    if sentence is not None:
        with contextlib.suppress(OSError):
            say(sentence)

    try:
        code = _flush(say) or code
    except KeyboardInterrupt:
        code = STOPPED + signal.SIGINT
    _ignore_stops()
    sys.exit(code)


def _code_of(end: SystemExit) -> int:
    if isinstance(end.code, int):
        return end.code
    return 0 if end.code is None else 1


def _sentence(problem: Exception) -> str:
    match problem:
        case MemoryError():
            return "there is not enough memory; free some, or use a smaller table"
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
        f"internal error: {type(problem).__name__}: {problem}"
        " (NELBO_LOG_LEVEL=DEBUG prints the traceback)"
    )


def _flush(say: Callable[[str], None]) -> int:
    """Write the rest of standard output. The exit code is 1 if that fails.

    A pipe whose reader has ended is not worth a message.
    """
    try:
        sys.stdout.flush()
    except OSError as problem:
        if not isinstance(problem, BrokenPipeError):
            with contextlib.suppress(OSError):
                say(f"standard output cannot be written: {problem.strerror}")
        # Python would try again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _open_closed_streams() -> None:
    """Open the file descriptors 0, 1 and 2 if they are closed.

    Otherwise the next file that is opened would get one of these numbers, and what is printed.
    """
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # It gets the lowest free number. Writing to standard output is then an error.
            os.open(os.devnull, flags)
    sys.stdin = sys.stdin or open(0)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8")  # noqa: SIM115


def _handle(number: int, handler: Callable[[int, FrameType | None], object]) -> None:
    if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and a shell's `&` ignore some
        signal.signal(number, handler)


def _ignore_stops() -> None:
    """Ignore further signals: the work is done, and its exit code must not change any more."""
    for number in _STOPS:
        if signal.getsignal(number) is _stop:
            signal.signal(number, signal.SIG_IGN)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(STOPPED + number)


def _stop(number: int, frame: FrameType | None) -> None:
    _signals.append(number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(STOPPED + number)

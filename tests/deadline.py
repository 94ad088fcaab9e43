"""Wait for something that other processes do: poll with a deadline, never sleep for a guessed
time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(ask: Callable[[], T], what: str, deadline_s: float = 60.0, pause_s: float = 0.05) -> T:
    """The first true answer of `ask`. Fails, naming `what` and the last answer, when there is none
    in time."""
    end = time.monotonic() + deadline_s
    while not (answer := ask()):
        if time.monotonic() > end:
            raise AssertionError(
                f"waited {deadline_s:.0f} s for {what}; the last answer was {answer!r}"
            )
        time.sleep(pause_s)
    return answer

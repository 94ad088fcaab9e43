"""The progress of a training on standard error."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from .pipeline import Stage

errors = Console(stderr=True, highlight=False)


@contextmanager
def progress_bars(lines: bool = True) -> Iterator[Stage]:
    """A bar for each stage on a terminal; elsewhere one line for each stage, or nothing without
    `lines`."""
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}"),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=errors, disable=not errors.is_terminal) as bars:

        def show(stage: str, done: int, total: int, words: str) -> None:
            if stage not in tasks:
                _fill_last(bars)
                tasks[stage] = bars.add_task(stage, total=None, words=words)
                if lines and not errors.is_terminal:
                    errors.print(f"{stage}: {words}")
            bars.update(tasks[stage], completed=done, total=total or None, words=words)

        try:
            yield show
        finally:
            _fill_last(bars)


def _fill_last(bars: Progress) -> None:
    """Fill the bar of the last stage, which ended whatever its count says."""
    if bars.tasks:
        last = bars.tasks[-1]
        count = last.completed or 1
        bars.update(last.id, total=count, completed=count)

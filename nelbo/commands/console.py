"""What commands print: results on standard output, everything else (progress, notices) on standard
error."""

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from rich.console import Console as Rich
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from nelbo.views import Job


class Tell(Protocol):
    """Told how many are done, and of how many where that is known."""

    def __call__(self, done: int, of: int | None = None, /) -> None: ...


def print_json(text: str) -> None:
    """JSON on standard output, with letters that its encoding lacks escaped as JSON does it."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        text = re.sub(r"[^\x00-\x7f]", lambda letter: json.dumps(letter[0])[1:-1], text)
    print(text)


def of_job(tell: Tell) -> Callable[[Job], None]:
    """Tells of a job's rows, for `Job.wait`."""
    return lambda view: tell(view.progress.rows_done, view.progress.rows)


@dataclass
class Console:
    """Where a command speaks. With `json` its one result is a JSON object on standard output."""

    json: bool = False
    _told: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.errors = Rich(stderr=True, highlight=False, soft_wrap=True)

    def say(self, text: str = "") -> None:
        """A line beside the result."""
        self.errors.print(text, markup=False)

    def notices(self, texts: Iterable[str]) -> None:
        """What a user may want to know; each is said once."""
        for text in texts:
            if text not in self._told:
                self._told.add(text)
                self.say(f"note: {text}")

    def result(self, found: Mapping[str, Any], words: str | None = None) -> None:
        """The result: as JSON on standard output, else in words (or not at all)."""
        if self.json:
            print_json(json.dumps(found, ensure_ascii=False))
        elif words is not None:
            print(words)

    def table(
        self, head: Sequence[str], rows: Iterable[Iterable[object]], beside: bool = False
    ) -> None:
        """A table on standard output, or beside it on standard error; numbers to the right."""
        shown = Table(box=None, pad_edge=False, header_style="bold")
        cells = [[_cell(cell) for cell in row] for row in rows]
        for at, name in enumerate(head):
            told = [row[at] for row in cells if row[at]]
            numeric = bool(told) and all(
                text.replace(",", "").replace(".", "", 1).isdigit() for text in told
            )
            shown.add_column(name, justify="right" if numeric else "left", overflow="fold")
        for row in cells:
            shown.add_row(*row)
        out = Rich(highlight=False, markup=False, stderr=beside)
        if not out.is_terminal:
            out = Rich(highlight=False, markup=False, stderr=beside, width=_width(head, cells))
        out.print(shown)

    @contextmanager
    def progress(self, doing: str, unit: str = "rows") -> Iterator[Tell]:
        """A bar with the time that is left on a terminal; elsewhere a line at the start and one at
        the end."""
        if self.errors.is_terminal:
            with _bar(self.errors, unit) as bar:
                task = bar.add_task(doing, total=None)

                def show(done: int, of: int | None = None) -> None:
                    bar.update(task, completed=done, total=of)

                yield show
                bar.update(task, total=bar.tasks[0].completed)
            return
        self.say(f"{doing} ...")
        began, last = time.monotonic(), 0

        def keep(done: int, of: int | None = None) -> None:
            nonlocal last
            last = done

        yield keep
        self.say(f"{doing}: {last:,} {unit} in {time.monotonic() - began:.1f} s")

    @contextmanager
    def waiting(self, doing: str) -> Iterator[None]:
        """A sign of life while something takes a moment that cannot be measured."""
        if self.errors.is_terminal:
            with self.errors.status(doing, spinner=_spinner(self.errors)):
                yield
        else:
            yield


def _bar(console: Rich, unit: str) -> Progress:
    columns = (
        TextColumn("{task.description}", markup=False),
        SpinnerColumn(_spinner(console)),
        BarColumn(),
        *((DownloadColumn(),) if unit == "bytes" else (MofNCompleteColumn(), TextColumn(unit))),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console)


def _spinner(console: Rich) -> str:
    return "dots" if console.encoding.startswith("utf") else "line"


def _cell(cell: object) -> str:
    match cell:
        case None:
            return ""
        case bool():
            return "yes" if cell else "no"
        case int():
            return f"{cell:,}"
        case float():
            return f"{cell:,.4g}"
    return str(cell)


def _width(head: Sequence[str], cells: Sequence[Sequence[str]]) -> int:
    """Wide enough for every cell: a pipe has no width to fold to."""
    return (
        sum(max(len(text) for text in column) + 2 for column in zip(head, *cells, strict=True)) + 2
    )


def when(seconds: float | None) -> str:
    """A time in UTC, to the second."""
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"

"""What commands print: the result on standard output, progress and notices on standard error."""

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

SHOWN_CHARACTERS = 30
"""Number of characters of a cell of a user's table that are shown."""


class Tell(Protocol):
    """Shows how many are done, and the total if it is known."""

    def __call__(self, done: int, total: int | None = None, /) -> None: ...


def print_json(text: str) -> None:
    """Print JSON. Letters that the encoding of standard output lacks are escaped."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        text = re.sub(r"[^\x00-\x7f]", lambda letter: json.dumps(letter[0])[1:-1], text)
    print(text)


def of_job(tell: Tell) -> Callable[[Job], None]:
    """A callback for `JobHandle.wait` that shows how many rows are done."""
    return lambda view: tell(view.progress.rows_done, view.progress.rows)


@dataclass
class Console:
    """The output of a command. With `json`, the result is one JSON object on standard output."""

    json: bool = False
    _noticed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.errors = Rich(stderr=True, highlight=False, soft_wrap=True)

    def say(self, text: str = "") -> None:
        """Print a line on standard error."""
        self.errors.print(text, markup=False)

    def notices(self, texts: Iterable[str]) -> None:
        """Print notes on standard error. A note is printed only once."""
        for text in texts:
            if text not in self._noticed:
                self._noticed.add(text)
                self.say(f"note: {text}")

    def result(self, content: Mapping[str, Any], words: str | None = None) -> None:
        """Print the result on standard output: the content with --json, otherwise the words."""
        if self.json:
            print_json(json.dumps(content, ensure_ascii=False))
        elif words is not None:
            print(words)

    def table(
        self, head: Sequence[str], rows: Iterable[Iterable[object]], beside: bool = False
    ) -> None:
        """Print a table on standard output, or with `beside` on standard error."""
        cells = [[_cell(cell) for cell in row] for row in rows]
        layout = Table(box=None, pad_edge=False, header_style="bold")
        for index, name in enumerate(head):
            numeric = _are_numbers([row[index] for row in cells])
            layout.add_column(name, justify="right" if numeric else "left", overflow="fold")
        for row in cells:
            layout.add_row(*row)

        out = Rich(highlight=False, markup=False, stderr=beside)
        if not out.is_terminal:
            out = Rich(highlight=False, markup=False, stderr=beside, width=_width(head, cells))
        out.print(layout)

    @contextmanager
    def progress(self, doing: str, unit: str = "rows") -> Iterator[Tell]:
        """Show the progress of some work on standard error.

        On a terminal this is a bar with the remaining time; elsewhere it is a line at the start and
        a line at the end.
        """
        if self.errors.is_terminal:
            with _bar(self.errors, unit) as bar:
                task = bar.add_task(doing, total=None)
                yield lambda done, total=None: bar.update(task, completed=done, total=total)
                bar.update(task, total=bar.tasks[0].completed)
            return

        began = time.monotonic()
        count = 0

        def keep(done: int, _total: int | None = None) -> None:
            nonlocal count
            count = done

        self.say(f"{doing} ...")
        yield keep
        self.say(f"{doing}: {count:,} {unit} in {time.monotonic() - began:.1f} s")

    @contextmanager
    def waiting(self, doing: str) -> Iterator[None]:
        """Show a spinner on a terminal, for work without a measurable progress."""
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


def _are_numbers(texts: Sequence[str]) -> bool:
    """Whether all texts that are not empty are numbers, and there is one."""
    filled = [text.replace(",", "").replace(".", "", 1) for text in texts if text]
    return bool(filled) and all(text.isdigit() for text in filled)


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


def cut(text: str | None) -> str:
    """The text of a table's cell, no longer than SHOWN_CHARACTERS."""
    if text is None:
        return "missing"
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"


def score_figure(score: float) -> str:
    """A surprise, a nelbo or a term: one decimal, and an exponent where it is huge."""
    return f"{score:.1f}" if abs(score) < 1e7 else f"{score:.2g}"


def _width(head: Sequence[str], cells: Sequence[Sequence[str]]) -> int:
    """A width for all cells: the text in a pipe is not folded."""
    columns = zip(head, *cells, strict=True)
    return sum(max(len(text) for text in column) + 2 for column in columns) + 2


def when(seconds: float | None) -> str:
    """A time in UTC, to the second."""
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"

"""The rows that could not be done: their number, the first of them, and a file with all of them."""

import json
import os
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from nelbo.errors import InvalidInput
from nelbo.files import open_target
from nelbo.rows import RowError

SHOWN = 3


@dataclass
class RowErrors:
    """Collects the rows that could not be done. Use it in a `with` statement.

    file: receives one JSON object for each of these rows. It must not be `output`, the file of the
    command's results.
    """

    file: Path | None = None
    output: str | None = None
    count: int = 0
    first: list[RowError] = field(default_factory=list)
    _reasons: Counter[tuple[str | None, str]] = field(default_factory=Counter)
    _messages: dict[tuple[str | None, str], str] = field(default_factory=dict)
    _closing: ExitStack = field(default_factory=ExitStack)
    _open: BinaryIO | None = None

    def add(self, errors: Iterable[RowError]) -> None:
        for error in errors:
            self.count += 1
            if len(self.first) < SHOWN:
                self.first.append(error)
            reason = (error.column, error.code)
            self._reasons[reason] += 1
            self._messages.setdefault(reason, error.message)
            if self._open is not None:
                line = json.dumps(error.model_dump(), ensure_ascii=False)
                self._open.write(line.encode(errors="backslashreplace") + b"\n")

    def words(self) -> list[str]:
        """Lines for the user; none if all rows could be done."""
        if not self.count:
            return []
        rows = "1 row" if self.count == 1 else f"{self.count:,} rows"
        lines = [f"{rows} could not be done"]
        lines += [f"  row {error.row}: {error.message}" for error in self.first]
        if self.count > SHOWN:
            advice = "" if self.file else "; --errors FILE writes them all to a file"
            lines.append(f"  and {self.count - SHOWN:,} more{advice}")
        return lines

    def check(self, done: int) -> None:
        """Raise InvalidInput with the most frequent reason if no row could be done.

        done: number of rows that could be done.
        """
        if done or not self.count:
            return
        reason, rows = self._reasons.most_common(1)[0]
        if self.count == 1:
            raise InvalidInput(
                f"the only row could not be done, so there is no output: {self._messages[reason]}"
            )
        advice = "" if self.file else "; --errors FILE writes the reason for each row to a file"
        raise InvalidInput(
            f"none of the {self.count:,} rows could be done, so there is no output."
            f" Most frequent reason ({rows:,} rows): {self._messages[reason]}{advice}"
        )

    def __enter__(self) -> Self:
        if self.file is not None:
            if self.output is not None:
                _check_differ(self.file, self.output)
            self._open = self._closing.enter_context(open_target(self.file))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.__exit__(kind, error, trace)


def _check_differ(errors: Path, output: str) -> None:
    if os.path.realpath(errors) == os.path.realpath(output):
        raise InvalidInput(f"--output and --errors both name {errors}; name two files")

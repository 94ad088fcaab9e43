"""Rows that could not be done: counted, the first of them shown, all of them written where someone
asked for it."""

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
class Faults:
    """Use it in a `with`. `file` gets one JSON object a row, and is empty where every row could be
    done; it must not be the command's `output`.
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
        """Lines that tell a user; none where there are no faults."""
        if not self.count:
            return []
        lines = [
            f"{self.count:,} rows could not be done"
            if self.count > 1
            else "1 row could not be done"
        ]
        lines += [f"  row {error.row}: {error.message}" for error in self.first]
        if self.count > SHOWN:
            lines.append(
                f"  and {self.count - SHOWN:,} more"
                + ("" if self.file else "; --errors FILE writes them all")
            )
        return lines

    def check(self, done: int) -> None:
        """Raise InvalidInput, with the most frequent reason, where there were rows and none of them
        could be done."""
        if done or not self.count:
            return
        reason, rows = self._reasons.most_common(1)[0]
        if self.count == 1:
            raise InvalidInput(
                f"the only row could not be done, so there is no output: {self._messages[reason]}"
            )
        more = "" if self.file else "; --errors FILE writes the reason of each row"
        raise InvalidInput(
            f"none of the {self.count:,} rows could be done, so there is no output. Most frequent"
            f" reason ({rows:,} rows):"
            f" {self._messages[reason]}{more}"
        )

    def __enter__(self) -> Self:
        if self.file is not None:
            if self.output is not None and os.path.realpath(self.file) == os.path.realpath(
                self.output
            ):
                raise InvalidInput(f"--output and --errors both name {self.file}; name two files")
            self._open = self._closing.enter_context(open_target(self.file))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.__exit__(kind, error, trace)

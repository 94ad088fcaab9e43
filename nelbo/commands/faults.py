"""Rows that could not be done: counted, the first of them shown, all of them written where someone asked for it."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TextIO

from nelbo.errors import InvalidInput

SHOWN = 3


class Fault(Protocol):
    """A row that could not be done, as the engine and the service tell of it."""

    @property
    def row(self) -> int: ...
    @property
    def column(self) -> str | None: ...
    @property
    def code(self) -> str: ...
    @property
    def message(self) -> str: ...


@dataclass
class Faults:
    """Use it in a `with`. `file` gets one JSON object a row, and is empty where every row could be done."""

    file: Path | None = None
    count: int = 0
    first: list[Fault] = field(default_factory=list)
    _open: TextIO | None = None

    def add(self, faults: Iterable[Fault]) -> None:
        for fault in faults:
            self.count += 1
            if len(self.first) < SHOWN:
                self.first.append(fault)
            if self._open is not None:
                found = {"row": fault.row, "column": fault.column, "code": fault.code, "message": fault.message}
                self._open.write(json.dumps(found, ensure_ascii=False) + "\n")

    def words(self) -> list[str]:
        """Lines that tell a user; none where there are no faults."""
        if not self.count:
            return []
        lines = [f"{self.count:,} rows could not be done" if self.count > 1 else "1 row could not be done"]
        lines += [f"  row {fault.row}: {fault.message}" for fault in self.first]
        if self.count > SHOWN:
            lines.append(f"  and {self.count - SHOWN:,} more" + ("" if self.file else "; --errors FILE writes them all"))
        return lines

    def __enter__(self) -> Self:
        if self.file is not None:
            try:
                self._open = self.file.open("w", encoding="utf-8")
            except OSError as problem:
                raise InvalidInput(f"{self.file} cannot be written: {problem.strerror}") from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._open is not None:
            self._open.close()

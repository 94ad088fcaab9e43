"""Measuring in turns: A B A B …, so that the machine's other work falls on both sides alike."""

import math
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.processes import descendants

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Run:
    """One run of one side: its figures by name, and the CPU seconds of all its processes."""

    figures: Mapping[str, float]
    cpu_s: float


Side = Callable[[], Run]


@dataclass(frozen=True)
class Spread:
    """The median, the least and the greatest of some figures."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, figures: Iterable[float]) -> "Spread":
        ordered = sorted(figures)
        return cls(statistics.median(ordered), ordered[0], ordered[-1])

    def __str__(self) -> str:
        if self.least == self.greatest:
            return short(self.median)
        return f"{short(self.median)} ({short(self.least)}–{short(self.greatest)})"


@dataclass(frozen=True)
class Goal:
    """Bounds of a ratio, or of Nelbo's own figure."""

    least: float = -math.inf
    greatest: float = math.inf
    of_ratio: bool = True

    def is_met(self, figure: float) -> bool:
        return self.least <= figure <= self.greatest

    def __str__(self) -> str:
        times = " ×" if self.of_ratio else ""
        if self.greatest == math.inf:
            return f"≥ {self.least:,g}{times}"
        if self.least == -math.inf:
            return f"≤ {self.greatest:,g}{times}"
        return f"{self.least:g}–{self.greatest:g}{times}"


@dataclass(frozen=True)
class Line:
    """A line of the table: a figure of Nelbo in each turn, and that of what ran beside it.

    `beside` says what that was; without it, Nelbo ran alone.
    """

    measure: str
    unit: str
    ours: Sequence[float]
    ours_cpu_s: Sequence[float]
    beside: str = ""
    theirs: Sequence[float] = ()
    theirs_cpu_s: Sequence[float] = ()
    goal: Goal | None = None
    note: str = ""

    @property
    def ratio(self) -> Spread | None:
        """Nelbo's figure divided by the other one of the same turn."""
        return _ratio(self.ours, self.theirs)

    @property
    def cpu_ratio(self) -> Spread | None:
        return _ratio(self.ours_cpu_s, self.theirs_cpu_s)

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is met, by the median; None without a goal."""
        spread = self.ratio if self.goal and self.goal.of_ratio else Spread.of(self.ours)
        return None if self.goal is None or spread is None else self.goal.is_met(spread.median)

    def to_json(self) -> dict[str, Any]:
        return {
            "measure": self.measure,
            "unit": self.unit,
            "nelbo": list(self.ours),
            "nelbo_cpu_s": list(self.ours_cpu_s),
            "beside": self.beside,
            "theirs": list(self.theirs),
            "theirs_cpu_s": list(self.theirs_cpu_s),
            "ratio": self.ratio.median if self.ratio else None,
            "goal": str(self.goal or ""),
            "is_met": self.is_met,
            "note": self.note,
        }


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread | None:
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=False) if b > 0]
    return Spread.of(a / b for a, b in pairs) if pairs else None


def in_turns(times: int, *sides: Side) -> list[list[Run]]:
    """The runs of each side: each side runs once, then each a second time, …"""
    turns = [[side() for side in sides] for _ in range(times)]
    return [list(runs) for runs in zip(*turns, strict=True)]


def line(
    measure: str,
    unit: str,
    figure: str,
    ours: Sequence[Run],
    theirs: Sequence[Run] = (),
    beside: str = "",
    goal: Goal | None = None,
    note: str = "",
) -> Line:
    """The line of one figure of the runs."""
    return Line(
        measure=measure,
        unit=unit,
        ours=[run.figures[figure] for run in ours],
        ours_cpu_s=[run.cpu_s for run in ours],
        beside=beside,
        theirs=[run.figures[figure] for run in theirs],
        theirs_cpu_s=[run.cpu_s for run in theirs],
        goal=goal,
        note=note,
    )


def timed(work: Callable[[], object], figures: Callable[[float], Mapping[str, float]]) -> Run:
    """A run of work in this process. `figures` makes them of its wall seconds."""
    cpu = time.process_time()
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    return Run(figures(seconds), time.process_time() - cpu)


def cpu_s_of(roots: Iterable[int]) -> float:
    """CPU seconds of these processes, of all that they started and of those that have ended."""
    pids = set(roots)
    pids = pids.union(*map(descendants, pids))
    return sum(map(_cpu_s, pids))


def _cpu_s(pid: int) -> float:
    """With the time of its children that have ended, but not of those that run."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / TICKS
    return 0.0


# Arithmetic


def quantile(figures: Sequence[float], share: float) -> float:
    """The least figure that at least this share of the figures does not exceed."""
    ordered = sorted(figures)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def slope(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The slope of the least-squares line of log seconds on log size: 1 if twice the rows take
    twice the time."""
    x = [math.log(size) for size in sizes]
    y = [math.log(second) for second in seconds]
    return statistics.linear_regression(x, y).slope


def short(figure: float) -> str:
    """Three digits that matter: 48,100, 4.81, .481."""
    if figure == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(figure)))
    text = f"{round(figure, digits):,.{max(0, digits)}f}"
    return text.removeprefix("0") if text.startswith("0.") else text

"""The arithmetic of the table of speed: turns, spreads, ratios, goals, quantiles and slopes."""

import subprocess
import sys

import pytest

from tests.benchmarks.speed.turns import (
    Goal,
    Line,
    Run,
    Side,
    Spread,
    cpu_s_of,
    in_turns,
    line,
    quantile,
    short,
    slope,
    timed,
)
from tests.deadline import until


def test_the_sides_run_in_turns() -> None:
    order: list[str] = []

    def side(name: str) -> Side:
        def run() -> Run:
            order.append(name)
            return Run({"number": len(order)}, 0.0)

        return run

    ours, theirs = in_turns(2, side("a"), side("b"))
    assert order == ["a", "b", "a", "b"]
    assert [run.figures["number"] for run in ours] == [1, 3]
    assert [run.figures["number"] for run in theirs] == [2, 4]


def runs(*figures: float) -> list[Run]:
    return [Run({"rows/s": figure}, 2.0) for figure in figures]


def test_the_ratio_is_the_median_of_those_of_the_turns() -> None:
    """Not the ratio of the medians, here 30 / 50: the machine was slow for both in the first
    turn."""
    measured = line("a job", "rows/s", "rows/s", runs(5, 40, 30), runs(10, 50, 60), "a loop")
    assert measured.ratio == Spread(0.5, 0.5, 0.8)
    assert measured.cpu_ratio == Spread(1.0, 1.0, 1.0)


def test_a_line_without_another_side_has_no_ratio() -> None:
    alone = line("a fit", "s", "rows/s", runs(4), goal=Goal(greatest=5, of_ratio=False))
    assert alone.ratio is None
    assert alone.is_met
    assert line("a fit", "s", "rows/s", runs(4)).is_met is None


@pytest.mark.parametrize(
    ("goal", "text", "met"),
    [
        (Goal(0.5), "≥ 0.5 ×", True),
        (Goal(0.51), "≥ 0.51 ×", False),
        (Goal(greatest=0.5), "≤ 0.5 ×", True),
        (Goal(110_000, of_ratio=False), "≥ 110,000", False),
        (Goal(0.95, 1.05, of_ratio=False), "0.95–1.05", True),
    ],
)
def test_a_goal_bounds_the_ratio_or_the_figure(goal: Goal, text: str, met: bool) -> None:
    measured = Line("", "", [1.0], (), "a loop", [2.0], (), goal)
    assert str(goal) == text
    assert measured.is_met is met


def test_a_quantile_is_a_figure_that_the_share_does_not_exceed() -> None:
    figures = list(range(100, 0, -1))
    assert quantile(figures, 0.5) == 50
    assert quantile(figures, 0.99) == 99
    assert quantile([7.0], 0.99) == 7


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_slope_is_the_power_of_the_rows(power: float) -> None:
    sizes = [1e5, 1e6, 1e7]
    assert slope(sizes, [3 * size**power for size in sizes]) == pytest.approx(power)


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (48_123.0, "48,100"),
        (481.2, "481"),
        (4.812, "4.81"),
        (0.4812, ".481"),
        (0.004812, ".00481"),
        (99.96, "100.0"),
        (0.0, "0"),
    ],
)
def test_figures_have_three_digits(figure: float, text: str) -> None:
    assert short(figure) == text


def test_a_spread_shows_one_figure_if_all_are_equal() -> None:
    assert str(Spread.of([3.0, 1.0, 2.0])) == "2.00 (1.00–3.00)"
    assert str(Spread.of([2.0])) == "2.00"


BURN = "import time\nwhile time.process_time() < 0.3: pass\n"
WAIT = BURN + "import sys; sys.stdin.read()"
PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {BURN!r}])
subprocess.Popen([sys.executable, "-c", {WAIT!r}], stdin=subprocess.PIPE)
sys.stdin.read()
"""


def test_the_time_of_running_and_ended_children_counts() -> None:
    """A little less than theirs, because the system counts in ticks."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE) as parent:
        until(lambda: cpu_s_of([parent.pid]) > 0.5, "both children to have used their time")


def test_work_in_this_process_is_timed_by_the_clock_and_by_the_processor() -> None:
    run = timed(lambda: sum(range(300_000)), lambda seconds: {"s": seconds})
    assert run.figures["s"] > 0
    assert 0 < run.cpu_s < 10

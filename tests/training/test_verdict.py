"""The verdict says in words which columns and pairs are like the real ones, and which are not."""

import numpy as np
import pytest

from nelbo.schema import Column
from training.data import Rows
from training.evaluate import Evaluation
from training.report.figures import Marginal, Pair
from training.report.verdict import Verdict, verdict

NONE = Rows(np.empty((0, 1)), np.empty((0, 0), dtype=np.int64))


def column(name: str, off: float, constant: bool = False, missing: float = 0.0) -> Marginal:
    return Marginal(
        column=Column(name=name, kind="continuous"),
        off=off,
        floor=2.0,
        missing=(0.0, missing),
        constant=constant,
        shape=None,
    )


def pair(real: float, synthetic: float, floor: float = 0.02) -> Pair:
    return Pair(("sbp", "dbp"), "rank correlation", real, synthetic, floor)


def words(
    marginals: list[Marginal] | None = None, pairs: list[Pair] | None = None, **metrics: float
) -> Verdict:
    return verdict(Evaluation(metrics, NONE, NONE, NONE), marginals or [], pairs or [])


def test_columns_near_their_floor_look_like_the_real_ones() -> None:
    assert words([column("a", 1.0), column("b", 6.9)]).columns == "All look like the real ones."


def test_columns_that_are_off_and_those_that_cannot_be_used_are_named() -> None:
    columns = [column("a", 1), column("sex", 12), column("title", 100, True, 1.0)]
    columns += [column("cost", 2, True), column("date", 40)]
    assert words(columns).columns == (
        "1 of 5 look like the real ones. Somewhat off: sex (12.0 % off). Do not use the generated"
        " values of title (always missing), date (40.0 % off) and cost (always the same)."
    )


def test_of_many_columns_the_worst_are_named() -> None:
    columns = [column(f"c{i}", 10 + i) for i in range(9)]
    assert words(columns).columns == (
        "0 of 9 look like the real ones. Somewhat off: c8 (18.0 % off), c7 (17.0 % off), c6 (16.0 %"
        " off), c5 (15.0 % off), c4 (14.0 % off) and 4 more."
    )


def test_pairs_that_agree_are_counted_and_the_worst_one_is_named() -> None:
    pairs = [pair(0.84, -0.11), pair(0.5, 0.45)]
    assert words(pairs=pairs).pairs == (
        "1 of 2 go together as in the real table. The worst pair is sbp and dbp: its association is"
        " 0.84 in real rows and −0.11 in generated ones."
    )
    assert words(pairs=pairs[1:]).pairs == (
        "All go together as in the real table: no association differs by more than 0.05."
    )
    assert words().pairs == "The table has a single column."


def test_a_difference_that_fresh_rows_have_too_is_no_fault() -> None:
    assert words(pairs=[pair(0.5, 0.3)]).pairs.startswith("0 of 1 ")
    assert words(pairs=[pair(0.5, 0.3, floor=0.08)]).pairs.startswith("All ")


@pytest.mark.parametrize(
    ("auc", "tells"),
    [(0.5, "hardly tells"), (0.7, "partly tells"), (0.8, "mostly tells"), (1, "nearly always")],
)
def test_the_auc_is_told_in_cases_of_a_hundred(auc: float, tells: str) -> None:
    rows = words(detect_auc=auc).rows
    assert rows.startswith(f"A classifier {tells}")
    assert f"picks the generated one in {100 * auc:.0f} of 100 cases" in rows
    assert "always the same" not in rows


def test_constant_columns_that_decide_the_auc_are_set_apart() -> None:
    assert words(detect_auc=1.0, detect_auc_varied=0.66).rows.endswith(
        "Columns that are always the same decide this: without them, it does in 66 of 100."
    )
    assert "decide" not in words(detect_auc=0.66, detect_auc_varied=0.64).rows
    assert words().rows == "Not measured."

"""Rankings come from what the commands write, ties share ranks, and peers see what they should."""

import numpy as np
import pandas as pd
import pytest

from tests.benchmarks.dirty import beaten, checks
from tests.benchmarks.ranking import (
    Ranking,
    false_alarms,
    first_rows,
    from_cells,
    from_scores,
    measure,
    one_hot,
    peers,
)

KEY = pd.DataFrame(
    {"row": [0, 3, 5], "kind": ["swap", "typo", "typo"], "column": ["a<>b", "city", "city"]}
)


def test_rows_are_ranked_by_surprise_where_the_scores_have_it() -> None:
    scores = pd.DataFrame({"row": [0, 1, 2], "nelbo": [3.0, 2, 1], "term_a": [2.0, 1, 1]})
    scores["p_value"] = 1.0
    scores["term_b"] = [1.0, 1, 2]
    assert from_scores(scores, 3).scores.tolist() == [3, 2, 1]
    assert from_scores(scores, 3).first == {0: "a", 1: "a", 2: "b"}
    surprises = scores.assign(surprise=[1.0, 2, 3], surprise_a=[0.0, 0, 0], surprise_b=[1.0, 1, 1])
    assert from_scores(surprises, 3).scores.tolist() == [1, 2, 3]
    assert set(from_scores(surprises, 3).first.values()) == {"b"}


def test_a_row_that_is_refused_comes_first_and_has_no_first_cell() -> None:
    scores = pd.DataFrame({"row": [0, 2], "nelbo": [7.0, 5], "kl": [0.0, 0], "term_a": [1.0, 2]})
    scores["p_value"] = 1.0
    ranking = from_scores(scores, 3)
    assert ranking.scores.tolist() == [7, 8, 5]
    assert ranking.refused == 1
    assert 1 not in ranking.first


def test_cells_of_a_row_are_joined_and_rows_that_are_not_listed_come_last() -> None:
    cells = pd.DataFrame(
        {
            "row": [2, 2, 0],
            "surprise": [1.0, 4, 2],
            "column": ["a", "b", "c"],
            "value": ["", "", ""],
        }
    )
    ranking = from_cells(cells, 4)
    assert ranking.scores.tolist() == [2, -np.inf, 4, -np.inf]
    assert ranking.first == {2: "b", 0: "c"}


def test_rows_that_tie_share_the_last_ranks() -> None:
    assert first_rows(np.array([3.0, 1, 1, 2, 1]), 3).tolist() == pytest.approx(
        [1, 1 / 3, 1 / 3, 1, 1 / 3]
    )
    assert first_rows(np.array([5.0, -np.inf, -np.inf]), 2).tolist() == [1, 0, 0]


def test_a_measure_of_one_kind_leaves_out_the_errors_of_the_others() -> None:
    ranking = Ranking(np.array([6.0, 0, 1, 9, 2, 0.5]), {0: "b", 3: "city", 5: "a"})
    by_kind = measure(ranking, KEY).set_index("kind")
    assert by_kind.loc["swap", "auroc"] == 100
    assert by_kind.loc["typo", "auroc"] == pytest.approx(100 * 4 / 6)
    assert by_kind.loc["all", "recall"] == pytest.approx(2 / 3)
    assert by_kind.loc["typo", "recall"] == 0.5
    assert by_kind.loc["swap", "located"] == 1
    assert by_kind.loc["typo", "located"] == 0.5


def table(**columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(columns, dtype=str)


def test_peers_see_unknown_and_missing_cells_and_dates_as_days() -> None:
    train = table(city=["Rome"] * 3 + ["Oslo"], day=["2020-01-0" + day for day in "1357"])
    test = table(city=["Oslo", "Osol", ""], day=["2020-01-04", "", "2020-01-14"])
    _, judged = one_hot(train, test)
    step = 5**0.5  # the standard deviation of the days
    assert judged == pytest.approx(
        np.array([[0, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 1], [0, 0, 0, 1, 10 / step, 0]])
    )


def test_a_row_of_the_training_table_is_no_neighbour_of_itself() -> None:
    numbers = table(x=[str(i) for i in range(40)] + ["500"])
    scores = peers(numbers, None, 0)["kNN5"].scores
    assert scores.argmax() == 40
    assert scores.min() > 0


def test_the_checks_name_seldom_missing_cells_and_seldom_held_categories() -> None:
    rows = 30
    dirty = table(
        city=["Rome"] * 14 + ["Rmoe", ""] + ["Oslo"] * 14,
        number=[str(i) for i in range(rows)],
        gaps=["", "yes", "no"] * 10,
    )
    named = {
        name: np.flatnonzero(np.isfinite(check.scores)) for name, check in checks(dirty).items()
    }
    assert named["check: missing"].tolist() == [15]
    assert named["check: rare"].tolist() == [14]


def test_a_kind_where_a_check_has_a_higher_recall_is_listed() -> None:
    perfect = np.isin(np.arange(6), KEY["row"]).astype(float)
    results = pd.concat(
        measure(Ranking(scores, {}), KEY).assign(table="t", method=method)
        for method, scores in (
            ("nelbo", np.array([1.0, 0, 0, 0, 0, 0])),
            ("check: rare", np.where(perfect > 0, 1, -np.inf)),
        )
    )
    assert list(beaten(results)) == ["t, typo: check: rare 1.00, nelbo 0.40"]


def test_false_alarms_are_counted_among_rows_without_an_error() -> None:
    p_values = np.linspace(0, 1, 1_003)
    p_values[KEY["row"]] = 0.0
    ranking = Ranking(-p_values, {}, p_values=p_values, calibration_rows=1_000)
    assert false_alarms(ranking, KEY)["alarms 0.05"] == pytest.approx(0, abs=0.5)
    twice = Ranking(-p_values, {}, p_values=p_values / 2, calibration_rows=1_000)
    assert false_alarms(twice, KEY)["alarms 0.05"] == pytest.approx(5.1, abs=0.5)

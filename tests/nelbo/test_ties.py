"""Laws of ties: what is kept stays, what is drawn goes with its row, and a row's category depends
on its own cells and numbers alone."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from nelbo.artifact import check_manifest
from nelbo.encoding import Encoded, as_modelled
from nelbo.errors import InvalidArtifact
from nelbo.schema import Column, Schema
from nelbo.ties import Tie, Ties
from tests.artifacts import linear_artifact

PLANES = tuple((f"plane {at}", 9) for at in range(12))
SCHEMA = Schema(
    columns=(
        Column(name="carrier", kind="categorical", categories=("a", "b", "c")),
        Column(name="plane", kind="categorical", categories=("p", "q"), rarer=PLANES),
        Column(name="maker", kind="categorical", categories=("m", "n")),
        *(Column(name=f"other {at}", kind="integer") for at in range(4)),
        Column(name="seats", kind="integer"),
    )
)
CODES = np.array([0, 1, *range(4, 16)])
"""The planes. Carriers are those of plane % 2, so that the third has none; makers those of
plane % 4 // 2."""
TIES = Ties(
    {
        "plane": (
            Tie.of("carrier", (), np.stack([CODES, CODES % 2, CODES + 5], axis=1)),
            Tie.of("maker", (), np.stack([CODES, CODES % 4 // 2, CODES + 5], axis=1)),
            Tie.of("seats", (10.5, 20.5), np.stack([CODES, CODES % 3, CODES + 5], axis=1)),
        )
    },
    SCHEMA,
    SCHEMA.names,
)
Codes = NDArray[np.int64]


def drawn(seed: int, n: int) -> tuple[NDArray[np.float64], Codes, NDArray[np.float64]]:
    """Numbers and codes of n rows as a decoder without ties may draw them, and uniform numbers."""
    rng = np.random.default_rng(seed)
    planes = rng.choice([*CODES, 3], n)
    codes = np.column_stack([rng.integers(0, 3, n), planes, rng.integers(0, 2, n)])
    return rng.choice([5.0, 15.0, 25.0, np.nan], (n, 5)), codes, rng.random((n, 7))


@given(st.integers(0, 2**32), st.integers(1, 40))
def test_kept_cells_stay_and_a_row_depends_on_itself_alone(seed: int, n: int) -> None:
    numbers, codes, u = drawn(seed, n)
    keep = np.random.default_rng(seed).random((n, 8)) < 0.4
    whole = TIES.redrawn(numbers, codes, keep, u)
    assert (whole == codes)[keep[:, :3]].all()
    alone = [TIES.redrawn(numbers[[i]], codes[[i]], keep[[i]], u[[i]]) for i in range(n)]
    assert np.array_equal(whole, np.concatenate(alone))


@given(st.integers(0, 2**32))
def test_a_rarer_category_goes_with_the_row_and_a_later_column_with_it(seed: int) -> None:
    numbers, codes, u = drawn(seed, 200)
    made = TIES.redrawn(numbers, codes, np.zeros((200, 8), dtype=bool), u)
    assert np.array_equal(made[codes[:, 0] < 2, 0], codes[codes[:, 0] < 2, 0])
    tied = (made[:, 0] < 2) & (made[:, 1] != 3)
    assert np.array_equal(made[tied, 1] % 2, made[tied, 0])
    assert np.array_equal(made[tied, 1] % 4 // 2, made[tied, 2])
    assert np.array_equal(made[codes[:, 1] == 3], codes[codes[:, 1] == 3])
    rarer = codes[:, 1] > 3
    assert (made[rarer & (codes[:, 0] < 2), 1] > 3).all()
    frequent = ~rarer & (codes[:, 1] % 2 == codes[:, 0])
    assert np.array_equal(made[frequent, 1], codes[frequent, 1])


def test_a_category_is_drawn_by_its_rows_among_those_that_go_with_the_row() -> None:
    n = 40_000
    codes = np.tile([0, 4, 0], (n, 1))
    numbers = np.full((n, 5), 5.0)
    keep = np.zeros((n, 8), dtype=bool)
    u = np.random.default_rng(0).random((n, 3))
    planes = TIES.redrawn(numbers, codes, keep, u)[:, 1]
    fitting = [4, 8, 12]  # even, of the first maker
    weights = {plane: plane + 5 for plane in fitting if plane % 3 == 0}
    assert set(planes.tolist()) == set(weights)
    for plane, weight in weights.items():
        assert (planes == plane).mean() == pytest.approx(weight / sum(weights.values()), abs=0.01)
    assert set(TIES.redrawn(numbers, codes, keep, u, mode=True)[:, 1].tolist()) == {12}


@given(st.integers(0, 2**32), st.integers(1, 30))
def test_a_given_category_fixes_the_cells_that_it_goes_with(seed: int, n: int) -> None:
    numbers, named, _ = drawn(seed, n)
    rng = np.random.default_rng(seed)
    seen = rng.random((n, 8)) < 0.6
    keep = seen & (rng.random((n, 8)) < 0.8)
    encoded = Encoded(numbers, as_modelled(named, SCHEMA), np.arange(n), [], named)
    fixed, seen_too, kept_too = TIES.given(encoded, seen, keep)
    assert (fixed.named == named)[keep[:, :3]].all()
    given_plane = keep[:, 1] & (named[:, 1] != 3)
    assert kept_too[given_plane][:, [0, 2]].all()
    assert seen_too[given_plane][:, [0, 2]].all()
    open_carrier = given_plane & ~keep[:, 0]
    assert np.array_equal(fixed.codes[open_carrier, 0], named[open_carrier, 1] % 2)
    assert np.array_equal(kept_too[~given_plane], keep[~given_plane])
    assert np.array_equal(fixed.codes, as_modelled(fixed.named, SCHEMA))


@pytest.mark.parametrize("pairs", ["AAAA", "//////////////////8B"])
def test_pairs_that_are_no_three_numbers_each_are_refused(pairs: str) -> None:
    with pytest.raises(ValidationError, match="three numbers each"):
        Tie(column="carrier", pairs=pairs)


@pytest.mark.parametrize(
    ("name", "tie", "reason"),
    [
        ("length", ("colour", [0, 0, 9]), "in another way"),
        ("colour", ("id", [0, 0, 9]), "in another way"),
        ("colour", ("length", [5, 0, 9]), "that no column has"),
        ("width", ("colour", [0, 0, 9]), "in another way"),
    ],
)
def test_a_manifest_whose_ties_are_not_of_its_columns_is_refused(
    name: str, tie: tuple[str, list[int]], reason: str, tmp_path: Path
) -> None:
    manifest = json.loads((linear_artifact(tmp_path) / "manifest.json").read_text())
    good = Tie.of("length", (0.5,), np.array([[4, 1, 9]]))
    check_manifest(manifest | {"ties": {"colour": [good.model_dump()]}})
    bad = Tie.of(tie[0], (), np.array([tie[1]]))
    with pytest.raises(InvalidArtifact, match=reason):
        check_manifest(manifest | {"ties": {name: [bad.model_dump()]}})


def test_a_rarer_category_beside_a_value_of_no_pair_becomes_empty_unless_it_is_kept() -> None:
    numbers, codes, u = drawn(0, 400)
    codes[:, 0] = 2
    codes[:200, 1] = np.random.default_rng(0).choice(CODES[2:], 200)
    none = np.zeros((400, 8), dtype=np.bool_)
    empty = TIES.redrawn(numbers, codes, none, u)[:, 1]
    assert (empty[codes[:, 1] >= 4] == 2).all()
    assert np.array_equal(empty[codes[:, 1] < 4], codes[codes[:, 1] < 4, 1])
    every = np.ones((400, 8), dtype=np.bool_)
    assert np.array_equal(TIES.redrawn(numbers, codes, every, u), codes)


def test_a_rarer_category_is_redrawn_within_its_cluster_where_a_member_goes_with_the_row() -> None:
    clusters = tuple(at // 6 for at in range(12))
    columns = tuple(
        column.model_copy(update={"clusters": clusters}) if column.name == "plane" else column
        for column in SCHEMA.columns
    )
    of_carrier = {"plane": (Tie.of("carrier", (), np.stack([CODES, CODES % 2, CODES], axis=1)),)}
    ties = Ties(of_carrier, Schema(columns=columns), SCHEMA.names)
    numbers, codes, u = drawn(0, 400)
    codes[:, 0] %= 2
    codes[:, 1] = np.random.default_rng(0).choice(CODES[2:], 400)
    planes = ties.redrawn(numbers, codes, np.zeros((400, 8), dtype=np.bool_), u)[:, 1]
    assert np.array_equal(planes % 2, codes[:, 0])
    assert np.array_equal((planes - 4) // 6, (codes[:, 1] - 4) // 6)

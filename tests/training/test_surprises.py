"""Surprises are calibrated: they are those of rows that nothing was fitted to."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from nelbo.novelty import MISSING, MISSPELT, NEW, RESPELT
from nelbo.schema import Column, Schema
from nelbo.scores import p_values
from training.data import Rows
from training.surprises import (
    SELDOM,
    HeldOutCosts,
    fit_curve,
    fit_surprise,
    held_out_surprises,
    novelties_of,
)

COLUMNS = 15


def costs(rows: int, rng: np.random.Generator, members: int = 2) -> HeldOutCosts:
    """Costs with heavy tails that depend on each other, and one column of two values."""
    common = rng.exponential(size=(rows, 1, 1))
    of_members = common + rng.standard_t(3, size=(rows, members, COLUMNS))
    of_members[:, :, 0] = rng.random((rows, 1)) < 0.02
    levels = np.zeros((rows, COLUMNS), np.int8)
    levels[:, 0] = NEW * (rng.random(rows) < 0.004)
    return HeldOutCosts(of_members.sum((1, 2)), of_members, levels)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("rows", [100, 300, 2_000])
def test_no_more_than_alpha_of_fresh_rows_are_flagged(rows: int, share: float) -> None:
    """Also at the smallest p-values, where each of the many columns has its own highest cost."""
    members = 2 if 0 < share < 1 else 1
    novelties = [(0.0, 5.0, 5.5, 6.0, 7.0)] * COLUMNS
    p = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        held_out = costs(rows, rng, members)
        calibration = np.sort(held_out_surprises(held_out, novelties, share, seed))
        fitted = fit_surprise(held_out, novelties, share)
        fresh = costs(1_000, rng, members)
        cells = fitted.of_cells(fresh.members, fresh.levels)
        p.append(p_values(fitted.of_rows(cells, fresh.nelbo), calibration))
    every = np.concatenate(p)
    for alpha in (0.01, 0.02, 0.05, 0.2, 0.5):
        error = np.sqrt(alpha * (1 - alpha) * (1 / (20 * rows) + 1 / len(every)))
        assert abs((every <= alpha).mean() - alpha) < 4 * error + 1 / (rows + 1)


def test_a_curve_counts_the_bulk_of_the_costs() -> None:
    held_out = np.random.default_rng(0).normal(size=999)
    curve = fit_curve(held_out, 64)
    highest = np.sort(held_out)[::-1]
    for rank in (10, 20, 50, 500):
        expected = -np.log((1 + rank) / 1_000)
        assert curve(highest[[rank - 1]])[0] == pytest.approx(expected, abs=0.05)
    assert curve(highest[[-1]])[0] == pytest.approx(0.0, abs=1e-3)
    assert len(curve.costs) <= 64


def test_few_errors_among_held_out_costs_do_not_make_each_other_usual() -> None:
    rng = np.random.default_rng(0)
    clean = rng.exponential(size=1_000)
    dirty = np.append(clean, np.full(9, 50.0))
    surprise_of_error = fit_curve(dirty, 64)(np.array([50.0]))[0]
    assert surprise_of_error > 15
    usual = clean[clean < np.quantile(clean, 0.95)]
    np.testing.assert_allclose(fit_curve(dirty, 64)(usual), fit_curve(clean, 64)(usual), atol=0.3)


def test_a_curve_of_equal_costs_or_of_none_has_no_surprise_in_it() -> None:
    for held_out in (np.zeros(10), np.empty(0)):
        curve = fit_curve(held_out, 64)
        np.testing.assert_allclose(curve(np.array([-1.0, 0.0])), 0.0)
        assert curve(np.array([3.0]))[0] > 0


SCHEMA = Schema(
    columns=(
        Column(name="maker", kind="categorical", categories=("BOEING", "CESSNA")),
        Column(name="seats", kind="integer"),
    )
)


def shares(makers: Sequence[str | None], seats: Sequence[int | None]) -> NDArray[np.float64]:
    """The share of each level, by column, that its surprise says."""
    table = pa.table({"maker": makers, "seats": seats})
    names = ("BOEING", "CESSNA")
    codes = [
        3 if maker is None else names.index(maker) if maker in names else 2 for maker in makers
    ]
    numbers = [[np.nan if seat is None else seat] for seat in seats]
    rows = Rows(np.array(numbers, dtype=np.float64), np.array(codes)[:, None])
    surprise = np.array(list(novelties_of(SCHEMA, table, rows)))
    seldom = np.exp(-surprise) * SELDOM
    return np.asarray(np.where(seldom < SELDOM**2, np.sqrt(seldom), np.exp(-surprise)))


def test_a_level_is_as_surprising_as_its_share_of_the_training_rows_says() -> None:
    makers = (
        ["BOEING"] * 70 + ["CESSNA"] * 20 + ["CESNA", "cessna", "AIRBUS", "AIRBUS"] + [None] * 5
    )
    maker, seats = shares(makers, [4] * 99)
    assert maker[MISSING] == pytest.approx(6 / 100, rel=1e-4)
    assert maker[NEW] == pytest.approx(5 / 100, rel=1e-4)
    assert maker[MISSPELT] == pytest.approx(3 / 100, rel=1e-4)
    assert maker[RESPELT] == pytest.approx(2 / 100, rel=1e-4)
    assert seats[MISSING] == pytest.approx(1 / 100, rel=1e-4)


def test_what_never_was_is_more_surprising_the_more_rows_never_had_it() -> None:
    few = shares(["BOEING", "CESSNA"] * 10, [4] * 20)
    many = shares(["BOEING", "CESSNA"] * 500, [4] * 1_000)
    assert (many[:, 1:] < few[:, 1:]).all()


def test_the_seldomer_a_level_is_the_more_it_surprises() -> None:
    """Twice −log of its share below SELDOM, less a constant."""
    table = pa.table({"maker": ["BOEING"] * 999 + [None], "seats": [4] * 1_000})
    rows = Rows(np.full((1_000, 1), 4.0), np.array([0] * 999 + [3])[:, None])
    maker, _ = novelties_of(SCHEMA, table, rows)
    share = 2 / 1_001
    assert maker[MISSING] == pytest.approx(-2 * np.log(share) + np.log(SELDOM), rel=1e-4)


def test_in_a_column_of_names_a_new_name_is_no_surprise() -> None:
    names = [f"Smith {number} of {number**2} {'xyz' * (number % 7)}" for number in range(100)]
    maker, _ = shares(names, [4] * 100)
    assert maker[NEW] > 0.9
    assert maker[MISSPELT] < 0.05

"""Laws of the column likelihoods: each sums or integrates to one, moves with its scale, and grows
beyond the seen range."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nelbo.schema import Column, Schema
from training.likelihoods import Likelihoods
from training.numbers import Number

Array = NDArray[np.float64]
RNG = np.random.default_rng(0)
N = 3_000
COLUMNS: dict[str, tuple[str, Array]] = {
    "normal": ("continuous", RNG.normal(size=N)),
    "heavy tails": ("continuous", RNG.standard_cauchy(N)),
    "atom at zero": ("continuous", np.where(RNG.random(N) < 0.6, 0.0, RNG.exponential(size=N))),
    "few values": ("continuous", RNG.choice([0.5, 1.5, 7.0], N)),
    "tiny": ("continuous", RNG.normal(size=N) * 1e-9 + 1),
    "one value": ("continuous", np.full(N, 3.5)),
    "small integers": ("integer", RNG.poisson(4, N).astype(float)),
    "large integers": ("integer", RNG.integers(-(10**6), 10**6, N).astype(float)),
    "integers with an atom": (
        "integer",
        np.where(RNG.random(N) < 0.5, 99_999.0, RNG.integers(0, 10**5, N)),
    ),
    "one integer": ("integer", np.full(N, 7.0)),
    "few rows": ("continuous", RNG.normal(size=25)),
    "days": ("datetime", RNG.integers(18_000, 18_100, N).astype(np.float64) * 86_400_000_000),
    "with missing": ("continuous", np.where(RNG.random(N) < 0.3, np.nan, RNG.normal(size=N))),
    "heavier tails": ("continuous", 1 + RNG.pareto(0.8, N)),
    "whole heavy tails": ("integer", -np.floor(RNG.lognormal(0, 3, N))),
    "round numbers": ("integer", RNG.integers(1, 400, N).astype(np.float64) * 500 + 3),
    "all missing": ("continuous", np.full(N, np.nan)),
    "ages that thin out": (
        "integer",
        np.append(np.repeat(np.arange(20.0, 71), 50), [71, 71, 72, 73, 73, 75, 79, 79, 90]),
    ),
    "limits and a lone million": (
        "integer",
        np.append(np.repeat(np.arange(1.0, 30) * 10_000, 99), [1e6, 1e6]),
    ),
    "numbers far below and above": (
        "continuous",
        np.concatenate([[-9_999.0, -999.5], np.repeat([0.5, 1.5, 2], 99), [1e6]]),
    ),
    "nearly all zero": (
        "continuous",
        np.where(RNG.random(N) < 0.98, 0.0, RNG.lognormal(6, 2, N).round(2)),
    ),
    "nearly all zero, few rows": (
        "integer",
        np.where(np.arange(500) < 490, 0.0, np.arange(500) ** 2),
    ),
    "rare numbers between others": (
        "continuous",
        np.concatenate([np.repeat(np.arange(99), 25), np.arange(0.5, 99)]),
    ),
}
STEP = {"continuous": 1, "integer": 1, "datetime": 86_400_000_000}
every_column = pytest.mark.parametrize("name", COLUMNS)


def fitted(name: str, scale: float = 1.0) -> tuple[Likelihoods, Number]:
    kind, values = COLUMNS[name]
    column = Column.model_validate({"name": "x", "kind": kind, "step": STEP[kind]})
    none = np.zeros((len(values), 0), np.int64)
    likelihoods = Likelihoods.fit(Schema(columns=(column,)), values[:, None] * scale, none, rare=5)
    return likelihoods, only_number(likelihoods)


def only_number(likelihoods: Likelihoods) -> Number:
    (law,) = likelihoods.columns
    assert isinstance(law, Number)
    return law


def is_point(low: Array, high: Array) -> NDArray[np.bool_]:
    """Whether cells hold one float alone: they have a mass, not a density."""
    return np.asarray(high == np.nextafter(low, np.inf))


def log_p(likelihoods: Likelihoods, values: Array) -> tuple[NDArray[np.int64], Array]:
    """Codes and log p(x) of values under even logits."""
    numbers = torch.from_numpy(np.asarray(values, dtype=np.float64)[:, None])
    codes, density = likelihoods.encode(numbers, torch.zeros(len(values), 0, dtype=torch.int64))
    log_mass = likelihoods.masses.log_prob(
        [likelihoods.masses.even.expand(len(values), -1)], codes
    )[:, 0]
    return codes[:, 0].numpy(), (log_mass + density[:, 0]).numpy()


def masses(likelihoods: Likelihoods) -> Array:
    """The probability of each code of the first column under some logits."""
    (size,) = likelihoods.sizes
    logits = likelihoods.masses.even + torch.randn(size)
    return (
        likelihoods.masses.log_prob([logits.expand(size, -1)], torch.arange(size)[:, None])
        .exp()[:, 0]
        .numpy()
    )


@every_column
def test_the_masses_of_the_codes_sum_to_one(name: str) -> None:
    likelihoods, _ = fitted(name)
    np.testing.assert_allclose(masses(likelihoods).sum(), 1, atol=1e-5)


@every_column
def test_the_whole_line_has_the_mass_that_missing_leaves(name: str) -> None:
    """Cell by cell: density x width inside, mass of atoms, geometric or exponential tails in closed
    form."""
    likelihoods, number = fitted(name)
    integral = number.field.unit > 0
    total = 0.0
    for cell in number.intervals:
        width = cell.high - cell.low
        is_mass = cell.code < number.known and is_point(np.array(cell.low), np.array(cell.high))
        inside = cell.low if integral or is_mass else (cell.low + cell.high) / 2
        if width > 0:
            total += mass(likelihoods, inside * (number.field.unit or 1.0)) * (
                1 if is_mass else width
            )
    missing = mass(likelihoods, np.nan)
    assert total + sum(tails(likelihoods, number)) + missing == pytest.approx(1, abs=2e-3)


def mass(likelihoods: Likelihoods, value: float) -> float:
    return float(np.exp(log_p(likelihoods, np.array([value]))[1][0]))


def tails(likelihoods: Likelihoods, number: Number) -> tuple[float, float]:
    """Mass to the left and to the right: from the first value outside, a geometric or an
    exponential series."""
    low, high = number.intervals[0].low, number.intervals[-1].high
    if number.field.unit:
        outside = ((low - 1) * number.field.unit, high * number.field.unit)
        return (
            mass(likelihoods, outside[0]) / -np.expm1(-number.outside.rates[0]),
            mass(likelihoods, outside[1]) / -np.expm1(-number.outside.rates[1]),
        )
    outside = (np.nextafter(low, -np.inf), np.nextafter(high, np.inf))
    return mass(likelihoods, outside[0]) / number.outside.rates[0], mass(
        likelihoods, outside[1]
    ) / number.outside.rates[1]


@pytest.mark.parametrize(
    "name",
    [name for name, (kind, _) in COLUMNS.items() if kind == "continuous" and name != "all missing"],
)
@pytest.mark.parametrize("factor", [2.0**-20, 8.0, 2.0**20])
def test_rescaling_a_column_moves_log_p_by_the_log_of_the_factor_and_leaves_masses(
    name: str, factor: float
) -> None:
    values = COLUMNS[name][1]
    likelihoods, number = fitted(name)
    scaled, _ = fitted(name, factor)
    codes, before = log_p(likelihoods, values)
    codes_scaled, after = log_p(scaled, values * factor)
    low, high = (
        np.array([getattr(cell, end) for cell in number.intervals]) for end in ("low", "high")
    )
    cell = np.searchsorted(low, values, "right") - 1
    masses = np.isnan(values) | is_point(low, high)[cell]
    assert np.array_equal(codes, codes_scaled)
    np.testing.assert_allclose(before - after, np.where(masses, 0.0, np.log(factor)), atol=1e-6)


@every_column
def test_every_training_value_has_a_known_code(name: str) -> None:
    likelihoods, number = fitted(name)
    values = COLUMNS[name][1]
    codes, density = log_p(likelihoods, values)
    assert (codes[~np.isnan(values)] < number.known).all()
    assert (codes[np.isnan(values)] == number.known + 1).all()
    assert np.isfinite(density).all()


@pytest.mark.parametrize("name", [name for name in COLUMNS if name != "all missing"])
def test_beyond_the_seen_range_the_cost_grows_with_the_distance(name: str) -> None:
    likelihoods, number = fitted(name)
    step = number.field.unit or 1.0
    low, high = number.intervals[0].low, number.intervals[-1].high
    span = max(high - low, abs(high), 1.0)
    distances = span * np.array([0.01, 0.1, 1, 10, 1e3, 1e6])
    distances = np.ceil(distances + np.arange(6)) if number.field.unit else distances
    for edge, sign in ((high, 1), (low, -1)):
        codes, cost = log_p(likelihoods, (edge + sign * distances) * step)
        assert (codes == number.known).all()
        assert (np.diff(cost) < 0).all()


@every_column
def test_the_quantile_function_of_a_code_stays_inside_the_code(name: str) -> None:
    likelihoods, number = fitted(name)
    for code, knots in enumerate(number.knots):
        parts = np.flatnonzero(np.diff(number.upto[code]) > 0)
        values = (
            knots[parts] + np.linspace(0, 1, 7, endpoint=False)[:, None] * np.diff(knots)[parts]
        )
        values = np.floor(values) if number.field.unit else values
        codes, _ = log_p(likelihoods, values.ravel() * (number.field.unit or 1.0))
        assert set(codes) == {code}


def test_other_has_the_good_turing_mass_and_missing_is_never_drawn_if_never_seen() -> None:
    column = Column(name="x", kind="categorical", categories=("a", "b", "c"))
    codes = np.array([0] * 6 + [1] * 3 + [2])[:, None]
    likelihoods = Likelihoods.fit(Schema(columns=(column,)), np.zeros((10, 0)), codes)
    n, known, singletons = 10, 3, 1
    assert masses(likelihoods)[3] == pytest.approx((singletons + 1) / (n + known + 1))
    assert (likelihoods.masses.drawn == 0).tolist() == [True, True, True, False, False]


def test_a_value_of_fewer_than_rare_rows_is_never_drawn_but_still_scored() -> None:
    column = Column(name="x", kind="categorical", categories=("a", "b", "c"))
    codes = np.array([0] * 60 + [1] * 5 + [2] * 4)[:, None]
    likelihoods = Likelihoods.fit(Schema(columns=(column,)), np.zeros((69, 0)), codes, rare=5)
    assert (likelihoods.masses.drawn == 0).tolist() == [True, True, False, False, False]
    assert masses(likelihoods)[2] > 0


def test_a_column_of_rare_categories_alone_is_drawn_as_missing() -> None:
    column = Column(name="x", kind="categorical", categories=("a", "b", "c"))
    likelihoods = Likelihoods.fit(
        Schema(columns=(column,)), np.zeros((3, 0)), np.array([[0], [1], [2]]), rare=5
    )
    assert torch.softmax(likelihoods.masses.even + likelihoods.masses.drawn, 0).tolist() == [
        0,
        0,
        0,
        0,
        1,
    ]


@every_column
def test_every_code_of_a_number_column_can_be_drawn(name: str) -> None:
    """Each holds as many rows as `rare` wants."""
    likelihoods, number = fitted(name)
    assert number.counts.min(initial=5) >= 5
    assert torch.equal(likelihoods.masses.drawn == 0, likelihoods.masses.learned)


@every_column
def test_a_quantile_function_rises_from_0_to_1_over_the_code_s_rows(name: str) -> None:
    _, number = fitted(name)
    assert (np.diff(number.knots, axis=1) >= 0).all()
    assert (np.diff(number.upto, axis=1) >= 0).all()
    assert (number.upto[:, 0] == 0).all()
    np.testing.assert_allclose(number.upto[:, -1], 1)


@pytest.mark.parametrize("seen", [16, 25, 36, 45, 78, 81, 400])
def test_however_few_rows_hold_a_number_every_range_holds_enough_of_them_to_be_drawn(
    seen: int,
) -> None:
    column, values = Column(name="x", kind="continuous"), np.full((1_000, 1), np.nan)
    values[:seen, 0] = RNG.normal(size=seen)
    likelihoods = Likelihoods.fit(
        Schema(columns=(column,)), values, np.zeros((1_000, 0), np.int64), rare=5
    )
    assert torch.equal(likelihoods.masses.drawn == 0, likelihoods.masses.learned)


def test_numbers_in_ranges_of_few_rows_are_drawn_all_the_same() -> None:
    column = Column(name="x", kind="continuous")
    likelihoods = Likelihoods.fit(
        Schema(columns=(column,)), RNG.normal(size=(4, 1)), np.zeros((4, 0), np.int64), rare=5
    )
    assert torch.equal(likelihoods.masses.drawn == 0, likelihoods.masses.learned)


RARER = Column(
    name="x",
    kind="categorical",
    categories=("a", "b"),
    rarer=(("c", 12), ("d", 8), ("e", 6), ("f", 2)),
    clusters=(1, 0, 1, 0),
)


def test_rarer_categories_have_the_code_of_their_cluster_and_a_share_of_it() -> None:
    codes = np.repeat([0, 1, 2, 4, 5, 6, 7], [60, 50, 20, 12, 8, 6, 2])[:, None]
    likelihoods = Likelihoods.fit(Schema(columns=(RARER,)), np.zeros((158, 0)), codes, rare=5)
    (law,) = likelihoods.columns
    assert (law.counts.tolist(), law.others) == ([60, 50, 10, 18], 20)
    every = torch.arange(8)[:, None]
    x, log_share = likelihoods.encode(torch.zeros(8, 0).double(), every)
    assert x[:, 0].tolist() == [0, 1, 4, 5, 3, 2, 3, 2]
    shares = log_share[:, 0].exp().tolist()
    assert shares == pytest.approx([1, 1, 1, 1, 12 / 18, 8 / 10, 6 / 18, 2 / 10])


def test_clusters_are_drawn_as_members_of_enough_rows_and_so_is_other() -> None:
    codes = np.repeat([0, 1, 2, 4, 5, 6, 7], [60, 50, 20, 12, 8, 6, 2])[:, None]
    likelihoods = Likelihoods.fit(Schema(columns=(RARER,)), np.zeros((158, 0)), codes, rare=5)
    assert likelihoods.masses.drawn[:5].tolist() == [0] * 5
    u = torch.linspace(0, 1 - 1e-9, 2_601).double()[:, None]
    expected = {0: {0: 1.0}, 2: {5: 1.0}, 3: {4: 2 / 3, 6: 1 / 3}, 5: {3: 1.0}}
    expected[4] = {4: 12 / 26, 5: 8 / 26, 6: 6 / 26}
    for code, shares in expected.items():
        made = likelihoods.categories.draw(torch.full((len(u), 1), code), u).numpy()
        categories, rows = np.unique(made, return_counts=True)
        assert categories.tolist() == list(shares)
        assert rows / len(u) == pytest.approx(list(shares.values()), abs=1e-3)

"""Number columns: which values are atoms, where bins begin and end, and how round the numbers
are."""

import numpy as np
import pytest

from training.fields import Field
from training.numbers import Floats, Number, fit_number

RNG = np.random.default_rng(0)
N, RARE = 6_000, 5
QUANTILES = [0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999]
LIMITS = RNG.choice(np.arange(1.0, 51) * 10_000, N, p=np.arange(60, 10, -1) / 1_775)
TAILS: dict[str, tuple[Field, Floats]] = {
    "ages": (Field(1), np.floor(17 + 60 * RNG.beta(1.5, 4, N))),
    "limits up to a lone million": (Field(1), np.append(LIMITS, [1e6] * 3)),
    "limits up to a few rare ones": (
        Field(1),
        np.append(LIMITS, [620_000, 700_000, 700_000, 780_000, 800_000, 1e6]),
    ),
    "limits down to a lone sentinel": (Field(1), np.append(LIMITS, [-9_999] * 4)),
    "98 % zeros, all other amounts different": (
        Field(0),
        np.where(RNG.random(N) < 0.98, 0, RNG.lognormal(6, 1.5, N).round(2)),
    ),
    "98 % zeros, hundreds of other amounts": (
        Field(0),
        np.append(np.zeros(49 * 400), RNG.lognormal(6, 1.5, 400).round(2)),
    ),
    "99 % zeros, few other amounts": (
        Field(1),
        np.where(np.arange(N) < N - 60, 0, np.arange(N) % 60 * 250 + 500),
    ),
    "90 % -1, all other whole numbers rare": (
        Field(1),
        np.where(RNG.random(N) < 0.9, -1, RNG.integers(0, 900, N)).astype(np.float64),
    ),
    "two frequent values, other amounts between and above": (
        Field(0),
        np.where(
            RNG.random(N) < 0.95, RNG.choice([0.0, 500.0], N), RNG.lognormal(6, 2, N).round(2)
        ),
    ),
    "round amounts, others between them": (
        Field(1),
        np.append(np.repeat([0.0, 10, 100, 1_000, 10_000], 1_000), RNG.integers(1, 20_000, 40)),
    ),
    "normal": (Field(0), RNG.normal(size=N)),
    "long tail": (Field(0), RNG.lognormal(0, 1.5, N)),
    "whole numbers with a long tail": (Field(1), np.floor(RNG.lognormal(5, 1.5, N))),
    "days of the week, a rare Saturday": (Field(1), np.append(RNG.integers(0, 5, N), [5.0, 5.0])),
    "few rows": (Field(0), RNG.normal(size=60)),
}
every_tail = pytest.mark.parametrize("name", TAILS)


def drawn(number: Number, rows: int) -> Floats:
    """Values of codes that are drawn as often as the table's rows hold them."""
    rng = np.random.default_rng(1)
    code = rng.choice(number.known, rows, p=number.counts / number.counts.sum())
    u = rng.random(rows)
    part = (number.upto[code, 1:-1] <= u[:, None]).sum(1)
    low, high = number.knots[code, part], number.knots[code, part + 1]
    first, end = number.upto[code, part], number.upto[code, part + 1]
    values = low + (u - first) / (end - first) * (high - low)
    if number.field.unit:
        return np.array(
            number.intervals[0].low
            + number.grid * np.floor((values - number.intervals[0].low) / number.grid)
        )
    ten = 10.0 ** max(0, number.decimals)
    return np.array(values if number.decimals < 0 else np.floor(values * ten + 1e-6) / ten)


@every_tail
def test_ranges_and_quantiles_of_what_is_drawn_are_the_table_s(name: str) -> None:
    """To a twentieth of the range, as far out as one row of a thousand; the ends to a tenth."""
    field, values = TAILS[name]
    made, spread = drawn(fit_number(values, field, RARE), 100_000), np.ptp(values)
    assert values.min() <= made.min() <= values.min() + spread / 10
    assert values.max() - spread / 10 <= made.max() <= values.max()
    off = (np.quantile(made, QUANTILES) - np.quantile(values, QUANTILES)) / spread
    assert np.abs(off).max() < (0.05 if len(values) >= N else 0.1)


@every_tail
def test_a_rare_value_is_drawn_no_more_often_than_the_table_holds_it(name: str) -> None:
    field, values = TAILS[name]
    number = fit_number(values, field, RARE)
    made = drawn(number, 100_000)
    assert number.counts.min() >= RARE
    rare = [
        value
        for value, rows in zip(*np.unique(values, return_counts=True), strict=True)
        if rows < RARE
    ]
    for value in rare[-20:]:
        share = (values == value).mean()
        assert (made == value).mean() <= share + 4 * np.sqrt(share / len(made)) + 0.15 * RARE / len(
            values
        )


def test_a_lone_far_value_is_hidden_in_a_range_and_its_neighbour_stays_as_frequent() -> None:
    """A million in 3 of 6,000 rows, far above 500,000: neither it nor what lies close to 500,000 is
    drawn that often."""
    field, values = TAILS["limits up to a lone million"]
    made = drawn(fit_number(values, field, RARE), 200_000)
    above = made[made > 500_000]
    assert len(above) / len(made) == pytest.approx(3 / N, rel=0.3)
    assert above.min() >= 750_000
    assert (above == 1e6).mean() < 0.15
    assert (made == 500_000).mean() == pytest.approx((values == 500_000).mean(), rel=0.2)


def test_rare_values_keep_a_mass_of_their_own_among_frequent_ones() -> None:
    """So that they score by their rows, whatever the width of the range that they are drawn
    from."""
    values = np.append(
        np.repeat(np.arange(1.0, 21) * 10_000, 50), [210_000, 230_000, 230_000, 400_000, 400_000]
    )
    number = fit_number(values, Field(1), RARE)
    cells = {cell.low: cell.log_density for cell in number.intervals if cell.high == cell.low + 1}
    found = [cells[value] for value in (210_000, 230_000, 400_000)]
    assert found == pytest.approx(np.log([1 / 6, 2 / 6, 2 / 6]))
    assert cells[10_000] == 0


def test_a_column_of_rare_numbers_alone_is_one_range() -> None:
    number = fit_number(np.array([1.0, 5.0, 20.0]), Field(1), RARE)
    assert number.counts.tolist() == [3]


@pytest.mark.parametrize(("digits", "found"), [(0, 0), (2, 2), (6, 6), (9, -1)])
def test_the_digits_after_the_point_are_those_of_the_table(digits: int, found: int) -> None:
    values = np.round(RNG.normal(size=3_000) * 10, digits)
    assert fit_number(values, Field(0)).decimals == found


@pytest.mark.parametrize(
    ("values", "grid"),
    [([3, 8, 18], 5), ([3, 8, 19], 1), ([7], 1), ([-4_000, 0, 10_000], 2_000), ([], 1)],
)
def test_the_grid_of_whole_numbers_is_that_of_the_table(values: list[int], grid: int) -> None:
    assert fit_number(np.array(values * 30, dtype=np.float64), Field(1)).grid == grid


@pytest.mark.parametrize("sign", [1, -1])
def test_a_heavy_tail_is_drawn_as_heavy_as_it_is(sign: int) -> None:
    values = sign * (1 + np.random.default_rng(0).pareto(1.2, 6_000))
    number = fit_number(values, Field(0))
    middles = (number.knots[:, :-1] + number.knots[:, 1:]) / 2
    assert number.counts @ middles.mean(1) / len(values) == pytest.approx(values.mean(), rel=0.3)


def test_light_tails_take_no_further_bins() -> None:
    values = np.random.default_rng(0).normal(size=6_000)
    assert fit_number(values, Field(0)).known == 64


def test_a_gap_inside_a_bin_is_not_filled() -> None:
    values = np.concatenate([RNG.uniform(0, 1, 1_020), RNG.uniform(1_000, 1_001, 1_000)])
    number = fit_number(values, Field(0))
    widths = np.diff(number.knots, axis=1)
    assert (widths > 10).sum() == 1


def test_a_spike_becomes_an_atom_and_repeated_noise_does_not() -> None:
    values = np.concatenate([np.zeros(500), RNG.normal(size=2_500)])
    number = fit_number(values, Field(0))
    atoms = number.knots[number.knots[:, 0] == number.knots[:, -1]][:, 0]
    assert atoms.tolist() == [0.0]


@pytest.mark.parametrize(("values", "field", "ordered"), [
    (np.arange(17, 90), Field(1), True),
    (np.arange(30) * 500 + 3, Field(1), True),
    (np.arange(100) / 10, Field(0), True),
    (np.arange(30) ** 2, Field(1), False),
    (np.arange(7), Field(1), False),
    (np.sqrt(np.arange(30)), Field(0), False),
])  # fmt: skip
def test_many_atoms_that_fill_their_grid_learn_as_neighbours(
    values: Floats, field: Field, ordered: bool
) -> None:
    number = fit_number(np.repeat(values.astype(np.float64), 40), field)
    assert number.bins == []
    assert number.ordered == (list(range(len(values))) if ordered else [])
